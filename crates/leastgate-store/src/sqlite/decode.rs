//! Rows ↔ records. What does not decode is damage, because only this code writes the file.

use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

use leastgate_policy::{Restrictions, Timestamp, TokenDigest, TokenEntry, TokenLimits, TokenState};
use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::{Change, LastUse, StateChange, TokenGrant, TokenName, TokenRecord};

/// The columns [`record`] reads, in its order, from `tokens` with what is [`PENDING`](super::pending::PENDING).
pub(super) const RECORD_COLUMNS: &str = "accessor, digest, name, owner, roles, grants, source_ip, not_before, rate, burst, \
    concurrent, created, created_by, expires, iif(token IS NULL, state, 'revoked') AS state, \
    iif(token IS NULL, change, 'revoke') AS change, iif(token IS NULL, change_reason, bulk_reason) AS change_reason, \
    iif(token IS NULL, change_by, bulk_by) AS change_by, iif(token IS NULL, change_at, bulk_at) AS change_at, pepper_id, \
    successor, note, version + (token IS NOT NULL) AS version, parent, canary, last_used, last_source, id";

/// Where [`RECORD_COLUMNS`] has the row's own id.
pub(super) const ROW_ID: usize = 27;

/// A whole record; `env` is the store's.
pub(super) fn record(row: &Row<'_>, env: &str) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        accessor: parsed(row, 0)?,
        digest: digest(row, 1)?,
        name: name(row, 2)?,
        env: env.to_owned(),
        owner: row.get(3)?,
        roles: list(row, 4)?,
        grants: grants(row, 5)?,
        restrictions: restrictions(row, 6, 7)?,
        limits: limits(row, 8)?,
        created: time(row, 11)?,
        created_by: row.get(12)?,
        expires: optional_time(row, 13)?,
        state: state(row, 14)?,
        state_changed: state_change(row, 15)?,
        pepper_id: row.get(19)?,
        successor: optional(row, 20)?,
        note: row.get(21)?,
        version: number(row, 22)?,
        parent: optional(row, 23)?,
        is_canary: row.get(24)?,
        last_use: last_use(row, 25)?,
    })
}

/// Three columns: rate, burst, concurrent.
pub(super) fn limits(row: &Row<'_>, first: usize) -> rusqlite::Result<TokenLimits> {
    Ok(TokenLimits { rate: row.get(first)?, burst: row.get(first + 1)?, concurrent: row.get(first + 2)? })
}

/// Two columns: when, and from where.
pub(super) fn last_use(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<LastUse>> {
    let Some(at) = optional_time(row, first)? else { return Ok(None) };
    Ok(Some(LastUse { at, source: optional(row, first + 1)? }))
}

/// Four columns: which, why, by whom and when; nothing where there was none.
pub(super) fn state_change(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<StateChange>> {
    let Some(change) = optional_text(row, first)? else {
        return Ok(None);
    };
    let change = match change {
        "revoke" => Change::Revoke,
        "disable" => Change::Disable,
        "enable" => Change::Enable,
        _ => return Err(broken(first, "an unknown change of state")),
    };
    Ok(Some(StateChange { change, reason: row.get(first + 1)?, by: row.get(first + 2)?, at: time(row, first + 3)? }))
}

/// How a change of state is written.
pub(super) fn change_name(change: Change) -> &'static str {
    match change {
        Change::Revoke => "revoke",
        Change::Disable => "disable",
        Change::Enable => "enable",
    }
}

/// The columns [`Entries::entry`] reads, in its order, from `tokens` with what is [`PENDING`](super::pending::PENDING).
pub(super) const ENTRY_COLUMNS: &str = "accessor, digest, name, owner, roles, grants, source_ip, not_before, expires, \
    iif(token IS NULL, state, 'revoked') AS state, canary, rate, burst, concurrent";

/// Turns rows into table entries, a million at a start: what many rows share is parsed once and shared.
#[derive(Default)]
pub(super) struct Entries {
    names: HashMap<Box<str>, Arc<str>>,
    roles: HashMap<Box<str>, Vec<Arc<str>>>,
}

/// Most distinct texts that are remembered: a store where every token has its own gains nothing from more.
const REMEMBERED: usize = 65_536;

impl Entries {
    pub(super) fn entry(&mut self, row: &Row<'_>) -> rusqlite::Result<TokenEntry> {
        Ok(TokenEntry {
            accessor: parsed(row, 0)?,
            digest: digest(row, 1)?,
            name: text(row, 2)?.into(),
            owner: optional_text(row, 3)?.map(|owner| self.intern(owner)),
            roles: self.roles(row, 4)?,
            grants: self.grants(row, 5)?,
            restrictions: restrictions(row, 6, 7)?,
            limits: limits(row, 11)?,
            expires: optional_time(row, 8)?,
            state: state(row, 9)?,
            is_canary: row.get(10)?,
        })
    }

    fn roles(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Arc<str>>> {
        let json = text(row, column)?;
        if let Some(known) = self.roles.get(json) {
            return Ok(known.clone());
        }
        let roles: Vec<_> = list::<String>(row, column)?.iter().map(|role| self.intern(role)).collect();
        if self.roles.len() < REMEMBERED {
            self.roles.insert(json.into(), roles.clone());
        }
        Ok(roles)
    }

    fn grants(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<(Arc<str>, Option<Timestamp>)>> {
        let grants = list::<GrantText>(row, column)?;
        Ok(grants.into_iter().map(|grant| (self.intern(&grant.scope), grant.expires.map(Timestamp))).collect())
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        if self.names.len() < REMEMBERED {
            self.names.insert(name.into(), Arc::clone(&shared));
        }
        shared
    }
}

/// A grant as JSON in its column.
#[derive(Serialize, Deserialize)]
pub(super) struct GrantText {
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<GrantText> for TokenGrant {
    fn from(text: GrantText) -> Self {
        Self { scope: text.scope, expires: text.expires.map(Timestamp), reason: text.reason }
    }
}

impl From<&TokenGrant> for GrantText {
    fn from(grant: &TokenGrant) -> Self {
        Self { scope: grant.scope.clone(), expires: grant.expires.map(|at| at.0), reason: grant.reason.clone() }
    }
}

/// A list as its column has it: JSON, or nothing for none.
pub(super) fn list_text<T: Serialize>(items: &[T]) -> rusqlite::Result<String> {
    if items.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(items).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn grants_text(grants: &[TokenGrant]) -> rusqlite::Result<String> {
    list_text(&grants.iter().map(GrantText::from).collect::<Vec<_>>())
}

pub(super) fn networks_text(restrictions: &Restrictions) -> rusqlite::Result<String> {
    list_text(&restrictions.source_ip.iter().map(ToString::to_string).collect::<Vec<_>>())
}

pub(super) fn grants(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<TokenGrant>> {
    Ok(list::<GrantText>(row, column)?.into_iter().map(TokenGrant::from).collect())
}

pub(super) fn list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<T>> {
    match text(row, column)? {
        "" => Ok(Vec::new()),
        json => serde_json::from_str(json).map_err(|error| broken(column, error)),
    }
}

pub(super) fn restrictions(row: &Row<'_>, networks: usize, not_before: usize) -> rusqlite::Result<Restrictions> {
    let source_ip = list::<String>(row, networks)?
        .iter()
        .map(|network| network.parse().map_err(|error: ipnet::AddrParseError| broken(networks, error)))
        .collect::<rusqlite::Result<_>>()?;
    Ok(Restrictions { source_ip, not_before: optional_time(row, not_before)? })
}

pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenState> {
    TokenState::from_name(text(row, column)?).ok_or_else(|| broken(column, "an unknown state"))
}

pub(super) fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenName> {
    TokenName::parse(text(row, column)?).map_err(|error| broken(column, error))
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenDigest> {
    row.get(column).map(TokenDigest::from_bytes)
}

/// A value that is kept as its text.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text(row, column)?.parse().map_err(|error: T::Err| broken(column, error))
}

/// The same, where there may be none.
pub(super) fn optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    optional_text(row, column)?.map(|_| parsed(row, column)).transpose()
}

pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    row.get_ref(column)?.as_str().map_err(|error| broken(column, error))
}

fn optional_text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Option<&'a str>> {
    row.get_ref(column)?.as_str_or_null().map_err(|error| broken(column, error))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    number(row, column).map(Timestamp)
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(column)? {
        None => Ok(None),
        Some(_) => time(row, column).map(Some),
    }
}

pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A moment as its column has it. SQLite counts to 2^63 - 1 seconds, which is as good as never.
pub(super) fn seconds(at: Timestamp) -> i64 {
    integer(at.0)
}

/// A count as its column has it.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn broken(column: usize, error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
