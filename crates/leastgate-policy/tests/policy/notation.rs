//! A short notation for policies, tokens and requests, so that the tables of examples read like the specification.
//!
//! A policy is lines of `api`, `scope`, `role`, `boundary` and `token`, each with its rules (`public`, `allow`, `deny`,
//! `forbid`) below it. A request is `METHOD target` and then, after ` | ` each: `as <token>`, `from <ip>`, or `name: value`. `$name` is the
//! text of a token.

use std::time::Duration;

use leastgate_policy::Timestamp;
use leastgate_policy::spec::{
    ApiSpec, BoundarySpec, ConditionSpec, CorsSpec, Located, ModeSpec, PolicySpec, RoleSpec, RuleSpec, ScopeSpec,
    WhenSpec,
};

use crate::engine::Engine;
use crate::generate::{NOW, token_text};
use crate::reference::decision::World;
use crate::reference::{GatewayView, RawRequest, StateView, TokenView};

/// A policy with its tokens, in force at `NOW` in `prod`.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub(crate) policy: PolicySpec,
    pub(crate) gateway: GatewayView,
    names: Vec<String>,
    pub(crate) tokens: Vec<TokenView>,
}

impl Example {
    pub(crate) fn new(text: &str) -> Self {
        let mut example = Self {
            policy: PolicySpec { environments: list("prod,staging"), ..PolicySpec::default() },
            gateway: GatewayView {
                environment: "prod".to_owned(),
                credential_header: "authorization".to_owned(),
                trusted_proxies: vec!["192.0.2.0/24".to_owned()],
                allow_underscores: vec!["lax".to_owned()],
                well_known: false,
            },
            names: Vec::new(),
            tokens: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            example.line(line);
        }
        example
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::new(&self.policy, &self.gateway, &self.tokens, NOW).expect("the policy of an example loads")
    }

    pub(crate) fn world(&self) -> World<'_> {
        World { policy: &self.policy, gateway: &self.gateway, tokens: &self.tokens, now: NOW }
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let (name, settings) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "gateway" => self.gateway(rest),
            "api" => self.policy.apis.push(api(name, settings)),
            "public" => self.last_api().public.push(rest.to_owned().into()),
            "scope" => self.policy.scopes.push(scope(name, settings)),
            "role" => self.policy.roles.push(role(name, settings)),
            "boundary" => self.policy.boundaries.push(boundary(rest)),
            "allow" => self.policy.scopes.last_mut().expect("a scope before its rules").allow.push(rule(rest)),
            "forbid" => self.policy.boundaries.last_mut().expect("a boundary before its rules").deny.push(rule(rest)),
            "deny" => self.policy.scopes.last_mut().expect("a scope before its rules").deny.push(rule(rest)),
            "token" => self.token(name, settings),
            other => assert_eq!(other, "", "a word of the notation"),
        }
    }

    fn last_api(&mut self) -> &mut ApiSpec {
        self.policy.apis.last_mut().expect("an api before its rules")
    }

    fn gateway(&mut self, settings: &str) {
        for (key, value) in pairs(settings) {
            match key {
                "environment" => self.gateway.environment = value.to_owned(),
                "credential" => self.gateway.credential_header = value.to_owned(),
                "well_known" => self.gateway.well_known = value == "true",
                other => assert_eq!(other, "", "a setting of a gateway"),
            }
        }
    }

    fn token(&mut self, name: &str, settings: &str) {
        let mut token = TokenView {
            text: token_text("lgt", "prod", self.tokens.len()),
            roles: Vec::new(),
            grants: Vec::new(),
            source_ip: Vec::new(),
            not_before: None,
            expires: None,
            state: StateView::Active,
        };
        for (key, value) in pairs(settings) {
            match key {
                "roles" => token.roles = words(value),
                "scopes" => token.grants.extend(words(value).into_iter().map(|scope| grant(&scope))),
                "source_ip" => token.source_ip = words(value),
                "not_before" => token.not_before = Some(moment(value)),
                "expires" => token.expires = Some(moment(value)),
                "state" => token.state = state(value),
                other => assert_eq!(other, "", "a setting of a token"),
            }
        }
        self.names.push(name.to_owned());
        self.tokens.push(token);
    }

    /// The request that a line describes; `host: a.test` and a peer are there unless it says otherwise.
    pub(crate) fn request(&self, line: &str) -> RawRequest {
        let mut parts = line.split(" | ");
        let (method, target) = parts.next().and_then(|first| first.split_once(' ')).expect("a method and a target");
        let mut request = RawRequest {
            method: method.to_owned(),
            target: self.with_tokens(target),
            headers: Vec::new(),
            peer: std::net::Ipv4Addr::new(198, 51, 100, 7).into(),
        };
        let mut default_host = true;
        for part in parts {
            if let Some(name) = part.strip_prefix("as ") {
                let value = format!("Bearer {}", self.text_of(name));
                request.headers.push(("authorization".to_owned(), value.into_bytes()));
            } else if let Some(address) = part.strip_prefix("from ") {
                request.peer = address.parse().expect("an address");
            } else if part == "no host" {
                default_host = false;
            } else {
                let (name, value) = part.split_once(':').expect("a header");
                default_host &= !name.eq_ignore_ascii_case("host");
                request.headers.push((name.to_owned(), latin1(&self.with_tokens(value.trim_start()))));
            }
        }
        if default_host {
            request.headers.insert(0, ("host".to_owned(), b"a.test".to_vec()));
        }
        request
    }

    fn text_of(&self, name: &str) -> String {
        let known = self.names.iter().position(|own| own == name).map(|at| self.tokens[at].text.clone());
        match name {
            "nobody" => token_text("lgt", "prod", 999),
            "stranger" => token_text("lgt", "dev", 999),
            "admin" => token_text("lga", "prod", 999),
            _ => known.expect("a token of the example"),
        }
    }

    fn with_tokens(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for name in self.names.iter().map(String::as_str).chain(["nobody", "stranger", "admin"]) {
            out = out.replace(&format!("${name}"), &self.text_of(name));
        }
        out
    }
}

/// Characters as the bytes of the same number, so that a line can hold any header byte.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c as u32).expect("a character below U+0100")).collect()
}

fn pairs(settings: &str) -> Vec<(&str, &str)> {
    settings.split_whitespace().map(|pair| pair.split_once('=').expect("key=value")).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn list(text: &str) -> Vec<Located<String>> {
    words(text).into_iter().map(Located::from).collect()
}

/// Seconds from now, as `+5` or `-5`.
fn moment(text: &str) -> u64 {
    NOW.checked_add_signed(text.parse().expect("seconds from now")).expect("a moment")
}

/// `scope` or `scope@+5`.
fn grant(text: &str) -> (String, Option<u64>) {
    match text.split_once('@') {
        Some((scope, end)) => (scope.to_owned(), Some(moment(end))),
        None => (text.to_owned(), None),
    }
}

fn state(text: &str) -> StateView {
    match text {
        "rotating" => StateView::Rotating,
        "disabled" => StateView::Disabled,
        "revoked" => StateView::Revoked,
        _ => StateView::Active,
    }
}

fn api(name: &str, settings: &str) -> ApiSpec {
    let mut api = ApiSpec {
        name: name.to_owned().into(),
        base: "/".to_owned().into(),
        upstream: "plain".to_owned().into(),
        ..ApiSpec::default()
    };
    for (key, value) in pairs(settings) {
        match key {
            "hosts" => api.hosts = list(value),
            "base" => api.base = value.to_owned().into(),
            "upstream" => api.upstream = value.to_owned().into(),
            "shadow" => api.mode = ModeSpec::Shadow { until: Timestamp(moment(value)).into() },
            "cors" => {
                let cors = CorsSpec { origins: words(value), ..CorsSpec::default() };
                api.cors = Some(cors.into());
            }
            "credentials" => {
                if let Some(cors) = &mut api.cors {
                    cors.value.credentials = value == "true";
                }
            }
            other => assert_eq!(other, "", "a setting of an api"),
        }
    }
    api
}

fn scope(name: &str, settings: &str) -> ScopeSpec {
    let mut scope = ScopeSpec { name: name.to_owned().into(), api: "a".to_owned().into(), ..ScopeSpec::default() };
    for (key, value) in pairs(settings) {
        match key {
            "api" => scope.api = value.to_owned().into(),
            "max_ttl" => scope.max_ttl = Some(Duration::from_secs(value.parse().expect("seconds"))),
            other => assert_eq!(other, "", "a setting of a scope"),
        }
    }
    scope
}

fn role(name: &str, settings: &str) -> RoleSpec {
    let mut role = RoleSpec { name: name.to_owned().into(), ..RoleSpec::default() };
    for (key, value) in pairs(settings) {
        match key {
            "scopes" => role.scopes = list(value),
            "inherits" => role.inherits = list(value),
            "environments" => role.environments = Some(list(value)),
            other => assert_eq!(other, "", "a setting of a role"),
        }
    }
    role
}

fn boundary(settings: &str) -> BoundarySpec {
    let mut boundary = BoundarySpec::default();
    for (key, value) in pairs(settings) {
        match key {
            "environments" => boundary.environments = Some(list(value)),
            "apis" => boundary.apis = Some(list(value)),
            other => assert_eq!(other, "", "a setting of a boundary"),
        }
    }
    boundary
}

/// `GET /x` or `GET /x when header x-a=b|c & query q=v & source_ip=10.0.0.0/8`.
fn rule(text: &str) -> RuleSpec {
    let Some((text, conditions)) = text.split_once(" when ") else {
        return RuleSpec { text: text.to_owned().into(), when: None };
    };
    let mut when = WhenSpec::default();
    for condition in conditions.split(" & ") {
        if let Some(header) = condition.strip_prefix("header ") {
            when.header.push(named(header));
        } else if let Some(query) = condition.strip_prefix("query ") {
            when.query.push(named(query));
        } else {
            when.source_ip = named(condition).1;
        }
    }
    RuleSpec { text: text.to_owned().into(), when: Some(when) }
}

fn named(text: &str) -> ConditionSpec {
    let (name, values) = text.split_once('=').expect("a name and its values");
    (name.to_owned().into(), values.split('|').map(|value| value.to_owned().into()).collect())
}
