//! Fixtures that the benchmarks share: a policy of so many rules, so many tokens, and a request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::request::Parts;
use leastgate_policy::spec::{ApiSpec, Located, RoleSpec, RuleSpec, ScopeSpec};
use leastgate_policy::{
    Accessor, Authority, CompileContext, Decision, EnvironmentKey, Pepper, PolicySnapshot, PolicySpec, RequestFacts,
    Restrictions, Source, Timestamp, TokenEntry, TokenKind, TokenState, decide, token,
};

/// The moment all decisions are made at.
pub const NOW: Timestamp = Timestamp(1_800_000_000);
/// Rules of one scope.
const RULES_PER_SCOPE: usize = 10;
/// Scopes of one role.
const SCOPES_PER_ROLE: usize = 5;

/// A gateway's decision state, and one of its tokens.
#[derive(Debug)]
pub struct Fixture {
    /// Policy and tokens.
    pub authority: Arc<Authority>,
    /// The policy in force.
    pub snapshot: Arc<PolicySnapshot>,
    rules: usize,
}

fn text(value: String) -> Located<String> {
    Located::from(value)
}

/// So many rules over resources of two levels, in scopes of ten and roles of five scopes.
#[must_use]
pub fn policy(rules: usize) -> PolicySpec {
    let scopes = rules.div_ceil(RULES_PER_SCOPE);
    let rule = |index: usize| {
        let text = match index % 4 {
            0 => format!("GET /v1/resource-{index}/{{id:uuid}}"),
            1 => format!("GET /v1/resource-{index}/{{id:hex}}/items/**"),
            2 => format!("POST /v1/resource-{index}"),
            _ => format!("PATCH,DELETE /v1/resource-{index}/{{id}}"),
        };
        RuleSpec { text: Located::from(text), when: None }
    };
    let scope = |index: usize| ScopeSpec {
        name: text(format!("scope-{index}")),
        api: text("api".into()),
        allow: (index * RULES_PER_SCOPE..((index + 1) * RULES_PER_SCOPE).min(rules)).map(rule).collect(),
        deny: vec![RuleSpec { text: text(format!("GET /v1/resource-{index}/*/secrets")), when: None }],
        ..ScopeSpec::default()
    };
    let role = |index: usize| RoleSpec {
        name: text(format!("role-{index}")),
        scopes: (index..(index + SCOPES_PER_ROLE).min(scopes)).map(|scope| text(format!("scope-{scope}"))).collect(),
        ..RoleSpec::default()
    };
    PolicySpec {
        environments: vec![text("prod".into())],
        apis: vec![ApiSpec {
            name: text("api".into()),
            base: text("/".into()),
            upstream: text("up".into()),
            ..ApiSpec::default()
        }],
        scopes: (0..scopes).map(scope).collect(),
        roles: (0..scopes).map(role).collect(),
        ..PolicySpec::default()
    }
}

impl Fixture {
    /// A policy of `rules` rules and `tokens` tokens.
    ///
    /// # Panics
    /// The fixture itself is wrong.
    #[must_use]
    pub fn new(rules: usize, tokens: u64) -> Self {
        let pepper = Pepper::new(vec![7; 32]).expect("32 bytes are enough");
        let authority = Arc::new(Authority::new(EnvironmentKey::derive(&pepper, "prod")));
        for index in 0..tokens {
            authority.upsert(entry(&authority, index, rules)).expect("256-bit digests do not collide");
        }
        let context = CompileContext {
            environment: "prod",
            revision: "bench",
            now: NOW,
            credential_header: http::header::AUTHORIZATION,
            trusted_proxies: vec![],
            well_known: false,
            upstreams: None,
        };
        let snapshot = PolicySnapshot::compile(&policy(rules), &context).expect("the fixture's policy compiles");
        let snapshot = authority.replace(snapshot);
        Self { authority, snapshot, rules }
    }

    /// The head of a request that token `index` may send.
    ///
    /// # Panics
    /// The fixture itself is wrong.
    #[must_use]
    pub fn request(&self, index: u64) -> Parts {
        let resource = (usize::try_from(index).unwrap_or(0) % self.rules.div_ceil(RULES_PER_SCOPE)) * RULES_PER_SCOPE;
        let resource = resource - resource % 4;
        let uri = format!(
            "/v1/resource-{}/123e4567-e89b-12d3-a456-426614174000?page=2",
            resource.next_multiple_of(20) % self.rules
        );
        let request = http::Request::get(uri)
            .header("host", "api.internal")
            .header("user-agent", "bench/1.0 (x86_64)")
            .header("accept", "application/json")
            .header("accept-encoding", "gzip, deflate, br")
            .header("x-request-id", "0190c3d4-7a3b-7c1d-9f20-6d1e5a1c2b3f")
            .header("authorization", format!("Bearer {}", token_text(index).expose()));
        request.body(()).expect("the fixture's request is one").into_parts().0
    }

    /// Bytes to facts.
    ///
    /// # Panics
    /// The fixture's request is refused.
    #[must_use]
    pub fn facts(&self, parts: &Parts) -> RequestFacts {
        let source = Source { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 40_000 };
        RequestFacts::parse(parts, &source, &self.snapshot, self.authority.key(), NOW)
            .expect("the fixture's request is well-formed")
    }

    /// Facts to decision: look-up and match.
    #[must_use]
    pub fn decide(&self, facts: &RequestFacts) -> Decision {
        decide(facts, &self.snapshot, NOW)
    }

    /// The hash of a presented token.
    #[must_use]
    pub fn hash(&self, text: &str) -> leastgate_policy::TokenDigest {
        self.authority.key().digest(text.as_bytes())
    }
}

/// The text of token `index`.
#[must_use]
pub fn token_text(index: u64) -> leastgate_policy::Secret {
    let mut secret = [3; 32];
    secret[..8].copy_from_slice(&index.to_le_bytes());
    token::mint(TokenKind::Token, "prod", Accessor::from_random(index), &secret)
}

/// What the table gets of token `index`.
#[must_use]
pub fn entry(authority: &Authority, index: u64, rules: usize) -> TokenEntry {
    let scopes = rules.div_ceil(RULES_PER_SCOPE).max(1);
    TokenEntry {
        digest: authority.key().digest(token_text(index).expose().as_bytes()),
        accessor: Accessor::from_random(index),
        name: format!("service-{index}").into(),
        owner: Some(format!("team-{}", index % 100).into()),
        roles: (0..scopes).filter(|role| role % 20 == 0).take(3).map(|role| format!("role-{role}").into()).collect(),
        grants: vec![],
        restrictions: Restrictions::default(),
        expires: Some(NOW.plus(86_400)),
        state: TokenState::Active,
        limits: Default::default(),
        is_canary: false,
        parent: None,
    }
}
