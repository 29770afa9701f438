//! Instructions of the decision, counted under callgrind: they repeat to within a percent whatever else runs.

#![allow(clippy::exit, missing_docs, unused_qualifications, reason = "written by the harness's macros")]

use std::hint::black_box;

use gungraun::prelude::*;
use leastgate_benches::Fixture;
use leastgate_policy::{Decision, RequestFacts};

fn head() -> (Fixture, http::request::Parts) {
    let fixture = Fixture::new(1_000, 1_000);
    let parts = fixture.request(0);
    (fixture, parts)
}

fn facts() -> (Fixture, RequestFacts) {
    let fixture = Fixture::new(1_000, 1_000);
    let facts = fixture.facts(&fixture.request(0));
    // The first decision works the token's entitlement out and keeps it.
    let _ = fixture.decide(&facts);
    (fixture, facts)
}

#[library_benchmark]
#[bench::rules_1k(setup = head)]
fn head_to_facts((fixture, parts): (Fixture, http::request::Parts)) -> (Fixture, RequestFacts) {
    let facts = black_box(fixture.facts(black_box(&parts)));
    (fixture, facts)
}

#[library_benchmark]
#[bench::rules_1k(setup = facts)]
fn facts_to_decision((fixture, facts): (Fixture, RequestFacts)) -> (Fixture, Decision) {
    let decision = black_box(fixture.decide(black_box(&facts)));
    (fixture, decision)
}

library_benchmark_group!(name = authorize; benchmarks = head_to_facts, facts_to_decision);
main!(library_benchmark_groups = authorize);
