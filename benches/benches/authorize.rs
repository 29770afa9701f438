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

/// The parts of it, at a thousand rules.
fn parts(criterion: &mut Criterion) {
    let fixture = Fixture::new(1_000, 10_000);
    let facts = fixture.facts(&fixture.request(0));
    let text = token_text(0);
    let digest = fixture.hash(text.expose());
    criterion.bench_function("hash", |bencher| bencher.iter(|| black_box(fixture.hash(black_box(text.expose())))));
    criterion.bench_function("look-up", |bencher| {
        bencher.iter(|| black_box(fixture.authority.tokens().get(black_box(&digest))));
    });
    criterion.bench_function("look-up+match", |bencher| bencher.iter(|| black_box(fixture.decide(black_box(&facts)))));
}

fn facts(criterion: &mut Criterion) {
    let fixture = Fixture::new(1_000, 10_000);
    let parts = fixture.request(0);
    criterion.bench_function("head to facts (with the hash)", |bencher| {
        bencher.iter(|| black_box(fixture.facts(black_box(&parts))));
    });
}

criterion_group!(benches, authorize, parts, facts);
criterion_main!(benches);
