//! Listing tokens: one statement, put together from fixed pieces; every value is bound.
//!
//! A filter is a range of one index, and a page is in the order of another one. Which of the two to walk depends on how many
//! tokens the range holds, and SQLite does not know that: so it is counted first, up to a bound. By name there is one index
//! for both the filters by owner and by state.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::bulk::ACTIVITY;
use super::decode::{RECORD_COLUMNS, ROW_ID, record, seconds};
use super::pending::{self, PENDING};
use super::peppers::Peppers;
use super::usage;
use crate::error::{Failure, StoreError};
use crate::query::{Cursor, CursorKey, MAX_PAGE, SortKey, StateFilter, TokenPage, TokenQuery};
use crate::record::TokenRecord;

/// What a token without an end sorts by, as in the index.
const NEVER: i64 = i64::MAX;
const END: &str = "coalesce(expires, 9223372036854775807)";
/// Of a range with fewer tokens all are read and sorted; in a larger one a page is soon full.
const FEW: u32 = 10_000;

pub(super) fn list(
    connection: &Connection,
    env: &str,
    peppers: &Peppers,
    query: &TokenQuery,
) -> Result<TokenPage, Failure> {
    let limit = query.limit.clamp(1, MAX_PAGE);
    let pepper = query.pepper.map(|under| peppers.condition(connection, under)).transpose()?;
    let (sql, values) = statement(connection, query, pepper, limit)?;
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement
        .query_map(params_from_iter(values), |row| Ok((record(row, env)?, row.get::<_, i64>(ROW_ID)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // One more was asked for than the page holds, to know whether there is a next page.
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|(token, row)| cursor(query.sort, token, *row).encode());
    Ok(TokenPage { items: rows.into_iter().map(|(token, _)| token).collect(), next_cursor })
}

/// A condition that is a range of an index.
struct Range {
    index: &'static str,
    key: &'static str,
    comparison: &'static str,
    bound: Value,
    /// What else SQLite must read to take the index.
    also: &'static str,
}

impl Range {
    fn is_small(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let Self { index, key, comparison, bound, also } = self;
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM tokens INDEXED BY {index} WHERE {key} {comparison} ?1{also} LIMIT {FEW})"
        );
        let count: u32 = connection.prepare_cached(&sql)?.query_one([bound], |row| row.get(0))?;
        Ok(count < FEW)
    }

    /// The condition; the plus keeps SQLite from the range's index.
    fn condition(&self, is_walked: bool) -> String {
        let Self { key, comparison, also, .. } = self;
        if is_walked { format!("{key} {comparison} ?{also}") } else { format!("+{key} {comparison} ?") }
    }
}

fn ranges(query: &TokenQuery, is_any_pending: bool) -> Vec<Range> {
    let range = |index, key, comparison, at| {
        let bound = Value::Integer(seconds(at));
        Range { index, key, comparison, bound, also: "" }
    };
    let equal = |index, key, text: &str, also| {
        let bound = Value::Text(text.to_owned());
        Range { index, key, comparison: "=", bound, also }
    };
    let is_by_name = query.sort == SortKey::Name;
    let owner = query.owner.as_deref().filter(|_| !is_by_name);
    let owner = owner.map(|owner| equal("tokens_by_owner", "owner", owner, ""));
    let state = query.state.filter(|_| !is_by_name).and_then(|state| match state {
        StateFilter::Rotating => Some("rotating"),
        StateFilter::Disabled => Some("disabled"),
        StateFilter::Revoked if !is_any_pending => Some("revoked"),
        StateFilter::Active | StateFilter::Expired | StateFilter::Revoked => None,
    });
    let state = state.map(|state| equal("tokens_by_state", "state", state, " AND state <> 'active'"));
    let unused = query.times.unused_since.map(|since| range("tokens_by_activity", ACTIVITY, "<", since));
    let created = query.times.created_before.map(|before| range("tokens_by_created", "created", "<", before));
    let end = query.state.and_then(|state| match state {
        StateFilter::Active | StateFilter::Rotating | StateFilter::Disabled => Some(">"),
        StateFilter::Expired => Some("<="),
        StateFilter::Revoked => None,
    });
    let end = end.map(|comparison| range("tokens_by_expires", END, comparison, query.now));
    [owner, state, unused, created, end].into_iter().flatten().collect()
}

fn statement(
    connection: &Connection,
    query: &TokenQuery,
    pepper: Option<(String, Vec<Value>)>,
    limit: u32,
) -> Result<(String, Vec<Value>), Failure> {
    let key = key_expression(query.sort);
    let is_any_pending = query.state.is_some() && pending::is_any(connection)?;
    let ranges = ranges(query, is_any_pending);
    let mut walked = None;
    for (number, range) in ranges.iter().enumerate() {
        if range.is_small(connection)? {
            walked = Some(number);
            break;
        }
    }
    let mut conditions: Vec<String> =
        ranges.iter().enumerate().map(|(number, range)| range.condition(walked == Some(number))).collect();
    let mut values: Vec<Value> = ranges.iter().map(|range| range.bound.clone()).collect();
    if let Some(since) = query.times.unused_since
        && !usage::is_known_since(connection, since)?
    {
        conditions.push("FALSE".to_owned());
    }
    conditions.extend(query.state.map(|state| state_condition(state, query.sort, is_any_pending).to_owned()));
    if query.is_for_review {
        conditions.push("parent IS NULL AND canary = 0".to_owned());
    }
    if let Some(owner) = query.owner.as_ref().filter(|_| query.sort == SortKey::Name) {
        conditions.push("owner = ?".to_owned());
        values.push(Value::Text(owner.clone()));
    }
    if let Some((condition, ids)) = pepper {
        conditions.push(condition);
        values.extend(ids);
    }
    if let Some(text) = &query.cursor {
        let cursor = Cursor::decode(text, query.sort).ok_or(StoreError::BadCursor)?;
        let last = match cursor.key {
            CursorKey::Text(text) => Value::Text(text),
            CursorKey::Number(number) => Value::Integer(number),
        };
        // The first half says nothing new, but lets SQLite begin in the index of an expression, not before it.
        conditions.push(format!("{key} >= ? AND ({key}, id) > (?, ?)"));
        values.extend([last.clone(), last, Value::Integer(cursor.row)]);
    }
    let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let walk = walked.map_or(String::new(), |number| format!("INDEXED BY {}", ranges[number].index));
    values.push(Value::Integer(i64::from(limit) + 1));
    Ok((format!("SELECT {RECORD_COLUMNS} FROM tokens {walk} {PENDING} {filter} ORDER BY {key}, id LIMIT ?"), values))
}

fn key_expression(sort: SortKey) -> &'static str {
    match sort {
        SortKey::Name => "name",
        SortKey::Created => "created",
        SortKey::Expires => END,
        SortKey::LastUsed => ACTIVITY,
    }
}

/// What a state asks beside the ranges. The second half of some says nothing new, but SQLite takes a partial index only for a
/// query that repeats the index's own words.
fn state_condition(state: StateFilter, sort: SortKey, is_any_pending: bool) -> &'static str {
    match (state, sort) {
        (StateFilter::Active, _) => "state = 'active' AND token IS NULL",
        (StateFilter::Rotating, SortKey::Name) => "state = 'rotating' AND state <> 'active' AND token IS NULL",
        (StateFilter::Disabled, SortKey::Name) => "state = 'disabled' AND state <> 'active' AND token IS NULL",
        (StateFilter::Rotating | StateFilter::Disabled, _) => "token IS NULL",
        (StateFilter::Expired, _) => "state <> 'revoked' AND token IS NULL",
        // No index has both kinds. While there are the second ones, a page is in their midst and soon full.
        (StateFilter::Revoked, _) if is_any_pending => "(state = 'revoked' OR token IS NOT NULL)",
        (StateFilter::Revoked, SortKey::Name) => "state = 'revoked' AND state <> 'active'",
        (StateFilter::Revoked, _) => "TRUE",
    }
}

fn cursor(sort: SortKey, token: &TokenRecord, row: i64) -> Cursor {
    let key = match sort {
        SortKey::Name => CursorKey::Text(token.name.to_string()),
        SortKey::Created => CursorKey::Number(seconds(token.created)),
        SortKey::Expires => CursorKey::Number(token.expires.map_or(NEVER, seconds)),
        SortKey::LastUsed => CursorKey::Number(seconds(token.last_use.map_or(token.created, |last| last.at))),
    };
    Cursor { sort, row, key }
}

#[cfg(test)]
mod tests;
