//! From facts to decision nothing is allocated: counted by an allocator, for allows and for denials.
//!
//! A binary of its own, because it replaces the global allocator.

#![allow(clippy::unwrap_used, reason = "a fixture that is wrong should end the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use http::request::Parts;
use leastgate_policy::spec::{ApiSpec, Located, RoleSpec, RuleSpec, ScopeSpec, WhenSpec};
use leastgate_policy::{
    Accessor, Authority, CompileContext, Decision, EnvironmentKey, Pepper, PolicySnapshot, PolicySpec, Reason,
    RequestFacts, Restrictions, Source, Timestamp, TokenEntry, TokenKind, TokenLimits, TokenState, Verdict, authorize,
    decide, token,
};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn text(value: &str) -> Located<String> {
    Located::from(value.to_owned())
}

fn policy() -> PolicySpec {
    let rule = |value: &str| RuleSpec { text: text(value), when: None };
    let conditional = RuleSpec {
        text: text("POST /v1/orders/{id}/refunds"),
        when: Some(WhenSpec {
            header: vec![(text("x-ticket"), vec![text("INC-*")])],
            query: vec![(text("currency"), vec![text("eur")])],
            source_ip: vec![text("10.0.0.0/8")],
        }),
    };
    let scope = |name: &str, allow: Vec<RuleSpec>, deny: Vec<RuleSpec>| ScopeSpec {
        name: text(name),
        api: text("orders"),
        allow,
        deny,
        ..ScopeSpec::default()
    };
    PolicySpec {
        environments: vec![text("prod")],
        apis: vec![ApiSpec { name: text("orders"), base: text("/"), upstream: text("up"), ..ApiSpec::default() }],
        scopes: vec![
            scope(
                "read",
                vec![rule("GET /v1/orders/**")],
                vec![rule("GET /v1/Secrets/**"), rule("GET /v1/orders/*/cards")],
            ),
            scope("write", vec![rule("PATCH /v1/orders/{id:uuid}"), rule("PATCH /v1/orders/{id:hex}")], vec![]),
            scope("refund", vec![conditional], vec![]),
        ],
        roles: vec![RoleSpec {
            name: text("reader"),
            scopes: vec![text("read"), text("refund")],
            ..RoleSpec::default()
        }],
        ..PolicySpec::default()
    }
}

struct Bench {
    authority: Arc<Authority>,
    snapshot: Arc<PolicySnapshot>,
    token: String,
    /// One that is still kept under the previous key.
    straggler: String,
}

fn bench() -> Bench {
    bench_limited(TokenLimits::default())
}

fn bench_limited(limits: TokenLimits) -> Bench {
    let of = |pepper| EnvironmentKey::derive(&Pepper::new(vec![pepper; 32]).unwrap(), "prod");
    let (key, former) = (of(7).replacing(&of(6)), of(6));
    let context = CompileContext {
        environment: "prod",
        revision: "r1",
        now: NOW,
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: true,
        upstreams: None,
    };
    let snapshot = PolicySnapshot::compile(&policy(), &context).unwrap();
    let secret = token::mint(TokenKind::Token, "prod", Accessor::from_random(1), &[9; 32]);
    let entry = TokenEntry {
        digest: key.digest(secret.expose().as_bytes()),
        accessor: Accessor::from_random(1),
        name: "a-name-longer-than-twenty-three-bytes".into(),
        owner: None,
        roles: vec!["reader".into()],
        grants: vec![],
        restrictions: Restrictions { source_ip: vec!["10.0.0.0/8".parse().unwrap()], not_before: None },
        expires: Some(NOW.plus(60)),
        state: TokenState::Active,
        limits,
        is_canary: false,
        parent: None,
    };
    let straggler = token::mint(TokenKind::Token, "prod", Accessor::from_random(3), &[7; 32]);
    let digest = former.digest(straggler.expose().as_bytes());
    let authority = Arc::new(Authority::new(key));
    authority.upsert(TokenEntry { digest, accessor: Accessor::from_random(3), ..entry.clone() }).unwrap();
    authority.upsert(entry).unwrap();
    let snapshot = authority.replace(snapshot);
    let [token, straggler] = [secret, straggler].map(|secret| secret.expose().to_owned());
    Bench { authority, snapshot, token, straggler }
}

fn facts(bench: &Bench, method: &str, target: &str, token: &str) -> RequestFacts {
    let request = http::Request::builder()
        .method(method)
        .uri(target)
        .header("host", "orders.internal")
        .header("x-ticket", "INC-42")
        .header("authorization", format!("Bearer {token}"));
    let (parts, ()): (Parts, ()) = request.body(()).unwrap().into_parts();
    let source = Source { peer: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), port: 1 };
    RequestFacts::parse(&parts, &source, &bench.snapshot, bench.authority.key(), NOW).unwrap()
}

fn reason(decision: &Decision) -> Reason {
    match decision {
        Decision::Allow(permit) => permit.reason(),
        Decision::Answer(answer) => answer.reason(),
        Decision::Deny(denial) => denial.reason,
    }
}

#[test]
fn deciding_allocates_nothing() {
    let bench = bench();
    let unknown = token::mint(TokenKind::Token, "prod", Accessor::from_random(2), &[8; 32]);
    let cases = [
        ("GET", "/v1/orders/7b0e/items", bench.token.as_str(), Reason::ScopeGranted),
        ("GET", "/v1/orders/7b0e/items", bench.straggler.as_str(), Reason::ScopeGranted),
        ("POST", "/v1/orders/7b0e/refunds?a=1&currency=e%75r", bench.token.as_str(), Reason::ScopeGranted),
        ("POST", "/v1/orders/7b0e/refunds?currency=usd", bench.token.as_str(), Reason::ConditionFailed),
        ("GET", "/v1/ORDERS/x/Cards/", bench.token.as_str(), Reason::ExplicitDeny),
        ("PATCH", "/v1/orders/7b0e", bench.token.as_str(), Reason::InsufficientScope),
        ("PUT", "/nowhere", bench.token.as_str(), Reason::NoMatchingScope),
        ("GET", "/.well-known/leastgate", bench.token.as_str(), Reason::OwnToken),
        ("GET", "/v1/orders", unknown.expose(), Reason::TokenUnknown),
        ("GET", "/v1/orders", "nonsense", Reason::CredentialMalformed),
    ];
    for (method, target, token, expected) in cases {
        let facts = facts(&bench, method, target, token);
        let decide_once = || decide(&facts, &bench.snapshot, NOW);
        // The first decision under a snapshot works the token's entitlement out and keeps it.
        assert_eq!(reason(&decide_once()), expected, "{method} {target}");
        let allocations = measure(|| drop(decide_once()));
        assert_eq!(allocations.count_total, 0, "{method} {target}: {allocations:?}");
    }
}

#[test]
fn a_token_with_limits_costs_no_allocation_either_whatever_comes_of_it() {
    let bench = bench_limited(TokenLimits { rate: Some(3), burst: None, concurrent: Some(1) });
    let facts = facts(&bench, "GET", "/v1/orders", &bench.token);
    let reasons: Vec<Reason> = [0, 0, 0, 0, 0].map(|second| judge(&bench, &facts, second)).into();
    let (granted, rate, places) = (Reason::ScopeGranted, Reason::TokenRateLimited, Reason::TokenConcurrencyLimited);
    assert_eq!(reasons, [granted, granted, granted, rate, rate], "each gave its place back");
    let request = || http::Request::new(());
    let Verdict::Allow(_held) = authorize(request(), &facts, &bench.snapshot, NOW, Duration::from_secs(60)) else {
        panic!("the bucket is full again");
    };
    assert_eq!(judge(&bench, &facts, 60), places);
}

/// Counted after the first decision, which works the token's entitlement out.
fn judge(bench: &Bench, facts: &RequestFacts, second: u64) -> Reason {
    drop(decide(facts, &bench.snapshot, NOW));
    let (mut reason, mut request) = (None, Some(http::Request::new(())));
    let allocations = measure(|| {
        let request = request.take().unwrap_or_default();
        reason = Some(match authorize(request, facts, &bench.snapshot, NOW, Duration::from_secs(second)) {
            Verdict::Allow(authorized) => authorized.permit().reason(),
            Verdict::Answer(..) => Reason::Preflight,
            Verdict::Deny(denial, _) => denial.reason,
        });
    });
    assert_eq!(allocations.count_total, 0, "{reason:?}: {allocations:?}");
    reason.unwrap()
}

#[test]
fn the_counter_counts() {
    assert!(measure(|| drop(vec![1])).count_total > 0);
}
