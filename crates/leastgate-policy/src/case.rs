//! What came of a request: the case that was judged, and the permit or the denial.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::entitlement::{Entitlement, Holdings};
use crate::reason::Reason;
use crate::shown;
use crate::snapshot::{Api, Mode, PolicySnapshot, Protocol, Rule};
use crate::time::Timestamp;
use crate::token::{Accessor, EnvironmentKey, OverLimit, Terms, TokenState, TokenView};
use crate::trie::RuleIndex;

/// Indices of rules, sorted: a handful at most, so they stay where they are.
pub(crate) type RuleList = SmallVec<[RuleIndex; 8]>;

/// What a decision rests on: one snapshot, and as much of the api, the token and the rules as was reached.
#[derive(Clone)]
pub struct Case {
    pub(crate) snapshot: Arc<PolicySnapshot>,
    pub(crate) api: Option<usize>,
    pub(crate) mode: Mode,
    pub(crate) rules: RuleList,
    pub(crate) identity: Option<TokenIdentity>,
    /// Whether the token was not only found, but may be used.
    pub(crate) is_verified: bool,
    /// One hardly ever, and more only of a head that shows more.
    pub(crate) baits: Box<[Bait]>,
    pub(crate) decided: Timestamp,
}

/// A token that nobody has a reason to use, and that came with the request all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bait {
    /// Its public id.
    pub accessor: Accessor,
    /// Its name.
    pub name: SmolStr,
}

/// Who the token says the caller is.
#[derive(Clone, Debug)]
pub struct TokenIdentity {
    /// Public id of the token.
    pub accessor: Accessor,
    /// Its name: the subject.
    pub name: SmolStr,
    /// When its life ends.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub state: TokenState,
    pub(crate) terms: Option<Arc<Terms>>,
    /// Whether it is still kept under the previous key.
    pub is_straggler: bool,
    pub(crate) entitlement: Arc<Entitlement>,
}

/// Why a request may pass. Only [`crate::decide`] makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(crate) basis: Basis,
    pub(crate) is_websocket: bool,
    pub(crate) case: Case,
}

/// What a permit rests on.
#[derive(Clone, Debug)]
pub enum Basis {
    /// A scope of the token allows it.
    Granted,
    /// A public rule allows it; the token was not looked at.
    Public,
    /// The scopes refuse it, but the api is in shadow mode.
    Shadowed(Box<Denial>),
}

/// Why a request may not pass.
#[derive(Clone, Debug)]
pub struct Denial {
    /// The first failing step.
    pub reason: Reason,
    /// Which rule the request broke, in words a caller may read.
    pub detail: Option<&'static str>,
    /// When the token expired, where that is the reason.
    pub expired_at: Option<Timestamp>,
    /// Which limit of the token it is over, where that is the reason.
    pub over: Option<OverLimit>,
    pub(crate) case: Case,
}

impl Case {
    pub(crate) fn new(snapshot: &Arc<PolicySnapshot>, decided: Timestamp) -> Self {
        Self {
            snapshot: Arc::clone(snapshot),
            api: None,
            mode: Mode::Enforce,
            rules: RuleList::new(),
            identity: None,
            is_verified: false,
            baits: Box::default(),
            decided,
        }
    }

    /// The snapshot it was decided under.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<PolicySnapshot> {
        &self.snapshot
    }

    /// The policy revision it was decided under.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.snapshot.revision()
    }

    /// The api that judged it, where one was found.
    #[must_use]
    pub fn api(&self) -> Option<&Api> {
        self.api.map(|api| &self.snapshot.apis[api])
    }

    /// The mode of that api at that moment; `enforce` where none was found.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules that brought it about, sorted by id: those that allow it, those that deny it, those whose condition
    /// failed, or those that would have allowed it.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> + '_ {
        self.rules.iter().map(|&rule| &self.snapshot.rules[rule as usize])
    }

    /// Index in [`PolicySnapshot::routes`] of the first rule's template.
    #[must_use]
    pub fn route(&self) -> Option<usize> {
        self.rules().next().map(|rule| rule.route)
    }

    /// Who the token says the caller is, once it was found.
    #[must_use]
    pub fn identity(&self) -> Option<&TokenIdentity> {
        self.identity.as_ref()
    }

    /// When the life of the token ends, in its last seven days. Only of a token that may be used: of another one a
    /// caller learns nothing.
    #[must_use]
    pub fn ending(&self) -> Option<Timestamp> {
        const LAST_DAYS: u64 = 7 * 86_400;
        let end = self.identity.as_ref().filter(|_| self.is_verified)?.expires?;
        (end.since(self.decided) <= LAST_DAYS).then_some(end)
    }

    /// The baits that came with the request, wherever in its head, whatever became of it: they take no part in the decision.
    #[must_use]
    pub fn baits(&self) -> &[Bait] {
        &self.baits
    }

    /// Each is told once, however often it is there.
    pub(crate) fn note_baits(&mut self, baits: impl IntoIterator<Item = Bait>) {
        for bait in baits {
            if !self.baits.contains(&bait) {
                let mut all = std::mem::take(&mut self.baits).into_vec();
                all.push(bait);
                self.baits = all.into();
            }
        }
    }

    /// The scopes of [`Self::rules`], each once, sorted.
    #[must_use]
    pub fn scopes(&self) -> SmallVec<[&str; 8]> {
        let mut names: SmallVec<[&str; 8]> = self.rules().filter_map(|rule| rule.scope.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The scopes the token holds under this snapshot at the moment of the decision, sorted.
    #[must_use]
    pub fn held(&self) -> Vec<&str> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let resolved = identity.entitlement.resolve(&self.snapshot);
        let Some(resolved) = resolved.as_ref() else { return Vec::new() };
        let scopes = self.snapshot.scopes.iter().enumerate();
        scopes.filter(|(index, _)| resolved.holds(*index, self.decided)).map(|(_, scope)| &*scope.name).collect()
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("revision", &self.revision())
            .field("api", &self.api().map(|api| &api.name))
            .field("rules", &self.rules().map(|rule| &rule.id).collect::<Vec<_>>())
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl TokenIdentity {
    pub(crate) fn of(token: TokenView, is_straggler: bool) -> Self {
        let TokenView { accessor, name, entitlement, terms, expires, state, .. } = token;
        Self { accessor, name, expires, state, terms, is_straggler, entitlement }
    }

    /// The first moment of the token's life, where one was set.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.terms.as_ref()?.restrictions.not_before
    }

    /// The owner, roles and grants of the token, by name.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        self.entitlement.holdings()
    }
}

impl Permit {
    /// What it rests on.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The case that was judged.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// The reason an event gives: in shadow, that of the denial that was not enforced.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match &self.basis {
            Basis::Granted => Reason::ScopeGranted,
            Basis::Public => Reason::PublicRule,
            Basis::Shadowed(denial) => denial.reason,
        }
    }

    /// Whether it is a WebSocket handshake, to be tunnelled after a 101.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    /// Whether a rule for gRPC lets it through: its messages may come as slowly as they like.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        let is_of_rules = !matches!(self.basis, Basis::Shadowed(_));
        is_of_rules && self.case.rules().any(|rule| rule.protocol == Protocol::Grpc)
    }

    /// The scopes that granted it, sorted; empty where nothing was granted.
    #[must_use]
    pub fn granted_by(&self) -> SmallVec<[&str; 8]> {
        match self.basis {
            Basis::Granted => self.case.scopes(),
            Basis::Public | Basis::Shadowed(_) => SmallVec::new(),
        }
    }
}

impl Denial {
    /// The case that was judged.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Refuses a request for a reason that lies outside the policy: a limit, a fault, a drain.
    #[must_use]
    pub fn outside_policy(
        reason: Reason,
        detail: Option<&'static str>,
        snapshot: &Arc<PolicySnapshot>,
        now: Timestamp,
    ) -> Self {
        Self { reason, detail, expired_at: None, over: None, case: Case::new(snapshot, now) }
    }

    /// The same case, refused for another reason that lies outside the policy.
    #[must_use]
    pub fn of_permit(permit: &Permit, reason: Reason, detail: Option<&'static str>) -> Self {
        Self { reason, detail, expired_at: None, over: None, case: permit.case.clone() }
    }

    /// The same, of a head that is refused unjudged: a bait in it is noticed all the same.
    #[must_use]
    pub fn of_head(mut self, parts: &Parts, key: &EnvironmentKey) -> Self {
        let baits = shown::baits(parts, &self.case.snapshot, key);
        self.case.note_baits(baits);
        self
    }

    /// The same case, refused for another reason: a source's failures limited in place of a bad credential.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// The scopes any one of which would have sufficed, sorted.
    #[must_use]
    pub fn required_any_of(&self) -> SmallVec<[&str; 8]> {
        match self.reason {
            Reason::InsufficientScope => self.case.scopes(),
            _ => SmallVec::new(),
        }
    }

    /// The conditions that were not met: their names only.
    #[must_use]
    pub fn failed_conditions(&self) -> Vec<&str> {
        if self.reason != Reason::ConditionFailed {
            return Vec::new();
        }
        let conditions = self.case.rules().filter_map(|rule| rule.conditions.as_ref());
        let mut names: Vec<&str> = conditions.flat_map(crate::condition::Conditions::names).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
