//! The engine behind the same words as the reference: compile, fill the table, parse, decide.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use leastgate_policy::spec::PolicySpec;
use leastgate_policy::{
    Authority, Basis, Case, CompileContext, Decision, Denial, EnvironmentKey, Pepper, PolicySnapshot, RequestFacts,
    Restrictions, Source, SpecError, Timestamp, TokenEntry, TokenLimits, TokenState, UpstreamFacts, decide,
};

use crate::reference::{Effect, GatewayView, Judgement, RawRequest, StateView, TokenView};

/// One policy in force, with its tokens.
pub(crate) struct Engine {
    authority: Arc<Authority>,
    snapshot: Arc<PolicySnapshot>,
}

pub(crate) fn compile(policy: &PolicySpec, gateway: &GatewayView, now: u64) -> Result<PolicySnapshot, Vec<SpecError>> {
    let lax = |name: &str| gateway.allow_underscores.iter().any(|lax| lax == name);
    let names: Vec<&str> = policy.apis.iter().map(|api| api.upstream.value.as_str()).collect();
    let upstreams: Vec<UpstreamFacts<'_>> =
        names.iter().map(|name| UpstreamFacts { name, allow_underscores: lax(name) }).collect();
    let context = CompileContext {
        environment: &gateway.environment,
        revision: "r1",
        now: Timestamp(now),
        credential_header: gateway.credential_header.parse().expect("a header name"),
        trusted_proxies: gateway.trusted_proxies.iter().map(|net| net.parse().expect("a network")).collect(),
        well_known: gateway.well_known,
        upstreams: Some(&upstreams),
    };
    PolicySnapshot::compile(policy, &context)
}

impl Engine {
    pub(crate) fn new(
        policy: &PolicySpec,
        gateway: &GatewayView,
        tokens: &[TokenView],
        now: u64,
    ) -> Result<Self, String> {
        let snapshot = compile(policy, gateway, now)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let pepper = Pepper::new(vec![7; 32]).expect("a pepper of 32 bytes");
        let key = EnvironmentKey::derive(&pepper, &gateway.environment);
        let authority = Arc::new(Authority::new(key));
        let snapshot = authority.replace(snapshot);
        let engine = Self { authority, snapshot };
        for token in tokens {
            engine.put(token);
        }
        Ok(engine)
    }

    /// Puts a token in, or in place of the one with the same text.
    pub(crate) fn put(&self, token: &TokenView) {
        self.put_limited(token, TokenLimits::default());
    }

    /// The same with limits, which the reference knows nothing of: `decide`, which it is compared with, leaves them out.
    pub(crate) fn put_limited(&self, token: &TokenView, limits: TokenLimits) {
        let entry = TokenEntry {
            digest: self.authority.key().digest(token.text.as_bytes()),
            accessor: accessor(&token.text).parse().expect("ten base62 digits"),
            name: "subject".into(),
            owner: None,
            roles: token.roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            grants: token.grants.iter().map(|(scope, end)| (Arc::from(scope.as_str()), end.map(Timestamp))).collect(),
            restrictions: Restrictions {
                source_ip: token.source_ip.iter().map(|net| net.parse().expect("a network")).collect(),
                not_before: token.not_before.map(Timestamp),
            },
            expires: token.expires.map(Timestamp),
            state: match token.state {
                StateView::Active => TokenState::Active,
                StateView::Rotating => TokenState::Rotating,
                StateView::Disabled => TokenState::Disabled,
                StateView::Revoked => TokenState::Revoked,
            },
            limits,
            is_canary: false,
            parent: None,
        };
        self.authority.upsert(entry).expect("no two digests begin alike");
    }

    /// The facts of a request; `None` for one that no HTTP parser would have handed over.
    pub(crate) fn facts(&self, request: &RawRequest, now: u64) -> Option<Result<RequestFacts, Denial>> {
        let parts = parts(request)?;
        let source = Source { peer: request.peer, port: 4711 };
        Some(RequestFacts::parse(&parts, &source, &self.snapshot, self.authority.key(), Timestamp(now)))
    }

    /// The policy in force.
    pub(crate) fn snapshot(&self) -> &Arc<PolicySnapshot> {
        &self.snapshot
    }

    /// The engine's judgement; `None` for a request that no HTTP parser would have handed over.
    pub(crate) fn judge(&self, request: &RawRequest, now: u64) -> Option<Judgement> {
        Some(match self.facts(request, now)? {
            Err(denial) => refused(&denial),
            Ok(facts) => match decide(&facts, &self.snapshot, Timestamp(now)) {
                Decision::Deny(denial) => refused(&denial),
                Decision::Answer(answer) => {
                    Judgement { effect: Effect::Answer, ..told(answer.reason(), answer.case()) }
                }
                Decision::Allow(permit) => {
                    let allowed = |reason| Judgement { effect: Effect::Allow, ..told(reason, permit.case()) };
                    match permit.basis() {
                        Basis::Granted => allowed(leastgate_policy::Reason::ScopeGranted),
                        Basis::Public => allowed(leastgate_policy::Reason::PublicRule),
                        Basis::Shadowed(denial) => {
                            Judgement { effect: Effect::Allow, shadowed: Some(denial.reason), ..refused(denial) }
                        }
                    }
                }
            },
        })
    }
}

fn accessor(text: &str) -> &str {
    text.split('_').nth(2).unwrap_or("")
}

fn parts(request: &RawRequest) -> Option<Parts> {
    let mut built = Request::new(());
    *built.method_mut() = Method::from_bytes(request.method.as_bytes()).ok()?;
    *built.uri_mut() = Uri::try_from(request.target.as_bytes()).ok()?;
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        built.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(built.into_parts().0)
}

fn refused(denial: &Denial) -> Judgement {
    Judgement {
        expired_at: denial.expired_at.map(|end| end.0),
        required_any_of: denial.required_any_of().into_iter().map(str::to_owned).collect(),
        ..told(denial.reason, denial.case())
    }
}

fn told(reason: leastgate_policy::Reason, case: &Case) -> Judgement {
    let mut rules: Vec<String> = case.rules().map(|rule| without_digest(&rule.id)).collect();
    rules.sort();
    Judgement {
        effect: Effect::Deny,
        reason,
        api: case.api().map(|api| api.name.to_string()),
        rules,
        required_any_of: Vec::new(),
        shadowed: None,
        expired_at: None,
        ending: case.ending().map(|end| end.0),
    }
}

/// A conditional rule's id ends in `#` and the digest of its condition; the reference knows no BLAKE3.
fn without_digest(id: &str) -> String {
    match id.rsplit_once('#') {
        Some((head, digest)) if digest.len() == 8 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{head}#")
        }
        _ => id.to_owned(),
    }
}
