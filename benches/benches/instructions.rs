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

/// A head whose token nobody was given: cut short, of another kind, with a wrong checksum, or just unknown.
fn refused_head(text: &str) -> (Fixture, http::request::Parts) {
    let fixture = Fixture::new(1_000, 1_000);
    let mut parts = fixture.request(0);
    let credential = format!("Bearer {text}").parse().expect("a field value");
    parts.headers.insert(http::header::AUTHORIZATION, credential);
    (fixture, parts)
}

fn token(change: impl FnOnce(&mut String)) -> String {
    let mut text = leastgate_benches::token_text(2_000_000).expose().to_owned();
    change(&mut text);
    text
}

fn unknown() -> (Fixture, http::request::Parts) {
    refused_head(&token(|_| {}))
}

fn checksum() -> (Fixture, http::request::Parts) {
    refused_head(&token(|text| {
        let last = text.pop();
        text.push(if last == Some('a') { 'b' } else { 'a' });
    }))
}

fn prefix() -> (Fixture, http::request::Parts) {
    refused_head(&token(|text| text.replace_range(..3, "xyz")))
}

// What a refusal costs must not tell how far a guess got: the text is hashed in any case (P31).
#[library_benchmark]
#[bench::unknown(setup = unknown)]
#[bench::checksum(setup = checksum)]
#[bench::prefix(setup = prefix)]
fn refused_token((fixture, parts): (Fixture, http::request::Parts)) -> (Fixture, Decision) {
    let facts = fixture.facts(black_box(&parts));
    let decision = black_box(fixture.decide(&facts));
    (fixture, decision)
}

fn ungranted(rules: usize) -> (Fixture, RequestFacts) {
    let fixture = Fixture::new(rules, 1_000);
    let mut parts = fixture.request(0);
    parts.method = http::Method::DELETE;
    let facts = fixture.facts(&parts);
    let _ = fixture.decide(&facts);
    (fixture, facts)
}

// A denial costs the same whatever the size of the policy (P27).
#[library_benchmark]
#[bench::rules_10(args = (10), setup = ungranted)]
#[bench::rules_1k(args = (1_000), setup = ungranted)]
#[bench::rules_10k(args = (10_000), setup = ungranted)]
fn denial((fixture, facts): (Fixture, RequestFacts)) -> (Fixture, Decision) {
    let decision = black_box(fixture.decide(black_box(&facts)));
    (fixture, decision)
}

library_benchmark_group!(name = authorize; benchmarks = head_to_facts, facts_to_decision, refused_token, denial);
main!(library_benchmark_groups = authorize);
