//! `token_rules.idle_disable`: tokens that nobody uses are disabled, in the way an administrator does it.
//!
//! A use is a request for which the token was valid, whether the scopes let it through or not: a token that is refused is
//! in somebody's hands, who waits for a grant or looks for a fault, and to disable it would only hide which of the two.
//! Baits are nobody's to use, and a life that has not begun can't be idle.

use std::time::Duration;

use leastgate_policy::{Timestamp, TokenState};
use leastgate_store::{Change, StateChange, StoreError, TokenRecord};
use leastgate_telemetry::LifecycleEvent;

use super::changes::keep_in_turn;
use super::detail;
use super::find::Found;
use crate::api::Moment;
use crate::state::{Shared, Tokens};

/// Who disables, in records.
const BY: &str = "leastgate";
/// Tokens disabled at a time. Each is a commit of its own, and an administrator may come between any two.
const MOST: u32 = 100;

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is no such rule, or no store whose tokens it is about.
    NotAsked,
    /// It is not known what was used: nothing was done.
    Unknown,
    /// So many were disabled, and there are none left.
    All(u32),
    /// There are more.
    Some,
}

/// How long the policy in force lets a token lie idle.
pub(crate) fn rule(shared: &Shared) -> Option<Duration> {
    let policy = shared.given.authority.snapshot()?;
    policy.token_rules().idle_disable.filter(|_| shared.given.tokens == Tokens::Store)
}

/// Disables tokens that were not used for so long: some of them, so that nobody waits long. Blocks.
///
/// # Errors
/// The store can't be read.
pub(crate) fn disable(shared: &Shared) -> Result<Looked, StoreError> {
    let Some(rule) = rule(shared) else { return Ok(Looked::NotAsked) };
    let hooks = &shared.given.hooks;
    (hooks.flush_usage)();
    let since = Timestamp(shared.now().0.saturating_sub(rule.as_secs()));
    if (hooks.is_usage_behind)() || (hooks.usage_lost)().is_some_and(|lost| lost >= since) {
        return Ok(Looked::Unknown);
    }
    let idle = shared.given.store.idle_tokens(since, MOST)?;
    let mut disabled = 0;
    for token in &idle {
        disabled += u32::from(disable_one(shared, token, since)?);
    }
    // A batch of which nothing could be disabled would come again as it is.
    let is_more = idle.len() >= MOST as usize && disabled > 0;
    Ok(if is_more { Looked::Some } else { Looked::All(disabled) })
}

/// Disables a token if it is still as it was listed. `false`: it is not, or its turn did not come.
fn disable_one(shared: &Shared, listed: &TokenRecord, since: Timestamp) -> Result<bool, StoreError> {
    let Some(_held) = shared.lock_changes() else { return Ok(false) };
    let token = shared.given.store.token(listed.accessor)?;
    let used = shared.given.telemetry.usage().last_of(token.accessor);
    let is_used = used.is_some_and(|last| last.at >= since);
    let mut children = shared.given.store.children_of(token.accessor)?.into_iter();
    if token.version != listed.version || is_used || children.any(|child| !child.is_expired(shared.now())) {
        return Ok(false);
    }
    let reason = reason(&token, shared.given.store.use_known_since()?);
    let change = StateChange { change: Change::Disable, reason, by: BY.to_owned(), at: shared.now() };
    let found = Found::stored(shared, token);
    let before = found.state(shared);
    if before != TokenState::Active {
        return Ok(false);
    }
    let kept = keep_in_turn(shared, &found, &change, TokenState::Disabled);
    let Ok((after, durable)) = kept else { return Ok(false) };
    record(shared, &found, change, (before, after), durable);
    Ok(true)
}

/// What was used before a restore that could not know is not said to be unused.
fn reason(token: &TokenRecord, known_since: Option<Timestamp>) -> String {
    let at = token.last_use.map_or(token.created, |last| last.at);
    match (known_since, token.last_use) {
        (Some(restored), _) if restored > at => {
            format!("idle_disable: unused since {}, when the store was restored", Moment(restored))
        }
        (_, Some(_)) => format!("idle_disable: unused since {}", Moment(at)),
        (_, None) => format!("idle_disable: never used since {}", Moment(at)),
    }
}

fn record(
    shared: &Shared,
    found: &Found,
    change: StateChange,
    (before, after): (TokenState, TokenState),
    durable: bool,
) {
    tracing::warn!(name = found.name, accessor = %found.accessor, reason = change.reason, "a token was disabled");
    shared.given.telemetry.lifecycle(&LifecycleEvent {
        operation: "token.disable".to_owned(),
        result: "ok".to_owned(),
        target: Some(found.accessor.to_string()),
        reason: Some(change.reason),
        durable: Some(durable),
        details: vec![
            detail("name", found.name.as_str()),
            detail("state.before", before.as_str()),
            detail("state.after", after.as_str()),
        ],
        policy_rev: shared.given.authority.snapshot().map(|policy| policy.revision().to_owned()),
    });
}

#[cfg(test)]
mod tests {
    use leastgate_policy::{EnvironmentKey, Pepper, Restrictions, TokenLimits};
    use leastgate_store::draw::draw_token;
    use leastgate_store::{LastUse, NewToken, TokenName};

    use super::*;

    #[test]
    fn a_reason_says_only_what_is_known() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "prod");
        let new = NewToken {
            name: TokenName::parse("bot").unwrap(),
            owner: None,
            roles: vec![],
            grants: vec![],
            restrictions: Restrictions::default(),
            limits: TokenLimits::default(),
            created: Timestamp(0),
            created_by: "root".into(),
            expires: None,
            parent: None,
            is_canary: false,
            note: None,
        };
        let (never, _) = draw_token("prod", &key, new).unwrap();
        let used = TokenRecord { last_use: Some(LastUse { at: Timestamp(60), source: None }), ..never.clone() };
        for (token, known_since, said) in [
            (&never, None, "idle_disable: never used since 1970-01-01T00:00:00Z"),
            (&used, None, "idle_disable: unused since 1970-01-01T00:01:00Z"),
            (&used, Some(59), "idle_disable: unused since 1970-01-01T00:01:00Z"),
            (&used, Some(61), "idle_disable: unused since 1970-01-01T00:01:01Z, when the store was restored"),
            (&never, Some(61), "idle_disable: unused since 1970-01-01T00:01:01Z, when the store was restored"),
        ] {
            assert_eq!(reason(token, known_since.map(Timestamp)), said);
        }
    }
}
