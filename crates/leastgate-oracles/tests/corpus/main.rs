//! Every body over its corpus, and over mutations of it: what a fuzzer would try in its first second, the same each time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may be as blunt as tests")]

mod files;
mod mutation;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use leastgate_oracles::{TARGETS, target};
use leastgate_testkit::{attacks, policies};

use crate::mutation::Mutator;

/// Runs a target over its files and over so many mutations. What fails is kept.
fn run(name: &str, mutations: usize) {
    let corpus = files::corpus(name);
    for (file, bytes) in &corpus {
        hold(name, file, bytes);
    }
    let mut mutator = Mutator::new(corpus.into_iter().map(|(_, bytes)| bytes).collect(), files::dictionary(name));
    for number in 0..mutations {
        hold(name, &format!("mutation {number}"), &mutator.next());
    }
}

fn hold(name: &str, origin: &str, bytes: &[u8]) {
    let body = target(name).body;
    if catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{name}"));
        std::fs::write(&kept, bytes).unwrap();
        panic!("{name} does not hold for {origin}, kept as {}:\n{}", kept.display(), bytes.escape_ascii());
    }
}

#[test]
fn audit() {
    run("audit", 300);
}

#[test]
fn gateway_file() {
    run("gateway_file", 600);
}

#[test]
fn head() {
    run("head", 3_000);
}

#[test]
fn head_http2() {
    run("head_http2", 3_000);
}

#[test]
fn path() {
    run("path", 6_000);
}

#[test]
fn policy_file() {
    run("policy_file", 600);
}

#[test]
fn redaction() {
    run("redaction", 5_000);
}

#[test]
fn template() {
    run("template", 2_000);
}

#[test]
fn token() {
    run("token", 1_000);
}

/// The table of hostile requests, under the policy of the oracles: not the answers it demands, but what must hold of any.
#[test]
fn attacks() {
    let tokens = policies::orders_tokens();
    let known = tokens.iter().map(|(name, token)| (*name, token)).collect();
    let rows = attacks::table();
    for row in &rows {
        let mut sent = row.bytes(&known).unwrap().sent;
        for holder in ["READER", "WIDE"] {
            let placeholder = format!("{{{holder}}}").into_bytes();
            sent = files::replaced(&sent, tokens[holder].secret().as_bytes(), &placeholder);
        }
        hold("head", &row.id, &sent);
    }
    assert!(rows.len() > 200, "{} rows", rows.len());
}

#[test]
fn every_target_has_its_program_its_corpus_and_its_dictionary() {
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(files::names("fuzz_targets", ".rs"), names);
    assert_eq!(files::names("dictionaries", ".dict"), names);
    assert_eq!(files::names("corpus", ""), names);
    let mut size = 0;
    for name in names {
        let corpus = files::corpus(name);
        size += corpus.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(corpus.len() >= 20, "{} files of {name}", corpus.len());
        assert!(!files::dictionary(name).is_empty(), "{name}");
    }
    assert!(size < 300 * 1024, "{size} bytes of corpus");
}
