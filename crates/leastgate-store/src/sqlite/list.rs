//! Listing tokens: one statement, put together from fixed pieces; every value is bound.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::decode::{RECORD_COLUMNS, ROW_ID, record, seconds};
use crate::error::{Failure, StoreError};
use crate::query::{Cursor, CursorKey, MAX_PAGE, SortKey, StateFilter, TokenPage, TokenQuery};
use crate::record::TokenRecord;

/// What a token without an end sorts by, as in the index.
const NEVER: i64 = i64::MAX;

pub(super) fn list(connection: &Connection, env: &str, query: &TokenQuery) -> Result<TokenPage, Failure> {
    let limit = query.limit.clamp(1, MAX_PAGE);
    let (sql, values) = statement(query, limit)?;
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

fn statement(query: &TokenQuery, limit: u32) -> Result<(String, Vec<Value>), StoreError> {
    let key = key_expression(query.sort);
    let mut conditions = vec![];
    let mut values = vec![];
    if let Some(state) = query.state {
        let (condition, needs_now) = state_condition(state);
        conditions.push(condition.to_owned());
        values.extend(needs_now.then(|| Value::Integer(seconds(query.now))));
    }
    if let Some(owner) = &query.owner {
        conditions.push("owner = ?".to_owned());
        values.push(Value::Text(owner.clone()));
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
    values.push(Value::Integer(i64::from(limit) + 1));
    Ok((format!("SELECT {RECORD_COLUMNS} FROM tokens {filter} ORDER BY {key}, id LIMIT ?"), values))
}

fn key_expression(sort: SortKey) -> &'static str {
    match sort {
        SortKey::Name => "name",
        SortKey::Created => "created",
        SortKey::Expires => "coalesce(expires, 9223372036854775807)",
    }
}

/// The condition, and whether it has the time in it.
fn state_condition(state: StateFilter) -> (&'static str, bool) {
    match state {
        StateFilter::Active => ("state = 'active' AND (expires IS NULL OR expires > ?)", true),
        StateFilter::Rotating => ("state = 'rotating' AND (expires IS NULL OR expires > ?)", true),
        StateFilter::Disabled => ("state = 'disabled' AND (expires IS NULL OR expires > ?)", true),
        StateFilter::Expired => ("state <> 'revoked' AND expires <= ?", true),
        StateFilter::Revoked => ("state = 'revoked'", false),
    }
}

fn cursor(sort: SortKey, token: &TokenRecord, row: i64) -> Cursor {
    let key = match sort {
        SortKey::Name => CursorKey::Text(token.name.to_string()),
        SortKey::Created => CursorKey::Number(seconds(token.created)),
        SortKey::Expires => CursorKey::Number(token.expires.map_or(NEVER, seconds)),
    };
    Cursor { sort, row, key }
}
