//! Statements about many tokens at once: those of a time, those that lie idle, and revoking a few in their rows.

use leastgate_policy::{Accessor, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::decode::{parsed, seconds};
use super::pending::NOT_PENDING;
use super::rotate::select;
use super::usage;
use crate::error::Failure;
use crate::query::TimeFilter;
use crate::record::{StateChange, TokenRecord};

/// Since when a token does nothing, as in the index.
pub(super) const ACTIVITY: &str = "coalesce(last_used, created)";

pub(super) fn revoke(connection: &Connection, accessors: &[Accessor], change: &StateChange) -> Result<usize, Failure> {
    let mut revoke = connection.prepare_cached(&format!(
        "UPDATE tokens SET state = 'revoked', change = 'revoke', change_reason = ?2, change_by = ?3, change_at = ?4,
             holds_name = 0, version = version + 1
         WHERE accessor = ?1 AND state <> 'revoked' AND {NOT_PENDING}"
    ))?;
    let mut revoked = 0;
    for accessor in accessors {
        revoked += revoke.execute((accessor.to_string(), &change.reason, &change.by, seconds(change.at)))?;
    }
    Ok(revoked)
}

pub(super) fn for_each_by_time(
    connection: &Connection,
    filter: &TimeFilter,
    take: &mut dyn FnMut(Accessor),
) -> Result<u64, Failure> {
    if let Some(since) = filter.unused_since
        && !usage::is_known_since(connection, since)?
    {
        return Ok(0);
    }
    let (conditions, values) = conditions(filter);
    let condition = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    let mut statement = connection.prepare_cached(&format!("SELECT accessor FROM tokens WHERE {condition}"))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        take(parsed(row, 0)?);
        count += 1;
    }
    Ok(count)
}

/// A filter of times as conditions, each with its value.
fn conditions(filter: &TimeFilter) -> (Vec<String>, Vec<Value>) {
    let TimeFilter { unused_since, created_before } = filter;
    let asked = [(ACTIVITY, unused_since), ("created", created_before)];
    asked
        .into_iter()
        .filter_map(|(key, before)| before.map(|before| (format!("{key} < ?"), Value::Integer(seconds(before)))))
        .unzip()
}

pub(super) fn idle(
    connection: &Connection,
    env: &str,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<TokenRecord>, Failure> {
    if !usage::is_known_since(connection, since)? {
        return Ok(Vec::new());
    }
    let condition = format!(
        "{ACTIVITY} < ?1 AND state = 'active' AND token IS NULL AND canary = 0 AND coalesce(change_at, 0) < ?1
             AND coalesce(not_before, 0) < ?1 AND coalesce(expires, ?1 + 1) > ?1 LIMIT ?2"
    );
    select(connection, env, &condition, (seconds(since), limit))
}

pub(super) fn count_made_before(connection: &Connection, before: Timestamp, now: Timestamp) -> Result<i64, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT count(*) FROM tokens WHERE created < ?1 AND state = 'active' AND canary = 0 AND parent IS NULL
             AND (expires IS NULL OR expires > ?2) AND {NOT_PENDING}"
    ))?;
    Ok(statement.query_one((seconds(before), seconds(now)), |row| row.get(0))?)
}
