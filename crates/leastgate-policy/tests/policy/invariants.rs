//! What must hold of the engine whatever the policy: the canonical path is a fixed point of everything a reader could
//! do to it, an allowed request has no denied variant, and a role without denies takes nothing away.

use std::cell::Cell;
use std::collections::BTreeSet;

use leastgate_policy::Reason;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use unicode_normalization::UnicodeNormalization;

use crate::engine::Engine;
use crate::generate::{NOW, Scene, scenes};
use crate::notation::Example;
use crate::reference::condition::{self, Truth};
use crate::reference::decision::{deny_rules, effective};
use crate::reference::path::{self, PathView};
use crate::reference::readers;
use crate::reference::template::{self, covers};
use crate::reference::{Effect, RawRequest, TokenView, head};

fn run<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let failure = TestRunner::new(config).run(strategy, property).err();
    assert!(failure.is_none(), "{}", failure.map(|error| error.to_string()).unwrap_or_default());
}

/// Pieces that paths are glued together from: what readers disagree on, and a few letters.
const PIECES: &[&str] = &[
    "/",
    "/",
    "/",
    "a",
    "B",
    "a",
    ".",
    "..",
    "%2e",
    "%2E",
    ";",
    "%3b",
    "\\",
    "%5c",
    "%2f",
    "%2F",
    "%",
    "%25",
    "%2525",
    "%00",
    "%20",
    "%41",
    "%c3%a9",
    "%C3%89",
    "%ef%bc%8e",
    "%ef%bc%8f",
    "%ef%bc%bc",
    "%e2%80%a4",
    "%c0%af",
    "%ff",
    "~",
    ":",
    "@",
    "*",
    "=",
    "+",
    "%3f",
    "%23",
    "%0a",
    "%7f",
    "%u002e",
    "%c2%a0",
    "%E2%84%80",
];

#[test]
fn an_accepted_path_reads_the_same_to_everybody() {
    let example = Example::new("api any\n public GET /healthz");
    let engine = example.engine();
    let accepted = Cell::new(0);
    let paths =
        prop::collection::vec(prop::sample::select(PIECES), 0..10).prop_map(|pieces| format!("/{}", pieces.concat()));
    run(30_000, &paths, |raw| {
        let Some(segments) = segments(&engine, &raw) else {
            return Ok(());
        };
        accepted.set(accepted.get() + 1);
        let view = path::canonical(&raw).map_err(|fault| TestCaseError::fail(format!("{fault:?}")))?;
        prop_assert_eq!(&segments, &view.segments);
        let decoded = text(&view);
        let two = BTreeSet::from([raw.as_bytes().to_vec(), decoded.into_bytes()]);
        prop_assert_eq!(readers::readings(raw.as_bytes(), 10), Some(two), "{}", raw);
        let encoded = encode(&view);
        prop_assert_eq!(Some(segments), self::segments(&engine, &encoded), "not idempotent: {}", encoded);
        Ok(())
    });
    assert!(accepted.get() > 3_000, "only {} paths were accepted", accepted.get());
}

/// The engine's decoded segments; nothing for a path it refuses.
fn segments(engine: &Engine, target: &str) -> Option<Vec<String>> {
    let request = RawRequest {
        method: "GET".to_owned(),
        target: target.to_owned(),
        headers: vec![("host".to_owned(), b"any.test".to_vec())],
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let facts = engine.facts(&request, NOW)?.ok()?;
    Some(facts.path().segments().map(str::to_owned).collect())
}

fn text(path: &PathView) -> String {
    let slash = if path.slash || path.segments.is_empty() { "/" } else { "" };
    let mut text = String::new();
    for segment in &path.segments {
        text.push('/');
        text.push_str(segment);
    }
    text + slash
}

/// The segments, every byte of them escaped but letters and digits.
fn encode(path: &PathView) -> String {
    let mut out = String::new();
    for byte in text(path).bytes() {
        if byte == b'/' || byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[test]
fn the_readers_do_read_differently() {
    let changed = [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a\\b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a;x=1/b", "/a/b"),
        ("/a?b", "/a"),
        ("/a#b", "/a"),
        ("/a%00b", "/a"),
        ("/a%0d%0ab", "/a"),
        ("/a./b%20", "/a/b"),
        ("/a/%252525%32e%252e/b", "/b"),
        ("/a/%u002e%U002E/b", "/b"),
        ("/a/%c0%ae%e0%80%ae/b", "/b"),
        ("/a/%f0%80%80%ae./b", "/b"),
        ("/a/..%3b/b", "/b"),
    ];
    for (raw, read) in changed {
        let readings = readers::readings(raw.as_bytes(), 1_000).unwrap();
        assert!(readings.contains(read.as_bytes()), "{raw}");
    }
}

#[test]
fn an_allowed_request_has_no_denied_variant() {
    let (allowed, denies) = (Cell::new(0), Cell::new(0));
    run(2_500, &scenes(), |scene| {
        let engine = engine(&scene)?;
        for (_, request) in &scene.requests {
            let Some(judgement) = engine.judge(request, scene.now) else {
                continue;
            };
            // In shadow the scopes' denies are advice; boundaries bind.
            let token = if judgement.shadowed.is_some() { None } else { bearer(&scene, request) };
            if judgement.effect == Effect::Allow {
                allowed.set(allowed.get() + 1);
                let token = token.filter(|_| judgement.reason != Reason::PublicRule);
                denies.set(denies.get() + no_variant_is_denied(&scene, request, token)?);
            }
        }
        Ok(())
    });
    assert!(allowed.get() > 500 && denies.get() > 500, "{} allowed, {} denies tried", allowed.get(), denies.get());
}

fn engine(scene: &Scene) -> Result<Engine, TestCaseError> {
    Engine::new(&scene.policy, &scene.gateway, &scene.tokens, scene.now).map_err(TestCaseError::fail)
}

/// The token whose text the request carries as its credential.
fn bearer<'a>(scene: &'a Scene, request: &RawRequest) -> Option<&'a TokenView> {
    let value = String::from_utf8_lossy(request.values("authorization").first()?).into_owned();
    scene.tokens.iter().find(|token| value.ends_with(&token.text))
}

fn no_variant_is_denied(
    scene: &Scene,
    request: &RawRequest,
    token: Option<&TokenView>,
) -> Result<usize, TestCaseError> {
    let world = scene.world();
    let head =
        head::head(&scene.policy, request).map_err(|reason| TestCaseError::fail(format!("allowed, but {reason:?}")))?;
    let api = head.api.ok_or_else(|| TestCaseError::fail("allowed, but no api's"))?;
    let rules = deny_rules(world, &api.name.value, token);
    for rule in &rules {
        if condition::when(rule.when.as_ref(), &scene.gateway, request) == Truth::False {
            continue;
        }
        let deny = template::rule(&rule.text.value);
        for path in variants(&head.path) {
            // Once as the reference denies, once as an upstream would compare, text with text.
            let plain = template::denies(&deny, &head.manner, &PathView { slash: deny.slash, ..path.clone() });
            prop_assert!(!plain, "{} denies {path:?} of {request:?}", rule.text.value);
            let methods = template::denies_method(&deny, &head.manner);
            prop_assert!(!(methods && covers(&deny.segments, &path.segments, true)), "{} is {path:?}", rule.text.value);
        }
    }
    Ok(rules.len())
}

type Spelling = fn(&str) -> String;

const SPELLINGS: &[Spelling] = &[
    str::to_owned,
    str::to_uppercase,
    str::to_lowercase,
    str::to_ascii_uppercase,
    str::to_ascii_lowercase,
    |text| text.nfkc().collect(),
    |text| text.nfkd().collect(),
    |text| text.nfc().collect(),
    |text| text.nfd().collect(),
    |text| text.nfkc().collect::<String>().to_uppercase(),
    |text| text.nfkc().collect::<String>().to_lowercase(),
    |text| text.to_uppercase().nfkc().collect(),
    |text| text.to_lowercase().nfkc().collect(),
    |text| text.to_uppercase().to_lowercase(),
    |text| text.chars().map(full_width).collect(),
    alternating,
];

/// ASCII as full-width forms, which NFKC takes back.
fn full_width(c: char) -> char {
    if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xfee0).unwrap_or(c) } else { c }
}

fn alternating(text: &str) -> String {
    let upper = |(at, c): (usize, char)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().enumerate().map(upper).collect()
}

fn variants(path: &PathView) -> Vec<PathView> {
    let mut all = Vec::new();
    for spelling in SPELLINGS {
        for slash in [false, true] {
            let segments = path.segments.iter().map(|segment| spelling(segment)).collect();
            all.push(PathView { segments, slash });
        }
    }
    all
}

#[test]
fn a_role_without_denies_takes_nothing_away() {
    let added = Cell::new(0);
    run(2_000, &scenes(), |scene| {
        let engine = engine(&scene)?;
        for (_, request) in &scene.requests {
            let granted = |judgement: &crate::reference::Judgement| judgement.reason == Reason::ScopeGranted;
            let Some(before) = engine.judge(request, scene.now).filter(granted) else {
                continue;
            };
            let Some(token) = bearer(&scene, request) else {
                continue;
            };
            for role in &scene.policy.roles {
                if !carries_deny(&scene, &role.name.value) {
                    let mut more = token.clone();
                    more.roles.push(role.name.value.clone());
                    engine.put(&more);
                    let after = engine.judge(request, scene.now);
                    prop_assert_eq!(
                        after.as_ref().map(|judgement| judgement.reason),
                        Some(before.reason),
                        "{:?}",
                        request
                    );
                    added.set(added.get() + 1);
                }
            }
            engine.put(token);
        }
        Ok(())
    });
    assert!(added.get() > 500, "only {} roles were added", added.get());
}

/// Whether the role, or what it inherits, has a scope with a deny. Where it holds does not matter here.
fn carries_deny(scene: &Scene, role: &str) -> bool {
    let mut only = scene.tokens[0].clone();
    only.roles = vec![role.to_owned()];
    only.grants.clear();
    let held = effective(&scene.policy, &scene.gateway.environment, &only, scene.now);
    scene.policy.scopes.iter().any(|scope| held.contains(&scope.name.value) && !scope.deny.is_empty())
}
