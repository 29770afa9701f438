//! The decision (§5): a pure function of the snapshot, the token's record, the request's facts and the time.
//!
//! The order of the steps names the reason of a refusal and is the security property; it is plain code, top to
//! bottom, in [`decide`].

mod matches;

use std::sync::Arc;
use std::time::Duration;

use http::Request;

use self::matches::{Matched, Matches};
use crate::answer::{OwnAnswer, OwnToken, Preflight, asks_about_own_token};
use crate::case::{Bait, Basis, Case, Denial, Permit, TokenIdentity};
use crate::entitlement::Resolved;
use crate::facts::{Credential, RequestFacts};
use crate::reason::Reason;
use crate::snapshot::{Api, Cors, Mode, PolicySnapshot, Rule, RuleKind};
use crate::time::Timestamp;
use crate::token::{Metered, OverLimit, Restrictions, Terms, TokenState, TokenTable, TokenView};

/// What a decision came to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The request may pass.
    Allow(Permit),
    /// The gateway answers it.
    Answer(OwnAnswer),
    /// The request may not pass.
    Deny(Denial),
}

/// A decision that has taken the request with it.
#[derive(Debug)]
pub enum Verdict<B> {
    /// It may pass; only this can be forwarded.
    Allow(AuthorizedRequest<B>),
    /// The gateway answers it.
    Answer(OwnAnswer, Request<B>),
    /// It may not pass.
    Deny(Denial, Request<B>),
}

/// A request together with the permit that lets it pass. Nothing but [`authorize`] makes one.
#[derive(Debug)]
pub struct AuthorizedRequest<B> {
    request: Request<B>,
    permit: Permit,
    metered: Option<Metered>,
}

impl<B> Verdict<B> {
    /// The case that was judged, whatever it came to.
    #[must_use]
    pub fn case(&self) -> &Case {
        match self {
            Self::Allow(authorized) => authorized.permit().case(),
            Self::Deny(denial, _) => denial.case(),
            Self::Answer(answer, _) => answer.case(),
        }
    }
}

impl<B> AuthorizedRequest<B> {
    /// What it has of its token's limits, once: to be held for as long as it is under way. `None` without a limit.
    #[must_use]
    pub fn take_metered(&mut self) -> Option<Metered> {
        self.metered.take()
    }

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

/// Decides, takes what the request needs of its token's limits, and moves it into the verdict. `elapsed` is the time by a
/// clock that never goes back, the same one for all requests.
///
/// An attempt counts from the step of the limits on, whatever becomes of it then; only what is allowed holds a place among
/// the token's requests under way.
pub fn authorize<B>(
    request: Request<B>,
    facts: &RequestFacts,
    snapshot: &Arc<PolicySnapshot>,
    now: Timestamp,
    elapsed: Duration,
) -> Verdict<B> {
    let mut metering = Metering { elapsed: Some(elapsed), metered: None };
    match judged(facts, snapshot, now, &mut metering) {
        Decision::Allow(permit) => Verdict::Allow(AuthorizedRequest { request, permit, metered: metering.metered }),
        Decision::Answer(answer) => Verdict::Answer(answer, request),
        Decision::Deny(denial) => Verdict::Deny(denial, request),
    }
}

/// Decides as if the token had no limits, and uses nothing of them: for a request that is under way already, or that nobody
/// sends. Allocates nothing where the token's entitlement is known under this snapshot.
#[must_use]
pub fn decide(facts: &RequestFacts, snapshot: &Arc<PolicySnapshot>, now: Timestamp) -> Decision {
    judged(facts, snapshot, now, &mut Metering { elapsed: None, metered: None })
}

fn judged(facts: &RequestFacts, snapshot: &Arc<PolicySnapshot>, now: Timestamp, metering: &mut Metering) -> Decision {
    let mut case = Case::new(snapshot, now);
    let finding = judge(&mut case, facts, snapshot, metering);
    // Where the token is not looked at, a bait is to be noticed all the same, and so is one in the wrong place.
    let unseen = facts.presented_digests().filter(|_| case.identity.is_none());
    let shown = unseen.into_iter().chain(&facts.shown).filter_map(|digests| snapshot.tokens().bait(digests));
    case.note_baits(shown);
    match finding {
        Finding::Granted => Decision::Allow(Permit { basis: Basis::Granted, is_websocket: facts.is_websocket, case }),
        Finding::Public => Decision::Allow(Permit { basis: Basis::Public, is_websocket: facts.is_websocket, case }),
        Finding::Preflight(cors) => Decision::Answer(OwnAnswer::Preflight(Preflight { cors, case })),
        Finding::OwnToken => {
            let allowance = metering.metered.as_ref().map(|metered| metered.allowance);
            Decision::Answer(OwnAnswer::OwnToken(OwnToken { case, allowance }))
        }
        Finding::Refused(Refusal { reason, detail, expired_at, over }) => {
            let is_advisory = case.mode == Mode::Shadow && reason.is_advisory_in_shadow();
            let denial = Denial { reason, detail, expired_at, over, case };
            if !is_advisory {
                return Decision::Deny(denial);
            }
            let case = denial.case.clone();
            let basis = Basis::Shadowed(Box::new(denial));
            Decision::Allow(Permit { basis, is_websocket: facts.is_websocket, case })
        }
    }
}

/// What the step of the limits does.
struct Metering {
    /// When it is, by the clock that rates are measured by; `None`: the step is left out.
    elapsed: Option<Duration>,
    metered: Option<Metered>,
}

impl Metering {
    fn take(&mut self, terms: Option<&Terms>) -> Result<(), OverLimit> {
        let (Some(elapsed), Some(terms)) = (self.elapsed, terms) else { return Ok(()) };
        self.metered = terms.take(elapsed).transpose()?;
        Ok(())
    }
}

/// What the steps come to. The case is filled in place on the way and moved once, at the end.
enum Finding {
    Granted,
    Public,
    Preflight(Arc<Cors>),
    OwnToken,
    Refused(Refusal),
}

/// The first step that fails; the end of the token's life, or the limit, goes along where that is what failed.
struct Refusal {
    reason: Reason,
    detail: Option<&'static str>,
    expired_at: Option<Timestamp>,
    over: Option<OverLimit>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, expired_at: None, over: None }
    }
}

impl From<OverLimit> for Refusal {
    fn from(over: OverLimit) -> Self {
        Self { over: Some(over), ..over.reason.into() }
    }
}

impl Refusal {
    fn finding(reason: Reason, detail: &'static str) -> Finding {
        Finding::Refused(Self { detail: Some(detail), ..reason.into() })
    }
}

impl From<Reason> for Finding {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason.into())
    }
}

fn judge(case: &mut Case, facts: &RequestFacts, snapshot: &PolicySnapshot, metering: &mut Metering) -> Finding {
    if asks_about_own_token(facts, snapshot) {
        return judge_own_token(case, facts, snapshot.tokens(), metering);
    }
    case.api = snapshot.api_of(&facts.host, &facts.path);
    let api = case.api.map(|api| &snapshot.apis[api]);
    if facts.has_odd_names && !api.is_some_and(|api| api.allow_underscores) {
        return Refusal::finding(Reason::RequestMalformed, ODD_NAME);
    }
    let Some(api) = api else { return Reason::HostUnknown.into() };
    if facts.server_name.as_ref().is_some_and(|name| api.is_misdirected(name, &snapshot.apis)) {
        case.api = None;
        return Refusal::finding(
            Reason::HostUnknown,
            "the TLS connection was made for another api (SNI) than Host names: make one for this host",
        );
    }
    case.mode = api.mode(case.decided);
    if let Some(rule) = facts.misplaced {
        return Refusal::finding(Reason::CredentialMisplaced, rule);
    }
    if let Some(cors) = api.cors.as_ref().filter(|_| facts.is_preflight) {
        return Finding::Preflight(Arc::clone(cors));
    }
    let matches = Matches { snapshot, facts };
    let denies = matches.of_loose(&api.deny);
    let public = matches.of(&api.public);
    if !public.is_empty() {
        return judge_public(case, snapshot, &public, &denies);
    }
    match admit_token(case, facts, snapshot.tokens(), metering) {
        Ok(()) => judge_scoped(case, &matches, api, &denies),
        Err(refusal) => Finding::Refused(refusal),
    }
}

const ODD_NAME: &str = "a field name has a byte other than letters, digits and `-`, such as `_` or `.`";

/// The question belongs to no api: no host, no rule and no boundary has a say, only the token itself.
fn judge_own_token(case: &mut Case, facts: &RequestFacts, tokens: &TokenTable, metering: &mut Metering) -> Finding {
    if facts.has_odd_names {
        return Refusal::finding(Reason::RequestMalformed, ODD_NAME);
    }
    if let Some(rule) = facts.misplaced {
        return Refusal::finding(Reason::CredentialMisplaced, rule);
    }
    match admit_token(case, facts, tokens, metering) {
        Ok(()) => Finding::OwnToken,
        Err(refusal) => Finding::Refused(refusal),
    }
}

fn judge_public(case: &mut Case, snapshot: &PolicySnapshot, public: &Matched, denies: &Matched) -> Finding {
    if denies.select(&mut case.rules, snapshot, is_boundary) {
        return Reason::BoundaryDeny.into();
    }
    public.select(&mut case.rules, snapshot, |_| true);
    Finding::Public
}

/// What the scopes that the token holds say of the request.
fn judge_scoped(case: &mut Case, matches: &Matches<'_>, api: &Api, denies: &Matched) -> Finding {
    let Matches { snapshot, facts } = *matches;
    let rules = &mut case.rules;
    if denies.select(rules, snapshot, is_boundary) {
        return Reason::BoundaryDeny.into();
    }
    let resolved = case.identity.as_ref().map(|identity| identity.entitlement.resolve(snapshot));
    let resolved = resolved.as_deref().and_then(Option::as_deref);
    let now = case.decided;
    let holds = |rule: &Rule| match (rule.scope_index, resolved) {
        (Some(scope), Some(resolved)) => Resolved::holds(resolved, scope, now),
        _ => false,
    };
    if denies.select(rules, snapshot, |rule| rule.kind == RuleKind::Deny && holds(rule)) {
        return Reason::ExplicitDeny.into();
    }
    let allows = matches.of(&api.allow);
    if allows.select(rules, snapshot, holds) {
        return Finding::Granted;
    }
    if allows.select_failing(rules, snapshot, holds) {
        return Reason::ConditionFailed.into();
    }
    // A scope whose own deny matches would not suffice, whatever it allows.
    let self_denied =
        |scope: Option<usize>| denies.any(snapshot, |rule| rule.kind == RuleKind::Deny && rule.scope_index == scope);
    if allows.select(rules, snapshot, |rule| !self_denied(rule.scope_index)) {
        return Reason::InsufficientScope.into();
    }
    if facts.is_websocket {
        return Refusal::finding(
            Reason::NoMatchingScope,
            "no scope allows a WebSocket on this path: a `WS` rule does, and a `GET` rule does not",
        );
    }
    Reason::NoMatchingScope.into()
}

fn is_boundary(rule: &Rule) -> bool {
    rule.kind == RuleKind::Boundary
}

/// What is found of the token, then its limits.
fn admit_token(
    case: &mut Case,
    facts: &RequestFacts,
    tokens: &TokenTable,
    metering: &mut Metering,
) -> Result<(), Refusal> {
    find_token(case, facts, tokens)?;
    let terms = case.identity.as_ref().and_then(|identity| identity.terms.as_deref());
    metering.take(terms).map_err(Refusal::from)
}

/// Credential, then the token's state, then its restrictions. A token that was found is the case's identity,
/// whether it may be used or not.
fn find_token(case: &mut Case, facts: &RequestFacts, tokens: &TokenTable) -> Result<(), Refusal> {
    let (digests, unknown) = match &facts.credential {
        Credential::Missing => return Err(Reason::CredentialMissing.into()),
        Credential::Malformed => return Err(Reason::CredentialMalformed.into()),
        Credential::Admin => return Err(Reason::TokenUnknown.into()),
        Credential::Foreign(digests) => (digests, Reason::EnvironmentMismatch),
        Credential::Presented(digests) => (digests, Reason::TokenUnknown),
    };
    let (token, is_straggler) = tokens.find(digests).ok_or(unknown)?;
    let refused = standing(&token, facts, case.decided);
    let expired_at = token.expires.filter(|_| matches!(refused, Some(Reason::TokenExpired | Reason::TokenGraceEnded)));
    case.note_baits(token.is_canary.then(|| Bait { accessor: token.accessor, name: token.name.clone() }));
    case.identity = Some(TokenIdentity::of(token, is_straggler));
    case.is_verified = refused.is_none();
    match refused {
        None => Ok(()),
        Some(reason) => Err(Refusal { expired_at, ..reason.into() }),
    }
}

/// State, then restrictions (§5). The end of its life comes last: only the rightful caller learns when it was.
fn standing(token: &TokenView, facts: &RequestFacts, now: Timestamp) -> Option<Reason> {
    match token.state {
        TokenState::Revoked => return Some(Reason::TokenRevoked),
        TokenState::Disabled => return Some(Reason::TokenDisabled),
        TokenState::Active | TokenState::Rotating => {}
    }
    if let Some(reason) = token.terms.as_ref().and_then(|terms| restricted(&terms.restrictions, facts, now)) {
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
