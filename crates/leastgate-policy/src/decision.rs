//! The decision (§5): a pure function of the snapshot, the token's record, the request's facts and the time.
//!
//! The order of the steps names the reason of a refusal and is the security property; it is plain code, top to
//! bottom, in [`decide`].

use std::sync::Arc;

use http::Request;
use smallvec::SmallVec;

use crate::case::{Basis, Case, Denial, Permit, RuleList, TokenIdentity};
use crate::condition::Truth;
use crate::entitlement::Resolved;
use crate::facts::{Credential, RequestFacts};
use crate::loosen::Loosened;
use crate::reason::Reason;
use crate::snapshot::{Api, Cors, Mode, PolicySnapshot, Rule, RuleKind};
use crate::time::Timestamp;
use crate::token::{Restrictions, TokenState, TokenTable, TokenView};
use crate::trie::{RuleIndex, Trie};

/// What a decision came to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The request may pass.
    Allow(Permit),
    /// The gateway answers it: a CORS preflight.
    Answer(Preflight),
    /// The request may not pass.
    Deny(Denial),
}

/// A CORS preflight to answer from the api's `cors` block, the same for every caller.
#[derive(Clone, Debug)]
pub struct Preflight {
    cors: Arc<Cors>,
    case: Case,
}

/// A decision that has taken the request with it.
#[derive(Debug)]
pub enum Verdict<B> {
    /// It may pass; only this can be forwarded.
    Allow(AuthorizedRequest<B>),
    /// The gateway answers it.
    Answer(Preflight, Request<B>),
    /// It may not pass.
    Deny(Denial, Request<B>),
}

/// A request together with the permit that lets it pass. Nothing but [`authorize`] makes one.
#[derive(Debug)]
pub struct AuthorizedRequest<B> {
    request: Request<B>,
    permit: Permit,
}

impl<B> AuthorizedRequest<B> {
    /// Why it may pass.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The request and its permit, for the forwarder.
    #[must_use]
    pub fn into_parts(self) -> (Request<B>, Permit) {
        (self.request, self.permit)
    }
}

impl Preflight {
    /// Allowed origins; `*` is any.
    #[must_use]
    pub fn origins(&self) -> &[String] {
        &self.cors.spec.origins
    }

    /// Allowed request headers.
    #[must_use]
    pub fn headers(&self) -> &[String] {
        &self.cors.spec.headers
    }

    /// The union of the api's methods.
    #[must_use]
    pub fn methods(&self) -> &[String] {
        &self.cors.methods
    }

    /// Whether credentials may be sent.
    #[must_use]
    pub fn allows_credentials(&self) -> bool {
        self.cors.spec.credentials
    }

    /// How long a browser may keep the answer.
    #[must_use]
    pub fn max_age(&self) -> Option<std::time::Duration> {
        self.cors.spec.max_age
    }

    /// The case that was judged.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }
}

/// Decides, and moves the request into the verdict.
pub fn authorize<B>(
    request: Request<B>,
    facts: &RequestFacts,
    snapshot: &Arc<PolicySnapshot>,
    now: Timestamp,
) -> Verdict<B> {
    match decide(facts, snapshot, now) {
        Decision::Allow(permit) => Verdict::Allow(AuthorizedRequest { request, permit }),
        Decision::Answer(preflight) => Verdict::Answer(preflight, request),
        Decision::Deny(denial) => Verdict::Deny(denial, request),
    }
}

/// Decides. Allocates nothing where the token's entitlement is known under this snapshot.
#[must_use]
pub fn decide(facts: &RequestFacts, snapshot: &Arc<PolicySnapshot>, now: Timestamp) -> Decision {
    let mut case = Case::new(snapshot, now);
    case.api = snapshot.api_of(&facts.host, &facts.path);
    let api = case.api.map(|api| &snapshot.apis[api]);
    if facts.has_underscores && !api.is_some_and(|api| api.allow_underscores) {
        return deny(case, Reason::RequestMalformed, Some("a field name has an underscore"));
    }
    let Some(api) = api else { return deny(case, Reason::HostUnknown, None) };
    case.mode = api.mode(now);
    if facts.is_misplaced {
        return deny(
            case,
            Reason::CredentialMisplaced,
            Some("send the token once, in its own header, and nowhere else"),
        );
    }
    if let Some(cors) = api.cors.as_ref().filter(|_| facts.is_preflight) {
        return Decision::Answer(Preflight { cors: Arc::clone(cors), case });
    }
    let segments: Segments<'_> = facts.path.segments().collect();
    let matches = Matches { snapshot, facts, segments: &segments };
    let denies = matches.of_loose(&api.deny);
    let public = matches.of(&api.public);
    if !public.is_empty() {
        return decide_public(case, snapshot, public, &denies);
    }
    let token = match find_token(facts, snapshot.tokens(), now) {
        Ok(token) => token,
        Err(refusal) => return refusal.into_denial(case),
    };
    case.identity = Some(TokenIdentity::of(token));
    decide_scoped(case, &matches, api, &denies)
}

fn decide_public(case: Case, snapshot: &PolicySnapshot, public: Matched, denies: &Matched) -> Decision {
    let boundaries = denies.select(snapshot, |rule| rule.kind == RuleKind::Boundary);
    if !boundaries.is_empty() {
        return deny(case.with_rules(boundaries), Reason::BoundaryDeny, None);
    }
    let rules = public.into_rules();
    Decision::Allow(Permit { basis: Basis::Public, is_websocket: false, case: case.with_rules(rules) })
}

fn decide_scoped(case: Case, matches: &Matches<'_>, api: &Api, denies: &Matched) -> Decision {
    let Matches { snapshot, facts, .. } = matches;
    let boundaries = denies.select(snapshot, |rule| rule.kind == RuleKind::Boundary);
    if !boundaries.is_empty() {
        return deny(case.with_rules(boundaries), Reason::BoundaryDeny, None);
    }
    let resolved = case.identity.as_ref().map(|identity| identity.entitlement.resolve(snapshot));
    let resolved = resolved.as_deref().and_then(Option::as_deref);
    let now = case.decided;
    let holds = |rule: &Rule| match (rule.scope_index, resolved) {
        (Some(scope), Some(resolved)) => Resolved::holds(resolved, scope, now),
        _ => false,
    };
    let denied = denies.select(snapshot, |rule| rule.kind == RuleKind::Deny && holds(rule));
    let shadowable = Shadowable { mode: case.mode, is_websocket: facts.is_websocket };
    if !denied.is_empty() {
        return shadowable.deny(case.with_rules(denied), Reason::ExplicitDeny);
    }
    let allows = matches.of(&api.allow);
    let granted = allows.select(snapshot, holds);
    if !granted.is_empty() {
        return Decision::Allow(Permit {
            basis: Basis::Granted,
            is_websocket: facts.is_websocket,
            case: case.with_rules(granted),
        });
    }
    let failing = allows.select_failing(snapshot, holds);
    if !failing.is_empty() {
        return shadowable.deny(case.with_rules(failing), Reason::ConditionFailed);
    }
    // A scope whose own deny matches would not suffice, whatever it allows.
    let self_denied =
        |scope: Option<usize>| denies.any(snapshot, |rule| rule.kind == RuleKind::Deny && rule.scope_index == scope);
    let sufficient = allows.select(snapshot, |rule| !self_denied(rule.scope_index));
    let reason = if sufficient.is_empty() { Reason::NoMatchingScope } else { Reason::InsufficientScope };
    shadowable.deny(case.with_rules(sufficient), reason)
}

fn deny(case: Case, reason: Reason, detail: Option<&'static str>) -> Decision {
    Decision::Deny(Denial { reason, detail, expired_at: None, case })
}

/// A refusal by the scopes: advisory in shadow mode.
struct Shadowable {
    mode: Mode,
    is_websocket: bool,
}

impl Shadowable {
    fn deny(&self, case: Case, reason: Reason) -> Decision {
        if self.mode == Mode::Enforce || !reason.is_advisory_in_shadow() {
            return deny(case, reason, None);
        }
        let denial = Denial { reason, detail: None, expired_at: None, case: case.clone() };
        Decision::Allow(Permit { basis: Basis::Shadowed(Box::new(denial)), is_websocket: self.is_websocket, case })
    }
}

/// Why a credential does not stand for a token that may be used now.
struct TokenRefusal {
    reason: Reason,
    token: Option<TokenView>,
}

impl TokenRefusal {
    fn into_denial(self, mut case: Case) -> Decision {
        let expired = matches!(self.reason, Reason::TokenExpired | Reason::TokenGraceEnded);
        let expired_at = self.token.as_ref().filter(|_| expired).and_then(|token| token.expires);
        case.identity = self.token.map(TokenIdentity::of);
        Decision::Deny(Denial { reason: self.reason, detail: None, expired_at, case })
    }
}

/// Credential, then the token's state, then its restrictions.
fn find_token(facts: &RequestFacts, tokens: &TokenTable, now: Timestamp) -> Result<TokenView, TokenRefusal> {
    let refuse = |reason| TokenRefusal { reason, token: None };
    let (digest, unknown) = match &facts.credential {
        Credential::Missing => return Err(refuse(Reason::CredentialMissing)),
        Credential::Malformed => return Err(refuse(Reason::CredentialMalformed)),
        Credential::Admin => return Err(refuse(Reason::TokenUnknown)),
        Credential::Foreign(digest) => (digest, Reason::EnvironmentMismatch),
        Credential::Presented(digest) => (digest, Reason::TokenUnknown),
    };
    let token = tokens.get(digest).ok_or_else(|| refuse(unknown))?;
    match standing(&token, facts, now) {
        None => Ok(token),
        Some(reason) => Err(TokenRefusal { reason, token: Some(token) }),
    }
}

/// State, then restrictions (§5). The end of its life comes last: only the rightful caller learns when it was.
fn standing(token: &TokenView, facts: &RequestFacts, now: Timestamp) -> Option<Reason> {
    match token.state {
        TokenState::Revoked => return Some(Reason::TokenRevoked),
        TokenState::Disabled => return Some(Reason::TokenDisabled),
        TokenState::Active | TokenState::Rotating => {}
    }
    if let Some(reason) = token.restrictions.as_ref().and_then(|restrictions| restricted(restrictions, facts, now)) {
        return Some(reason);
    }
    let is_over = token.expires.is_some_and(|end| end <= now);
    let over = if token.state == TokenState::Rotating { Reason::TokenGraceEnded } else { Reason::TokenExpired };
    is_over.then_some(over)
}

fn restricted(restrictions: &Restrictions, facts: &RequestFacts, now: Timestamp) -> Option<Reason> {
    let nets = &restrictions.source_ip;
    let is_inside = facts.client().is_some_and(|address| nets.iter().any(|net| net.contains(&address)));
    if !nets.is_empty() && !is_inside {
        return Some(Reason::SourceNotAllowed);
    }
    restrictions.not_before.is_some_and(|start| now < start).then_some(Reason::TokenNotYetValid)
}

/// Finds the rules of a trie that speak of a request.
struct Matches<'a> {
    snapshot: &'a PolicySnapshot,
    facts: &'a RequestFacts,
    segments: &'a [&'a str],
}

type Segments<'a> = SmallVec<[&'a str; 16]>;

/// Rules that speak of a request, each with the truth of its conditions.
struct Matched(SmallVec<[(RuleIndex, Truth); 8]>);

impl Matches<'_> {
    fn of(&self, trie: &Trie) -> Matched {
        self.walk(trie, self.segments)
    }

    /// Denies and boundaries compare the loose form, which every path that matches as it is matches too.
    fn of_loose(&self, trie: &Trie) -> Matched {
        match Loosened::of(self.segments) {
            None => self.walk(trie, self.segments),
            Some(loosened) => self.walk(trie, &loosened.segments()),
        }
    }

    fn walk(&self, trie: &Trie, segments: &[&str]) -> Matched {
        let mut matched = SmallVec::new();
        let facts = self.facts;
        trie.walk(segments, facts.path.has_trailing_slash(), &mut |rules| {
            for &index in rules {
                let rule = &self.snapshot.rules[index as usize];
                if rule.covers(&facts.method, facts.is_grpc, facts.is_websocket) {
                    let conditions = rule.conditions.as_ref();
                    let truth = conditions.map_or(Truth::True, |conditions| conditions.evaluate(&facts.conditions()));
                    matched.push((index, truth));
                }
            }
        });
        Matched(matched)
    }
}

impl Matched {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_rules(self) -> RuleList {
        self.0.into_iter().map(|(index, _)| index).collect()
    }

    /// Rules that take effect: an allow needs true, a deny fires on true and unknown.
    fn select(&self, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule) -> bool) -> RuleList {
        self.filter(snapshot, |rule, truth| takes_effect(rule, truth) && wanted(rule))
    }

    /// Allows whose conditions do not hold.
    fn select_failing(&self, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule) -> bool) -> RuleList {
        self.filter(snapshot, |rule, truth| !takes_effect(rule, truth) && wanted(rule))
    }

    fn any(&self, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule) -> bool) -> bool {
        self.0.iter().any(|&(index, truth)| {
            let rule = &snapshot.rules[index as usize];
            takes_effect(rule, truth) && wanted(rule)
        })
    }

    fn filter(&self, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule, Truth) -> bool) -> RuleList {
        self.0
            .iter()
            .filter(|&&(index, truth)| wanted(&snapshot.rules[index as usize], truth))
            .map(|&(index, _)| index)
            .collect()
    }
}

fn takes_effect(rule: &Rule, truth: Truth) -> bool {
    match rule.kind {
        RuleKind::Allow | RuleKind::Public => truth == Truth::True,
        RuleKind::Deny | RuleKind::Boundary => truth != Truth::False,
    }
}
