//! When a token was last used, from where and by which rule: what the store was told, and what is still in memory.

use leastgate_policy::Accessor;
use leastgate_store::{LastUse, StoreError, UsageRow};

use crate::api::{LastUseView, Moment, TokenView};
use crate::state::Shared;

/// What the store knows by itself: not the rule, which stands with the counters.
pub(super) fn stored(last: LastUse) -> LastUseView {
    LastUseView { at: Moment(last.at), source: last.source.map(|source| source.to_string()), rule: None }
}

/// Takes over what is newer in memory: usage is flushed on a timer, and nobody should be shown what is older than that.
pub(super) fn freshen(shared: &Shared, accessor: Accessor, token: &mut TokenView) {
    let Some(last) = shared.given.telemetry.usage().last_of(accessor) else { return };
    if token.last_used.as_ref().is_none_or(|known| known.at.0 <= last.at) {
        let rule = last.rule.and_then(|rule| shared.given.authority.rule_id(rule));
        let known = token.last_used.take().and_then(|known| known.source);
        token.last_used = Some(LastUseView {
            at: Moment(last.at),
            source: last.source.map(|source| source.to_string()).or(known),
            rule: rule.map(|rule| rule.to_string()),
        });
    }
}

/// The same for one token, with the rule that the store has counted at that moment.
pub(super) fn complete(shared: &Shared, accessor: Accessor, token: &mut TokenView) -> Result<(), StoreError> {
    freshen(shared, accessor, token);
    if token.last_used.as_ref().is_some_and(|last| last.rule.is_some()) {
        return Ok(());
    }
    let newest = shared.given.store.usage_of(accessor)?.into_iter().max_by_key(|row| row.last_used);
    let Some(UsageRow { rule, last_used: at, last_source, .. }) = newest else { return Ok(()) };
    let row = LastUseView {
        at: Moment(at),
        source: last_source.map(|source| source.to_string()),
        rule: Some(rule.to_string()),
    };
    // A later use, or one of the same second from elsewhere, was refused; a declared token has no record, and its rows are
    // all there is.
    let is_of_row = |last: &LastUseView| last.at < row.at || (last.at == row.at && last.source == row.source);
    if token.last_used.as_ref().is_none_or(is_of_row) {
        token.last_used = Some(row);
    }
    Ok(())
}
