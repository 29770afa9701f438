//! Wall-clock time of the decision: hash + look-up + match, hot, and of the way from a head to facts.

#![allow(missing_docs, reason = "written by the harness's macros")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use leastgate_benches::{Fixture, token_text};

fn authorize(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authorize");
    for rules in [10, 100, 1_000, 10_000] {
        let fixture = Fixture::new(rules, 10_000);
        let facts = fixture.facts(&fixture.request(0));
        let text = token_text(0);
        group.bench_function(BenchmarkId::new("hash+look-up+match", rules), |bencher| {
            bencher.iter(|| {
                black_box(fixture.hash(black_box(text.expose())));
                black_box(fixture.decide(black_box(&facts)))
            });
        });
    }
    group.finish();
}

fn facts(criterion: &mut Criterion) {
    let fixture = Fixture::new(1_000, 10_000);
    let parts = fixture.request(0);
    criterion.bench_function("head to facts (with the hash)", |bencher| {
        bencher.iter(|| black_box(fixture.facts(black_box(&parts))))
    });
}

criterion_group!(benches, authorize, facts);
criterion_main!(benches);
