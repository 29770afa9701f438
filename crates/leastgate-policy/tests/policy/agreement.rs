//! The engine and the reference agree, on every random case; and the cases reach every reason often enough to mean it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use leastgate_policy::Reason;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::engine::Engine;
use crate::generate::{Scene, scenes};
use crate::reference::decision::judge;
use crate::reference::{Judgement, RawRequest, TokenView};

/// Policies a run; each is asked up to eight requests, 4.5 on average.
const POLICIES: u32 = 8_000;
const LEAST_CASES: usize = 20_000;

/// Every reason the engine itself can return.
const REASONS: &[Reason] = &[
    Reason::ScopeGranted,
    Reason::PublicRule,
    Reason::Preflight,
    Reason::OwnToken,
    Reason::RequestMalformed,
    Reason::PathAmbiguous,
    Reason::MethodUnsupported,
    Reason::HostUnknown,
    Reason::UriTooLong,
    Reason::CredentialMissing,
    Reason::CredentialMisplaced,
    Reason::CredentialMalformed,
    Reason::TokenUnknown,
    Reason::TokenRevoked,
    Reason::TokenDisabled,
    Reason::TokenNotYetValid,
    Reason::EnvironmentMismatch,
    Reason::SourceNotAllowed,
    Reason::TokenExpired,
    Reason::TokenGraceEnded,
    Reason::InsufficientScope,
    Reason::ExplicitDeny,
    Reason::BoundaryDeny,
    Reason::ConditionFailed,
    Reason::NoMatchingScope,
];

/// How often what came up.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    unrepresentable: usize,
    seen: BTreeMap<String, usize>,
}

impl Tally {
    fn note(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    fn record(&mut self, scene: &Scene, request: &RawRequest, judgement: &Judgement) {
        self.cases += 1;
        self.note(judgement.reason.as_str());
        self.note(format!("{:?}", judgement.effect));
        self.note(format!("api {}", judgement.api.as_deref().unwrap_or("none")));
        if judgement.ending.is_some() {
            self.note("ends in a week");
        }
        if judgement.shadowed.is_some() {
            self.note("shadowed");
        }
        if judgement.rules.iter().any(|id| id.ends_with('#')) {
            self.note("conditional rule");
        }
        if judgement.rules.len() > 1 {
            self.note("several rules");
        }
        if judgement.rules.iter().any(|id| id.contains("/WS ") || id.contains("/GRPC ")) {
            self.note("WS or GRPC rule");
        }
        if !request.values("upgrade").is_empty() {
            self.note("upgrade asked for");
        }
        let ending = |token: &TokenView| token.grants.iter().any(|(_, end)| end.is_some_and(|end| end <= scene.now));
        if scene.tokens.iter().any(ending) {
            self.note("an expired grant about");
        }
    }

    fn share(&self, what: &str) -> f64 {
        let count = self.seen.get(what).copied().unwrap_or(0);
        100.0 * f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(u32::try_from(self.cases).unwrap_or(1))
    }
}

#[test]
fn the_engine_agrees_with_the_reference() {
    let tally = RefCell::new(Tally::default());
    let config = Config { cases: POLICIES, failure_persistence: None, ..Config::default() };
    let disagreement = TestRunner::new(config).run(&scenes(), |scene| agree(&scene, &tally)).err();
    assert!(disagreement.is_none(), "{}", disagreement.map(|error| error.to_string()).unwrap_or_default());
    let tally = tally.into_inner();
    assert!(tally.cases >= LEAST_CASES, "only {} cases", tally.cases);
    assert!(tally.unrepresentable * 100 < tally.cases, "{} cases no parser would hand over", tally.unrepresentable);
    let mut wanted: Vec<&str> = REASONS.iter().map(|reason| reason.as_str()).collect();
    wanted.extend(["Allow", "Deny", "api api0", "api api1", "shadowed", "conditional rule"]);
    wanted.extend(["WS or GRPC rule", "upgrade asked for", "an expired grant about", "ends in a week"]);
    let mut rare: Vec<&str> = wanted.into_iter().filter(|what| tally.share(what) < 2.0).collect();
    rare.extend(["several rules"].into_iter().filter(|what| tally.share(what) < 1.0));
    assert!(rare.is_empty(), "too rare: {rare:?} of {tally:#?}");
}

fn agree(scene: &Scene, tally: &RefCell<Tally>) -> Result<(), TestCaseError> {
    let engine = Engine::new(&scene.policy, &scene.gateway, &scene.tokens, scene.now)
        .map_err(|errors| TestCaseError::fail(format!("the policy does not load: {errors}")))?;
    for (intent, request) in &scene.requests {
        let Some(engine_says) = engine.judge(request, scene.now) else {
            tally.borrow_mut().unrepresentable += 1;
            continue;
        };
        let reference_says = judge(scene.world(), request);
        if engine_says != reference_says {
            let told = format!("{intent:?}: {request:?}engine    {engine_says:?}\nreference {reference_says:?}");
            return Err(TestCaseError::fail(told));
        }
        tally.borrow_mut().record(scene, request, &reference_says);
    }
    Ok(())
}
