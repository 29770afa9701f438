//! §5, the decision: every step in its order, every rule looked at.

use leastgate_policy::Reason;
use leastgate_policy::spec::{ApiSpec, BoundarySpec, ModeSpec, PolicySpec, RoleSpec, RuleSpec, ScopeSpec};

use super::condition::{self, Truth};
use super::credential::{self, Offered};
use super::head::{self, HeadView};
use super::template;
use super::{Effect, GatewayView, Judgement, RawRequest, StateView, TokenView, source};

/// Everything a decision is a function of.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) policy: &'a PolicySpec,
    pub(crate) gateway: &'a GatewayView,
    pub(crate) tokens: &'a [TokenView],
    pub(crate) now: u64,
}

pub(crate) fn judge(world: World<'_>, request: &RawRequest) -> Judgement {
    let head = match head::head(world.policy, request) {
        Ok(head) => head,
        Err(reason) => return Judgement::refused(reason),
    };
    let judgement = judge_head(world, request, &head);
    let api = head.api.map(|api| api.name.value.clone());
    let is_of_no_api = head.asks_about_own_token && world.gateway.well_known;
    Judgement { api: if is_of_no_api { None } else { api }, ..judgement }
}

fn judge_head(world: World<'_>, request: &RawRequest, head: &HeadView<'_>) -> Judgement {
    if head.asks_about_own_token && world.gateway.well_known {
        return judge_own_token(world, request);
    }
    if head::spelling_refused(world.gateway, head.api, request) {
        return Judgement::refused(Reason::RequestMalformed);
    }
    match head.api {
        Some(api) => judge_on(world, Asked { request, head, api }),
        None => Judgement::refused(Reason::HostUnknown),
    }
}

/// What belongs to no api: only the head and the token count.
fn judge_own_token(world: World<'_>, request: &RawRequest) -> Judgement {
    if head::spelling_refused(world.gateway, None, request) {
        return Judgement::refused(Reason::RequestMalformed);
    }
    if credential::misplaced(world.gateway, request) {
        return Judgement::refused(Reason::CredentialMisplaced);
    }
    match token(world, request) {
        Err(judgement) => *judgement,
        Ok(token) => Judgement {
            effect: Effect::Answer,
            ending: ending(token, world.now),
            ..Judgement::refused(Reason::OwnToken)
        },
    }
}

/// When the token ends, in the last seven days before that.
fn ending(token: &TokenView, now: u64) -> Option<u64> {
    token.expires.filter(|end| now + 7 * 24 * 60 * 60 >= *end)
}

/// A request on its api.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a RawRequest,
    head: &'a HeadView<'a>,
    api: &'a ApiSpec,
}

fn judge_on(world: World<'_>, asked: Asked<'_>) -> Judgement {
    if credential::misplaced(world.gateway, asked.request) {
        return Judgement::refused(Reason::CredentialMisplaced);
    }
    if is_preflight(asked) {
        return Judgement { effect: Effect::Answer, ..Judgement::refused(Reason::Preflight) };
    }
    let boundaries = boundaries(world, asked);
    let public = public_rules(asked);
    if !public.is_empty() {
        return match boundaries.is_empty() {
            true => allowed(Reason::PublicRule, public),
            false => denied(Reason::BoundaryDeny, boundaries),
        };
    }
    let token = match token(world, asked.request) {
        Ok(token) => token,
        Err(judgement) => return *judgement,
    };
    let ending = ending(token, world.now);
    if !boundaries.is_empty() {
        return Judgement { ending, ..denied(Reason::BoundaryDeny, boundaries) };
    }
    let verdict = Judgement { ending, ..scopes(world, asked, token) };
    if verdict.effect == Effect::Deny && in_shadow(asked.api, world.now) {
        return Judgement { effect: Effect::Allow, shadowed: Some(verdict.reason), ..verdict };
    }
    verdict
}

fn allowed(reason: Reason, rules: Vec<String>) -> Judgement {
    Judgement { effect: Effect::Allow, ..denied(reason, rules) }
}

fn denied(reason: Reason, mut rules: Vec<String>) -> Judgement {
    rules.sort();
    Judgement { rules, ..Judgement::refused(reason) }
}

fn in_shadow(api: &ApiSpec, now: u64) -> bool {
    match &api.mode {
        ModeSpec::Enforce => false,
        ModeSpec::Shadow { until } => now < until.value.0,
    }
}

fn is_preflight(asked: Asked<'_>) -> bool {
    let request = asked.request;
    asked.api.cors.is_some()
        && request.method == "OPTIONS"
        && !request.values("origin").is_empty()
        && !request.values("access-control-request-method").is_empty()
}

fn public_rules(asked: Asked<'_>) -> Vec<String> {
    let mut ids = Vec::new();
    for text in &asked.api.public {
        if template::allows(&template::rule(&text.value), &asked.head.manner, &asked.head.path) {
            ids.push(format!("{}/public/{}", asked.api.name.value, text.value));
        }
    }
    ids
}

/// The token the request may act for, or why there is none.
fn token<'a>(world: World<'a>, request: &RawRequest) -> Result<&'a TokenView, Box<Judgement>> {
    let refuse = |reason| Err(Box::new(Judgement::refused(reason)));
    let Offered::Text(text) = credential::offered(world.gateway, request) else {
        return refuse(Reason::CredentialMissing);
    };
    let Some(form) = credential::inspect(&text) else {
        return refuse(Reason::CredentialMalformed);
    };
    let Some(token) = world.tokens.iter().find(|token| token.text.as_bytes() == text) else {
        return match form.admin || form.environment == world.gateway.environment {
            true => refuse(Reason::TokenUnknown),
            false => refuse(Reason::EnvironmentMismatch),
        };
    };
    match token.state {
        StateView::Revoked => return refuse(Reason::TokenRevoked),
        StateView::Disabled => return refuse(Reason::TokenDisabled),
        StateView::Active | StateView::Rotating => {}
    }
    if !token.source_ip.is_empty() {
        let inside = source::source_ip(world.gateway, request)
            .is_some_and(|address| token.source_ip.iter().any(|block| source::contains(block, address)));
        if !inside {
            return refuse(Reason::SourceNotAllowed);
        }
    }
    if token.not_before.is_some_and(|start| world.now < start) {
        return refuse(Reason::TokenNotYetValid);
    }
    if let Some(end) = token.expires.filter(|end| world.now >= *end) {
        let reason = match token.state {
            StateView::Rotating => Reason::TokenGraceEnded,
            _ => Reason::TokenExpired,
        };
        return Err(Box::new(Judgement { expired_at: Some(end), ..Judgement::refused(reason) }));
    }
    Ok(token)
}

/// Ids of the boundary rules that deny, conditions true or unknown.
fn boundaries(world: World<'_>, asked: Asked<'_>) -> Vec<String> {
    let mut ids = Vec::new();
    for boundary in &world.policy.boundaries {
        if binds(boundary, &world.gateway.environment, &asked.api.name.value) {
            for rule in &boundary.deny {
                if fires(world, asked, rule) {
                    ids.push(id(&boundary_name(boundary), "deny", rule));
                }
            }
        }
    }
    ids
}

fn binds(boundary: &BoundarySpec, environment: &str, api: &str) -> bool {
    let environment = match &boundary.environments {
        None => true,
        Some(named) => named.iter().any(|e| e.value == environment),
    };
    let api = match &boundary.apis {
        None => true,
        Some(named) => named.iter().any(|a| a.value == api),
    };
    environment && api
}

/// Where it binds, `*` for everywhere.
fn boundary_name(boundary: &BoundarySpec) -> String {
    let mut parts = vec!["boundary".to_owned()];
    for names in [&boundary.environments, &boundary.apis] {
        parts.push(match names {
            None => "*".to_owned(),
            Some(names) => {
                let mut names: Vec<&str> = names.iter().map(|name| name.value.as_str()).collect();
                names.sort_unstable();
                names.join(",")
            }
        });
    }
    parts.join("/")
}

fn fires(world: World<'_>, asked: Asked<'_>, rule: &RuleSpec) -> bool {
    template::denies(&template::rule(&rule.text.value), &asked.head.manner, &asked.head.path)
        && condition::when(rule.when.as_ref(), world.gateway, asked.request) != Truth::False
}

fn id(owner: &str, effect: &str, rule: &RuleSpec) -> String {
    let mark = if rule.when.is_some() { "#" } else { "" };
    format!("{owner}/{effect}/{}{mark}", rule.text.value)
}

/// What the scopes say.
fn scopes(world: World<'_>, asked: Asked<'_>, token: &TokenView) -> Judgement {
    let held = effective(world.policy, &world.gateway.environment, token, world.now);
    let (mut denies, mut allows, mut unmet) = (Vec::new(), Vec::new(), Vec::new());
    let (mut required, mut sufficient) = (Vec::new(), Vec::new());
    for scope in &world.policy.scopes {
        if scope.api.value != asked.api.name.value {
            continue;
        }
        let said = ask(world, asked, scope);
        if held.contains(&scope.name.value) {
            denies.extend(said.denies);
            allows.extend(said.allows);
            unmet.extend(said.unmet);
        } else if said.denies.is_empty() && !said.allows.is_empty() {
            required.push(scope.name.value.clone());
            sufficient.extend(said.allows);
        }
    }
    if !denies.is_empty() {
        return denied(Reason::ExplicitDeny, denies);
    }
    if !allows.is_empty() {
        return allowed(Reason::ScopeGranted, allows);
    }
    if !unmet.is_empty() {
        return denied(Reason::ConditionFailed, unmet);
    }
    if !required.is_empty() {
        required.sort();
        return Judgement { required_any_of: required, ..denied(Reason::InsufficientScope, sufficient) };
    }
    denied(Reason::NoMatchingScope, Vec::new())
}

/// Ids of a scope's rules by what they say about a request.
struct Said {
    denies: Vec<String>,
    allows: Vec<String>,
    /// Allows whose conditions are not true.
    unmet: Vec<String>,
}

fn ask(world: World<'_>, asked: Asked<'_>, scope: &ScopeSpec) -> Said {
    let mut said = Said { denies: Vec::new(), allows: Vec::new(), unmet: Vec::new() };
    let name = &scope.name.value;
    for rule in &scope.deny {
        if fires(world, asked, rule) {
            said.denies.push(id(name, "deny", rule));
        }
    }
    for rule in &scope.allow {
        if template::allows(&template::rule(&rule.text.value), &asked.head.manner, &asked.head.path) {
            match condition::when(rule.when.as_ref(), world.gateway, asked.request) {
                Truth::True => said.allows.push(id(name, "allow", rule)),
                Truth::False | Truth::Unknown => said.unmet.push(id(name, "allow", rule)),
            }
        }
    }
    said
}

/// Names of the scopes a token holds here and now.
pub(crate) fn effective(policy: &PolicySpec, environment: &str, token: &TokenView, now: u64) -> Vec<String> {
    let mut names = Vec::new();
    for (scope, expires) in &token.grants {
        if expires.is_none_or(|end| now < end) {
            names.push(scope.clone());
        }
    }
    for role in &token.roles {
        reach(policy, environment, role, &mut names);
    }
    names
}

/// The scopes of a role and, through it, of what it inherits, where it holds.
fn reach(policy: &PolicySpec, environment: &str, name: &str, into: &mut Vec<String>) {
    let Some(role) = policy.roles.iter().find(|role| role.name.value == name) else {
        return;
    };
    if !holds_in(role, environment) {
        return;
    }
    for scope in &role.scopes {
        into.push(scope.value.clone());
    }
    for parent in &role.inherits {
        reach(policy, environment, &parent.value, into);
    }
}

fn holds_in(role: &RoleSpec, environment: &str) -> bool {
    match &role.environments {
        None => true,
        Some(named) => named.iter().any(|e| e.value == environment),
    }
}

/// For the properties: every deny that could bind this token's requests on that api.
pub(crate) fn deny_rules(world: World<'_>, api: &str, token: Option<&TokenView>) -> Vec<RuleSpec> {
    let mut rules = Vec::new();
    for boundary in &world.policy.boundaries {
        if binds(boundary, &world.gateway.environment, api) {
            rules.extend(boundary.deny.clone());
        }
    }
    if let Some(token) = token {
        let held = effective(world.policy, &world.gateway.environment, token, world.now);
        for scope in &world.policy.scopes {
            if scope.api.value == api && held.contains(&scope.name.value) {
                rules.extend(scope.deny.clone());
            }
        }
    }
    rules
}
