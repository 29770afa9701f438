//! The policy and the tokens that requests of a fuzzer are judged under, and what those tokens may reach: said a second
//! time, in plain comparisons of segments.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use http::request::Parts;
use leastgate_config::parse_policy;
use leastgate_policy::{
    Accessor, Authority, CompileContext, Decision, Denial, EnvironmentKey, Pepper, PolicySnapshot, PolicySpec,
    RequestFacts, Restrictions, Source, SpecError, Timestamp, TokenEntry, TokenState, decide,
};
use unicode_normalization::UnicodeNormalization;

use crate::reference::credential::checksum;
use crate::reference::decision::{self, judge};
use crate::reference::readers::percent_decoded;
use crate::reference::{GatewayView, Judgement, RawRequest, StateView, TokenView};

/// Of every decision and load.
pub(crate) const NOW: Timestamp = Timestamp(1_795_298_787);
pub(crate) const HOST: &str = "orders.test";
pub(crate) const ENVIRONMENT: &str = "test";

/// A trusted proxy, so that `X-Forwarded-For` counts.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

const POLICY: &str = r#"
version: 1
environments: [test, other]
apis:
  orders:
    hosts: [orders.test]
    upstream: orders
    public: [ "GET /healthz", "GET /public/{name}" ]
    redact: [ patient ]
  mixed:
    hosts: [ mixed.test, "*.mixed.test", "[::1]:8080" ]
    upstream: mixed
    cors: { origins: [ "https://a.test" ] }
  trial: { hosts: [ trial.test ], base: /t, upstream: trial, mode: shadow, until: 2026-12-01 }
scopes:
  orders:read:
    api: orders
    allow: [ GET /v1/orders, "GET /v1/orders/{id:hex}", "GET /v1/orders/{id:hex}/items/**", GET /v1/a.b ]
    deny: [ GET /v1/orders/*/payment-details ]
  files:use:
    api: orders
    allow: [ "* /files/**", "GET /caf%C3%A9/**", "GET /clinic/{patient}" ]
    deny: [ "* /files/private/**" ]
  wide:use:
    api: orders
    allow: [ "* /**" ]
    deny: [ "* /admin/**" ]
  mixed:use:
    api: mixed
    allow:
      - WS /feed
      - GRPC shop.Catalog/Get
      - "GET /{kind:in(a,b%20c)}/{id:int}/"
      - match: POST /pay/{id}
        when:
          header: { x-ticket: "INC-*" }
          query: { currency: [ eur, usd ] }
          source_ip: [ 203.0.113.0/24 ]
    deny:
      - GET /a/13
      - { match: "* /pay/**", when: { header: { x-block: "1" } } }
  trial:use: { api: trial, allow: [ GET /t/x ], deny: [ "* /t/secret/**" ] }
boundaries:
  - deny: [ "* /internal/**" ]
"#;

pub(crate) const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whose token it is. The last two are no tokens of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Reader,
    Files,
    Wide,
    Admin,
    Other,
}

impl Holder {
    pub(crate) const ALL: [Self; 5] = [Self::Reader, Self::Files, Self::Wide, Self::Admin, Self::Other];

    const ISSUED: [Self; 3] = [Self::Reader, Self::Files, Self::Wide];

    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Reader => "READER",
            Self::Files => "FILES",
            Self::Wide => "WIDE",
            Self::Admin => "ADMIN",
            Self::Other => "OTHER",
        }
    }

    fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Reader => &["orders:read", "mixed:use", "trial:use"],
            Self::Files => &["files:use"],
            Self::Wide => &["wide:use"],
            Self::Admin | Self::Other => &[],
        }
    }

    fn view(self) -> TokenView {
        TokenView {
            text: self.token().to_owned(),
            roles: Vec::new(),
            grants: self.scopes().iter().map(|scope| ((*scope).to_owned(), None)).collect(),
            source_ip: Vec::new(),
            not_before: None,
            expires: None,
            state: StateView::Active,
        }
    }

    /// Its whole text.
    pub(crate) fn token(self) -> &'static str {
        static TEXTS: LazyLock<[String; 5]> = LazyLock::new(|| Holder::ALL.map(Holder::compose));
        &TEXTS[self as usize]
    }

    pub(crate) fn accessor(self) -> Accessor {
        Accessor::from_random(1 + self as u64)
    }

    fn compose(self) -> String {
        let (kind, environment) = match self {
            Self::Admin => ("lga", ENVIRONMENT),
            Self::Other => ("lgt", "other"),
            Self::Reader | Self::Files | Self::Wide => ("lgt", ENVIRONMENT),
        };
        // 43 digits can say a little more than 256 bits; beginning with a 7 they say less.
        let digit = |at: usize| char::from(BASE62[(at * 37 + self as usize * 11 + 5) % 62]);
        let secret: String = (1..43).map(digit).collect();
        let body = format!("{kind}_{environment}_{}_7{secret}", self.accessor());
        format!("{body}_{}", checksum(&body))
    }
}

/// The policy in force, and who holds what under it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) snapshot: Arc<PolicySnapshot>,
    policy: PolicySpec,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Compiles a policy as a gateway of this environment would.
pub(crate) fn compile(spec: &PolicySpec, revision: &str) -> Result<PolicySnapshot, Vec<SpecError>> {
    let context = CompileContext {
        environment: ENVIRONMENT,
        revision,
        now: NOW,
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        well_known: true,
        upstreams: None,
    };
    PolicySnapshot::compile(spec, &context)
}

impl World {
    fn new() -> Self {
        let policy = parse_policy(&[("policy.yaml", POLICY)]).unwrap_or_else(|errors| panic!("{errors}"));
        let snapshot = compile(&policy.spec, &policy.revision).unwrap_or_else(|errors| panic!("{errors:?}"));
        let world = Self { policy: policy.spec, ..Self::of(snapshot) };
        for holder in Holder::ISSUED {
            world.issue(holder, holder.scopes());
        }
        world
    }

    /// A policy without tokens.
    pub(crate) fn of(snapshot: PolicySnapshot) -> Self {
        let pepper = Pepper::new(vec![7; 32]).unwrap();
        let authority = Authority::new(EnvironmentKey::derive(&pepper, ENVIRONMENT));
        let snapshot = authority.replace(snapshot);
        Self { authority, snapshot, policy: PolicySpec::default() }
    }

    pub(crate) fn issue(&self, holder: Holder, scopes: &[&str]) {
        let entry = TokenEntry {
            digest: self.authority.key().digest(holder.token().as_bytes()),
            accessor: holder.accessor(),
            name: holder.placeholder().to_ascii_lowercase().into(),
            owner: None,
            roles: Vec::new(),
            grants: scopes.iter().map(|scope| (Arc::from(*scope), None)).collect(),
            restrictions: Restrictions::default(),
            expires: None,
            state: TokenState::Active,
            limits: Default::default(),
            is_canary: false,
            parent: None,
        };
        self.authority.upsert(entry).unwrap();
    }

    pub(crate) fn parse(&self, parts: &Parts) -> Result<RequestFacts, Denial> {
        let source = Source { peer: PEER.into(), port: 4711 };
        RequestFacts::parse(parts, &source, &self.snapshot, self.authority.key(), NOW)
    }

    pub(crate) fn decide(&self, facts: &RequestFacts) -> Decision {
        decide(facts, &self.snapshot, NOW)
    }

    /// What the naive evaluator says of a request.
    pub(crate) fn judge(&self, request: &RawRequest) -> Judgement {
        static GATEWAY: LazyLock<GatewayView> = LazyLock::new(|| GatewayView {
            environment: ENVIRONMENT.to_owned(),
            credential_header: "authorization".to_owned(),
            trusted_proxies: vec!["10.0.0.0/8".to_owned()],
            allow_underscores: Vec::new(),
            well_known: true,
        });
        static TOKENS: LazyLock<[TokenView; 3]> = LazyLock::new(|| Holder::ISSUED.map(Holder::view));
        judge(decision::World { policy: &self.policy, gateway: &GATEWAY, tokens: &*TOKENS, now: NOW.0 }, request)
    }
}

/// A request's head for [`HOST`].
pub(crate) fn request(method: &str, target: &http::uri::PathAndQuery, holder: Option<Holder>) -> Parts {
    let mut request = http::Request::builder().method(method).uri(http::Uri::from(target.clone())).header("host", HOST);
    if let Some(holder) = holder {
        request = request.header("authorization", format!("Bearer {}", holder.token()));
    }
    request.body(()).unwrap().into_parts().0
}

/// Whether a reader who sees these segments sees something that the policy grants this token with this method.
pub(crate) fn grants(holder: Holder, method: &str, segments: &[&[u8]]) -> bool {
    let reads = matches!(method, "GET" | "HEAD");
    let is_hex = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
    !is_denied(Some(holder), segments)
        && match (holder, segments) {
            (Holder::Wide, _) | (Holder::Files, [b"files", ..]) => true,
            (Holder::Files, [b"caf\xC3\xA9", ..] | [b"clinic", _]) => reads,
            (Holder::Reader, [b"v1", b"orders"] | [b"v1", b"a.b"]) => reads,
            (Holder::Reader, [b"v1", b"orders", id] | [b"v1", b"orders", id, b"items", ..]) => reads && is_hex(id),
            _ => false,
        }
}

/// The same without a token.
pub(crate) fn is_public(method: &str, segments: &[&[u8]]) -> bool {
    matches!(method, "GET" | "HEAD") && matches!(segments, [b"healthz"] | [b"public", _]) && !is_denied(None, segments)
}

/// Whether some reader, deaf to case and to forms of characters, sees what is denied.
fn is_denied(holder: Option<Holder>, segments: &[&[u8]]) -> bool {
    let starts = |denied: &[&str]| {
        segments.len() >= denied.len() && denied.iter().zip(segments).all(|(denied, own)| is_spelled(own, denied))
    };
    starts(&["internal"])
        || match holder {
            Some(Holder::Wide) => starts(&["admin"]),
            Some(Holder::Files) => starts(&["files", "private"]),
            Some(Holder::Reader) => {
                segments.len() == 4 && starts(&["v1", "orders"]) && is_spelled(segments[3], "payment-details")
            }
            Some(Holder::Admin | Holder::Other) | None => false,
        }
}

fn is_spelled(own: &[u8], denied: &str) -> bool {
    let Ok(text) = std::str::from_utf8(own) else { return own.eq_ignore_ascii_case(denied.as_bytes()) };
    let folded: String = text.nfkc().collect();
    [text, &folded, &folded.to_lowercase(), &folded.to_uppercase()]
        .iter()
        .any(|spelling| spelling.eq_ignore_ascii_case(denied))
}

/// How many bytes of a secret in a row are too many.
const WINDOW: usize = 12;

/// Panics if a part of a token's secret stands in `output`, be it behind up to three layers of percent-encoding.
pub(crate) fn assert_no_secret(output: &[u8]) {
    static PARTS: LazyLock<HashSet<[u8; WINDOW]>> = LazyLock::new(|| {
        let windows = |holder: Holder| {
            let text = holder.token().as_bytes();
            text[text.len() - 50..].windows(WINDOW).map(|window| window.try_into().unwrap()).collect::<Vec<_>>()
        };
        Holder::ALL.into_iter().flat_map(windows).collect()
    });
    let mut decoded = output.to_vec();
    for layer in 0..=3 {
        let found = decoded.windows(WINDOW).find(|window| PARTS.contains(*window));
        assert!(found.is_none(), "a secret behind {layer} layers in {}", String::from_utf8_lossy(output));
        if !decoded.contains(&b'%') {
            break;
        }
        decoded = percent_decoded(&decoded);
    }
}
