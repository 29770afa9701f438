//! §5, the step of the limits: where it stands among the others, what it takes and what it leaves alone. The reference has
//! no such step; how much a meter lets through is held to a bucket beside it.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use leastgate_policy::spec::{DeclaredToken, Located, PolicySpec};
use leastgate_policy::token::{ConcurrentLeft, RateLeft};
use leastgate_policy::{
    Accessor, Authority, CompileContext, Decision, EnvironmentKey, LimitsError, Metered, Pepper, PolicySnapshot,
    Reason, RequestFacts, Source, SpecErrorKind, Timestamp, TokenDigest, TokenLimits, TokenState, Verdict, authorize,
    decide,
};

use crate::engine::Engine;
use crate::generate::NOW;
use crate::notation::Example;

const POLICY: &str = "
api a hosts=a.test
 public GET /public
api lax hosts=lax.test shadow=+86400
scope s
 allow GET /x
 allow GET /denied
 deny GET /denied
scope o
 allow GET /other
boundary
 forbid * /never
token t scopes=s
token expired scopes=s expires=-1
token elsewhere scopes=s source_ip=10.0.0.0/8
token revoked scopes=s state=revoked";

const ONE: TokenLimits = TokenLimits { rate: Some(1), burst: None, concurrent: None };

/// All tokens of the example with these limits.
fn limited(limits: TokenLimits) -> (Example, Engine) {
    let example = Example::new(POLICY);
    let engine = example.engine();
    for token in &example.tokens {
        engine.put_limited(token, limits);
    }
    (example, engine)
}

fn facts(example: &Example, engine: &Engine, line: &str) -> RequestFacts {
    engine.facts(&example.request(line), NOW).expect("a request").expect("facts")
}

/// What a request comes to at a moment of the limits' clock, and what it holds then.
fn at(engine: &Engine, facts: &RequestFacts, elapsed: Duration) -> (Reason, Option<Metered>) {
    match authorize(Request::new(()), facts, engine.snapshot(), Timestamp(NOW), elapsed) {
        Verdict::Allow(mut authorized) => (authorized.permit().reason(), authorized.take_metered()),
        Verdict::Answer(answer, _) => (answer.reason(), None),
        Verdict::Deny(denial, _) => {
            let is_of_limits = matches!(denial.reason, Reason::TokenRateLimited | Reason::TokenConcurrencyLimited);
            assert_eq!(denial.over.as_ref().map(|over| over.reason), is_of_limits.then_some(denial.reason));
            assert!(!is_of_limits || denial.case().identity().is_some(), "the record says whose limit it was");
            (denial.reason, None)
        }
    }
}

fn first(engine: &Engine, example: &Example, line: &str) -> Reason {
    at(engine, &facts(example, engine, line), Duration::ZERO).0
}

#[test]
fn an_attempt_counts_from_the_step_of_the_limits_on() {
    for (line, reason) in [
        ("GET /x | as t | host: a.test", Reason::ScopeGranted),
        ("GET /never | as t | host: a.test", Reason::BoundaryDeny),
        ("GET /denied | as t | host: a.test", Reason::ExplicitDeny),
        ("GET /other | as t | host: a.test", Reason::InsufficientScope),
        ("GET /nowhere | as t | host: a.test", Reason::NoMatchingScope),
        ("GET /nowhere | as t | host: lax.test", Reason::NoMatchingScope),
    ] {
        let (example, engine) = limited(ONE);
        assert_eq!(first(&engine, &example, line), reason, "{line}");
        assert_eq!(first(&engine, &example, line), Reason::TokenRateLimited, "{line}: and so in every mode");
        assert_eq!(first(&engine, &example, "GET /never | as t | host: a.test"), Reason::TokenRateLimited);
    }
}

#[test]
fn what_fails_before_it_takes_nothing() {
    let (example, engine) = limited(ONE);
    for (line, reason) in [
        ("GET /x?t=$t | as t | host: a.test", Reason::CredentialMisplaced),
        ("GET /public | as t | host: a.test", Reason::PublicRule),
        ("GET /public | as t | host: a.test", Reason::PublicRule),
        ("GET /x | as t | host: b.test", Reason::HostUnknown),
    ] {
        assert_eq!(first(&engine, &example, line), reason, "{line}");
    }
    assert_eq!(first(&engine, &example, "GET /x | as t | host: a.test"), Reason::ScopeGranted);
    for (name, reason) in
        [("revoked", Reason::TokenRevoked), ("elsewhere", Reason::SourceNotAllowed), ("expired", Reason::TokenExpired)]
    {
        let line = format!("GET /x | as {name} | host: a.test");
        assert_eq!([first(&engine, &example, &line), first(&engine, &example, &line)], [reason; 2]);
    }
}

#[test]
fn deciding_takes_nothing_and_knows_no_limit() {
    let (example, engine) = limited(TokenLimits { concurrent: Some(1), ..ONE });
    let facts = facts(&example, &engine, "GET /x | as t | host: a.test");
    let allows = || matches!(decide(&facts, engine.snapshot(), Timestamp(NOW)), Decision::Allow(_));
    assert!((0..10).all(|_| allows()));
    let (reason, held) = at(&engine, &facts, Duration::ZERO);
    assert!(reason == Reason::ScopeGranted && held.is_some());
    assert!(allows(), "a request under way is decided again, not counted again");
}

#[test]
fn what_is_not_allowed_holds_no_place() {
    let (example, engine) = limited(TokenLimits { concurrent: Some(1), ..TokenLimits::default() });
    for line in ["GET /never", "GET /denied", "GET /other", "GET /nowhere"] {
        first(&engine, &example, &format!("{line} | as t | host: a.test"));
    }
    let facts = facts(&example, &engine, "GET /x | as t | host: a.test");
    let (reason, held) = at(&engine, &facts, Duration::ZERO);
    assert_eq!(reason, Reason::ScopeGranted);
    assert_eq!(at(&engine, &facts, Duration::ZERO).0, Reason::TokenConcurrencyLimited);
    // Passed on by a shadow, it is under way like any other.
    assert_eq!(first(&engine, &example, "GET /nowhere | as t | host: lax.test"), Reason::TokenConcurrencyLimited);
    drop(held);
    assert_eq!(at(&engine, &facts, Duration::ZERO).0, Reason::ScopeGranted);
}

#[test]
fn a_token_without_limits_holds_nothing() {
    let (example, engine) = limited(TokenLimits::default());
    let facts = facts(&example, &engine, "GET /x | as t | host: a.test");
    assert!(at(&engine, &facts, Duration::ZERO).1.is_none());
}

#[test]
fn an_edit_of_a_token_neither_fills_its_bucket_nor_forgets_what_is_under_way() {
    let limits = TokenLimits { rate: Some(1), burst: Some(3), concurrent: Some(2) };
    let (example, engine) = limited(limits);
    let facts = facts(&example, &engine, "GET /x | as t | host: a.test");
    let (_, held) = at(&engine, &facts, Duration::ZERO);
    let mut edited = example.tokens[0].clone();
    edited.source_ip = vec!["0.0.0.0/0".to_owned()];
    engine.put_limited(&edited, TokenLimits { concurrent: Some(1), ..limits });
    assert_eq!(at(&engine, &facts, Duration::ZERO).0, Reason::TokenConcurrencyLimited, "one is under way");
    drop(held);
    assert_eq!(at(&engine, &facts, Duration::ZERO).0, Reason::ScopeGranted);
    assert_eq!(at(&engine, &facts, Duration::ZERO).0, Reason::TokenRateLimited, "three were used");
    engine.put_limited(&edited, TokenLimits { burst: Some(4), ..limits });
    let (reason, held) = at(&engine, &facts, Duration::ZERO);
    assert_eq!(reason, Reason::ScopeGranted, "one more in the burst is one more");
    let left = held.expect("it is metered").allowance;
    assert_eq!(left.rate, Some(RateLeft { rate: 1, left: 0, reset: 1 }));
    assert_eq!(left.concurrent, Some(ConcurrentLeft { quota: 2, left: 1 }));
}

fn declared(revision: &str, limits: TokenLimits) -> Result<PolicySnapshot, Vec<SpecErrorKind>> {
    let text = |value: &str| Located::from(value.to_owned());
    let token = DeclaredToken {
        accessor: text(&Accessor::from_random(1).to_string()),
        name: text("bot"),
        owner: None,
        digest: text(&TokenDigest::from_bytes([1; 32]).to_string()),
        env: text("prod"),
        roles: vec![],
        grants: vec![],
        restrictions: Default::default(),
        limits: limits.into(),
        created: Timestamp(0).into(),
        expires: None,
        state: TokenState::Active,
    };
    let example = Example::new("api a");
    let spec = PolicySpec { environments: vec![text("prod")], tokens: vec![token], ..example.policy };
    let context = CompileContext {
        environment: "prod",
        revision,
        now: Timestamp(NOW),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        upstreams: None,
        well_known: false,
    };
    let kinds = |errors: Vec<leastgate_policy::SpecError>| errors.into_iter().map(|error| error.kind).collect();
    PolicySnapshot::compile(&spec, &context).map_err(kinds)
}

#[test]
fn a_reload_does_not_fill_the_buckets_of_declared_tokens() {
    let authority = Arc::new(Authority::new(EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "prod")));
    let reason = |snapshot: &Arc<PolicySnapshot>| {
        let (parts, ()) = Request::get("/x").header("host", "a.test").body(()).unwrap().into_parts();
        let source = Source { peer: "192.0.2.1".parse().unwrap(), port: 1 };
        let facts = RequestFacts::parse(&parts, &source, snapshot, authority.key(), Timestamp(NOW)).unwrap();
        let facts = facts.with_digest(TokenDigest::from_bytes([1; 32]));
        match authorize(Request::new(()), &facts, snapshot, Timestamp(NOW), Duration::ZERO) {
            Verdict::Deny(denial, _) => denial.reason,
            Verdict::Allow(_) | Verdict::Answer(..) => Reason::ScopeGranted,
        }
    };
    let put = |revision, limits| authority.replace_with_declared(declared(revision, limits).unwrap()).unwrap();
    let first = put("a", TokenLimits { burst: Some(2), ..ONE });
    assert_eq!(reason(&first), Reason::NoMatchingScope);
    let second = put("b", TokenLimits { burst: Some(2), ..ONE });
    assert_eq!([reason(&second), reason(&second)], [Reason::NoMatchingScope, Reason::TokenRateLimited]);
    assert_eq!(reason(&first), Reason::TokenRateLimited, "both policies look at the same bucket");
}

#[test]
fn declared_limits_that_can_t_be_are_an_error() {
    let errors = declared("a", TokenLimits { burst: Some(2), ..TokenLimits::default() }).unwrap_err();
    assert_eq!(errors, [SpecErrorKind::Limits { token: "bot".into(), error: LimitsError::BurstWithoutRate }]);
    assert!(declared("a", TokenLimits { rate: Some(0), ..TokenLimits::default() }).is_err());
}
