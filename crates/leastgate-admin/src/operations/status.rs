//! How the gateway is.

use leastgate_policy::{Timestamp, TokenState, TokenTable};
use leastgate_store::StragglerCounts;

use super::{no_query, view};
use crate::api::{ListenerView, Moment, StatusView, StragglersView, TokenCounts};
use crate::call::{Call, Reply};
use crate::ops::Readiness;
use crate::problem::Problem;
use crate::state::{Shared, Tokens};

pub(crate) fn status(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let shared = call.shared;
    let given = &shared.given;
    let source = match given.tokens {
        Tokens::Store => "store",
        Tokens::Declared { .. } => "declared",
    };
    Reply::json(&StatusView {
        version: given.version.clone(),
        environment: given.environment.clone(),
        instance: given.telemetry.instance().to_owned(),
        policy_rev: given.authority.snapshot().map(|policy| policy.revision().to_owned()),
        ready: Readiness::of(given).is_ready(),
        draining: (given.hooks.is_draining)(),
        started: Moment(shared.started),
        uptime_seconds: call.now.since(shared.started),
        token_source: source.to_owned(),
        tokens: TokenCounts::of(&given.authority.tokens(), call.now),
        stragglers: stragglers(call)?,
        unsynced_changes: shared.unsynced.len(),
        listeners: listeners(shared),
        reload: (given.hooks.reload)(),
        audit: (given.hooks.sinks)(),
    })
}

fn stragglers(call: &Call<'_>) -> Result<StragglersView, Problem> {
    let given = &call.shared.given;
    let mut counts = StragglersView::from(given.store.count_stragglers(call.now)?);
    if matches!(given.tokens, Tokens::Declared { .. }) {
        counts.tokens = 0;
        given
            .authority
            .tokens()
            .for_each(|digest, _| counts.tokens += u64::from(given.authority.stragglers().has(digest)));
        counts.unknown_tokens = 0;
    }
    Ok(counts)
}

impl From<StragglerCounts> for StragglersView {
    fn from(counts: StragglerCounts) -> Self {
        let StragglerCounts { tokens, admins, unknown_tokens, unknown_admins } = counts;
        Self { tokens, admins, unknown_tokens, unknown_admins }
    }
}

/// The plane's own listeners as they are bound, whatever else the wiring says about them.
fn listeners(shared: &Shared) -> Vec<ListenerView> {
    let is_own = |view: &ListenerView| matches!(view.name.as_str(), "ops" | "admin");
    let others = (shared.given.hooks.listeners)().into_iter().filter(|view| !is_own(view));
    others.chain(shared.bound.iter().cloned()).collect()
}

/// A token that ends within this many seconds is expiring.
pub(super) const SOON: u64 = 7 * 86_400;

impl TokenCounts {
    /// Counts the tokens in force: one look at each, so some ten milliseconds for a million.
    #[must_use]
    pub fn of(tokens: &TokenTable, now: Timestamp) -> Self {
        let mut counts = Self::default();
        tokens.for_each(|_, token| counts.add(token.state, token.expires, now));
        counts
    }

    fn add(&mut self, state: TokenState, expires: Option<Timestamp>, now: Timestamp) {
        if view::state_name(state, expires, now) == "expired" {
            self.expired += 1;
            return;
        }
        match state {
            TokenState::Active => self.active += 1,
            TokenState::Rotating => self.rotating += 1,
            TokenState::Disabled => self.disabled += 1,
            TokenState::Revoked => self.revoked += 1,
        }
        let Some(end) = expires.filter(|_| matches!(state, TokenState::Active | TokenState::Rotating)) else { return };
        self.expiring += u64::from(state == TokenState::Active && end <= now.plus(SOON));
        self.next_expiry = Some(self.next_expiry.map_or(Moment(end), |next| next.min(Moment(end))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_by_what_can_be_done_with_them() {
        let now = Timestamp(1_000_000);
        let mut counts = TokenCounts::default();
        for (state, expires) in [
            (TokenState::Active, None),
            (TokenState::Active, Some(now.plus(SOON))),
            (TokenState::Active, Some(now.plus(SOON + 1))),
            (TokenState::Active, Some(now)),
            (TokenState::Disabled, Some(now.plus(1))),
            (TokenState::Disabled, Some(now)),
            (TokenState::Revoked, Some(now)),
            (TokenState::Rotating, Some(now.plus(9))),
        ] {
            counts.add(state, expires, now);
        }
        let expected = TokenCounts {
            active: 3,
            expiring: 1,
            rotating: 1,
            disabled: 1,
            expired: 2,
            revoked: 1,
            next_expiry: Some(Moment(now.plus(9))),
        };
        assert_eq!(counts, expected);
    }
}
