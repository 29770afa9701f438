//! Tokens handed to another gateway: as they are in force, which may be less than the store knows yet, and never unseen.

use leastgate_policy::token::TokenView as InForce;
use leastgate_policy::{Timestamp, TokenState};
use leastgate_store::{MAX_PAGE, SortKey, StateFilter, TimeFilter, TokenQuery, TokenRecord};
use serde::Deserialize;
use utoipa::IntoParams;

use super::changes::check_not_declared;
use super::{detail, view};
use crate::api::{ExportedToken, ExportedTokens, Moment};
use crate::call::{Call, Change as Recorded, Reply, from_query};
use crate::problem::Problem;

/// The query of `GET /v1/exports`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
}

/// Digests are worth nothing without the pepper; all the same they are for administrators alone.
pub(crate) fn export(call: &Call<'_>) -> Result<Reply, Problem> {
    check_not_declared(call, None)?;
    let ExportQuery { cursor } = from_query(call.uri)?;
    let query = TokenQuery {
        state: Some(StateFilter::Active),
        owner: None,
        pepper: None,
        times: TimeFilter::default(),
        is_for_review: false,
        sort: SortKey::Created,
        limit: MAX_PAGE,
        cursor: cursor.clone(),
        now: call.now,
    };
    let page = call.shared.given.store.list_tokens(&query)?;
    // Who stands in for another one ends with a command over there.
    let own = page.items.iter().filter(|record| record.parent.is_none());
    let items: Vec<_> = own.filter_map(|record| in_force(call, record)).map(|record| exported(call, &record)).collect();
    let accessors: Vec<&str> = items.iter().map(|item| item.accessor.as_str()).collect();
    let details = vec![
        detail("exported", items.len().to_string()),
        detail("cursor", cursor.unwrap_or_default()),
        detail("next_cursor", page.next_cursor.clone().unwrap_or_default()),
        detail("accessors", accessors.join(" ")),
    ];
    let change = Recorded { details, ..Recorded::default() };
    Ok(Reply { change, ..Reply::json(&ExportedTokens { items, next_cursor: page.next_cursor })? })
}

/// The record without what was taken from the token in memory and not in the store yet; `None`: it is not in use.
fn in_force(call: &Call<'_>, record: &TokenRecord) -> Option<TokenRecord> {
    let token = call.shared.given.authority.token(&record.digest)?;
    let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end <= call.now);
    if token.state != TokenState::Active || is_over(record.expires) || is_over(token.expires) {
        return None;
    }
    Some(lesser(call.shared.unsynced.restricted(record), &token))
}

/// What both the record and the token in force have: whichever is ahead of the other, nothing is handed out that is not in
/// force.
fn lesser(mut record: TokenRecord, token: &InForce) -> TokenRecord {
    let held = token.entitlement.holdings();
    record.roles.retain(|role| held.roles.iter().any(|name| **name == **role));
    record.grants.retain_mut(|grant| {
        let in_force = held.grants.iter().find(|(scope, _)| **scope == *grant.scope);
        in_force.inspect(|(_, end)| grant.expires = earlier(grant.expires, *end)).is_some()
    });
    record.expires = earlier(record.expires, token.expires);
    if let Some(terms) = &token.terms {
        record.restrictions.clone_from(&terms.restrictions);
        record.limits = terms.limits;
    }
    record
}

/// The earlier of two ends, where none is never.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

fn exported(call: &Call<'_>, record: &TokenRecord) -> ExportedToken {
    let shown = view::token(record, record.state, call.shared, call.now);
    ExportedToken {
        accessor: shown.accessor,
        name: shown.name,
        env: shown.env,
        digest: record.digest.to_string(),
        pepper_id: record.pepper_id.clone(),
        owner: shown.owner,
        roles: shown.roles,
        grants: shown.grants,
        restrictions: shown.restrictions,
        limits: shown.limits,
        created: Moment(record.created),
        expires: shown.expires,
        canary: record.is_canary,
        note: shown.note,
    }
}
