//! Tokens that stand in for another one for a while: what `leastgate run` gives to a command. A child holds what its parent
//! holds and never more, never outlives it, and ends with it.

use leastgate_policy::{Accessor, TokenState, Whose};
use leastgate_store::draw::draw_accessor;
use leastgate_store::{Change, NewToken, StateChange, TokenName, TokenRecord};

use super::changes::{check_not_declared, settle};
use super::cut::{Cut, Cutting};
use super::find::find;
use super::give::{Holding, check_may_give};
use super::{check_text, detail, issue, no_query};
use crate::api::{CreateChild, Moment};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem};

/// Children of one token that live at a time.
const MOST: usize = 1_000;

pub(crate) fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked = begin(call)?;
    let parent = living(call)?;
    if parent.parent.is_some() || parent.is_canary {
        return Err(Problem::new(Kind::Conflict, "nothing stands in for this token")
            .hint("name a token that was made by itself, and no bait"));
    }
    if call.shared.given.store.children_of(parent.accessor)?.iter().filter(|child| !child.is_expired(call.now)).count()
        >= MOST
    {
        return Err(Problem::new(Kind::Conflict, format!("{MOST} tokens stand in for this one already"))
            .hint("revoke those whose commands have ended"));
    }
    let child = NewToken {
        name: name(&parent)?,
        owner: parent.owner.clone(),
        roles: parent.roles.clone(),
        grants: parent.grants.iter().filter(|grant| grant.expires.is_none_or(|end| end > call.now)).cloned().collect(),
        restrictions: parent.restrictions.clone(),
        limits: parent.limits,
        created: call.now,
        created_by: call.caller.subject.clone(),
        expires: Some(end(call, &parent, &asked)),
        parent: Some(parent.accessor),
        is_canary: false,
        note: Some(asked.reason.clone()),
    };
    check_may_give(call, Holding::from(&child))?;
    let issued = issue::keep(call, &child)?;
    // A thousand children have the rate of one token, or a limit would be none.
    call.shared.given.authority.share_limits(&parent.digest, &issued.record.digest);
    // Whoever took something from the parent meanwhile did not know of the child.
    if !is_as_it_was(call, &parent) {
        end_alone(call, issued.record, "the token it stands in for was changed meanwhile");
        return Err(Problem::new(Kind::Stale, "the token was changed meanwhile").hint("try again"));
    }
    // Its parent is in use all the same, and is not to be disabled for idleness.
    call.shared.given.telemetry.usage().record(parent.accessor, None, call.now, None);
    let mut change = issue::recorded(&issued);
    change.details.push(detail("parent", parent.accessor.to_string()));
    change.reason = Some(asked.reason);
    issue::answer(call, &issued.record, Some(issued.secret.expose()), change)
}

fn is_as_it_was(call: &Call<'_>, parent: &TokenRecord) -> bool {
    let in_force = call.shared.given.authority.token(&parent.digest).map(|token| token.state);
    let kept = call.shared.given.store.token(parent.accessor);
    in_force == Some(TokenState::Active)
        && kept.is_ok_and(|kept| kept.version == parent.version)
        && !call.shared.unsynced.owes(parent.accessor)
}

/// A child's life goes on while its command runs.
pub(crate) fn renew(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked = begin(call)?;
    let held = call.lock_gift()?;
    let child = living(call)?;
    let Some(parent) = child.parent else {
        return Err(
            Problem::new(Kind::Conflict, "the token stands in for no other one").hint("only such a token is renewed")
        );
    };
    let parent = call.shared.given.store.token(parent)?;
    let in_force = call.shared.given.authority.token(&parent.digest).map(|token| token.state);
    let is_in_use = [in_force, Some(parent.state)].iter().all(|state| *state == Some(TokenState::Active));
    if !is_in_use || call.shared.unsynced.owes(parent.accessor) {
        return Err(Problem::new(Kind::Conflict, "the token it stands in for is not in use any more"));
    }
    let until = end(call, &parent, &asked);
    let renewed = TokenRecord { expires: child.expires.max(Some(until)), ..child.clone() };
    check_may_give(call, Holding::from(&renewed))?;
    super::edit::keep(call, held, &child, renewed, (&asked.reason, None))
}

fn begin(call: &Call<'_>) -> Result<CreateChild, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    let asked: CreateChild = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    Ok(asked)
}

/// The token that the call is about, if it is in use and the store owes nothing of it.
fn living(call: &Call<'_>) -> Result<TokenRecord, Problem> {
    let found = find(call.shared, call.target())?;
    if call.shared.unsynced.owes(found.accessor) {
        settle(call, found.accessor)?;
    }
    let state = found.state(call.shared);
    let record = found.record().filter(|record| state == TokenState::Active && !record.is_expired(call.now));
    record.cloned().ok_or_else(|| {
        Problem::new(Kind::Conflict, format!("the token is {}, or past its end", state.as_str()))
            .hint("only a token in use can be stood in for")
    })
}

fn end(call: &Call<'_>, parent: &TokenRecord, asked: &CreateChild) -> leastgate_policy::Timestamp {
    let wanted = call.now.plus(asked.ttl.seconds());
    parent.expires.map_or(wanted, |end| end.min(wanted))
}

/// The parent's name, cut where it is too long, and something of its own.
fn name(parent: &TokenRecord) -> Result<TokenName, Problem> {
    let own = draw_accessor()?.to_string().to_ascii_lowercase();
    let of_parent: String = parent.name.as_str().chars().take(48).collect();
    TokenName::parse(&format!("{of_parent}-run-{own}")).map_err(|error| Problem::new(Kind::Internal, error.to_string()))
}

/// What stands in for a token that something is taken from: it holds what the token held before. Out of force from the
/// beginning of this on, whatever the store does then; it ends in the commit that takes from the token.
pub(super) struct Ending<'a> {
    call: Call<'a>,
    /// Whose other children end with these; `None`: nobody's.
    parent: Option<Accessor>,
    children: Vec<TokenRecord>,
    cutting: Option<Cutting<'a>>,
    is_known: bool,
}

impl<'a> Ending<'a> {
    /// Of all that stands in for the token. To be asked for before the store is told to take the token out of use: it then
    /// ends these with it, and does not name them any more.
    pub(super) fn of(call: &Call<'a>, parent: Accessor) -> Self {
        match call.shared.given.store.children_of(parent) {
            Ok(children) => Self::those(call, Some(parent), &children),
            Err(error) => {
                tracing::warn!(%parent, %error, "what stands in for a token is not known, and lives to its end");
                Self { is_known: false, ..Self::those(call, Some(parent), &[]) }
            }
        }
    }

    /// Of these, which the store has ended, or is about to.
    pub(super) fn those(call: &Call<'a>, parent: Option<Accessor>, children: &[TokenRecord]) -> Self {
        let mut ending = Self { call: *call, parent, children: Vec::new(), cutting: None, is_known: true };
        ending.also(children);
        ending
    }

    /// And of these, which may have been made meanwhile.
    pub(super) fn also(&mut self, children: &[TokenRecord]) {
        let known = &self.children;
        let authority = &self.call.shared.given.authority;
        // Who has taken from the parent, or from the token it was before, has ended it already.
        let has_ended = |child: &TokenRecord| {
            authority.token(&child.digest).is_some_and(|token| token.state == TokenState::Revoked)
        };
        let is_new = |child: &&TokenRecord| {
            let is_known = known.iter().any(|known| known.accessor == child.accessor);
            !is_known && !child.is_expired(self.call.now) && !has_ended(child)
        };
        let more: Vec<TokenRecord> = children.iter().filter(is_new).cloned().collect();
        if more.is_empty() {
            return;
        }
        self.children.extend(more);
        let whose = Whose::Tokens(self.children.iter().map(|child| child.accessor).collect());
        let cutting = self.cutting.take().unwrap_or_else(|| Cutting::begin(&self.call, whose));
        self.silence();
        cutting.in_force();
        self.cutting = Some(cutting);
    }

    /// All of them, before anybody is waited for.
    fn silence(&self) {
        for child in &self.children {
            self.call.shared.given.authority.set_state(&child.digest, TokenState::Revoked);
        }
    }

    /// Each end is on record. What the store does not hold yet is owed. Says what that has cut; where the children are not
    /// known, that this is not all.
    pub(super) fn finish(mut self, reason: &str, is_durable: bool) -> Cut {
        if !is_durable {
            // The token is as it was in the store, and one that was made meanwhile with it.
            let others = self.parent.and_then(|parent| self.call.shared.given.store.children_of(parent).ok());
            self.also(&others.unwrap_or_default());
            self.owe(reason);
        }
        self.children.iter().for_each(|child| tell_end(&self.call, child, reason, is_durable));
        let cut = self.cutting.map_or(Cut::NONE, Cutting::finish);
        Cut { complete: cut.complete && self.is_known, ..cut }
    }

    fn owe(&self, reason: &str) {
        let accessors: Vec<Accessor> = self.children.iter().map(|child| child.accessor).collect();
        if !accessors.is_empty() {
            tracing::warn!("what stood in for a token has ended, and the store does not know it yet");
            let telemetry = &self.call.shared.given.telemetry;
            self.call.shared.unsynced.add_all(&accessors, &end_with(&self.call, reason), telemetry);
        }
        // Whoever had the turn may have put one back in force meanwhile; from here on they find the debt.
        self.silence();
    }
}

/// The end of what stands in for a token, as records tell it.
pub(super) fn end_with(call: &Call<'_>, reason: &str) -> StateChange {
    StateChange { change: Change::Revoke, reason: reason.to_owned(), by: call.caller.subject.clone(), at: call.now }
}

/// Ends a child and nothing else.
fn end_alone(call: &Call<'_>, child: TokenRecord, reason: &str) {
    let accessor = child.accessor;
    let ending = Ending::those(call, None, &[child]);
    let kept = match call.shared.lock_changes() {
        None => false,
        Some(_held) => call.shared.given.store.revoke_tokens(vec![accessor], end_with(call, reason)).is_ok(),
    };
    ending.finish(reason, kept);
}

fn tell_end(call: &Call<'_>, child: &TokenRecord, reason: &str, durable: bool) {
    let details = vec![
        detail("name", child.name.as_str()),
        detail("state.before", child.state.as_str()),
        detail("state.after", TokenState::Revoked.as_str()),
        detail("expires", child.expires.map_or_else(|| "never".to_owned(), |end| Moment(end).to_string())),
    ];
    let change = Recorded {
        target: Some(child.accessor.to_string()),
        reason: Some(reason.to_owned()),
        durable: Some(durable),
        details,
    };
    call.tell("token.revoke", &change, None);
}
