//! Which pepper a record's digest was made with: records of the previous one found, counted, and moved to the current one.

use leastgate_policy::{EnvironmentKey, Straggler, StragglerKind, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};

use super::decode::seconds;
use super::pending::NOT_PENDING;
use super::tokens::is_unique_violation;
use crate::draw::pepper_id;
use crate::error::Failure;
use crate::pepper::{MadeUnder, Redigested, StragglerCounts};

/// The peppers that are configured, by what records call them.
#[derive(Clone, Debug)]
pub(super) struct Peppers {
    current: String,
    previous: Option<String>,
}

/// As many tokens of a pepper are sorted for a page rather than met on a walk in the order of the list.
const FEW: i64 = 20_000;

impl Peppers {
    pub(super) fn of(key: &EnvironmentKey) -> Self {
        Self { current: pepper_id(key), previous: key.previous().as_ref().map(pepper_id) }
    }

    /// The condition that a token's digest was made under that pepper, and its values.
    pub(super) fn condition(
        &self,
        connection: &Connection,
        under: MadeUnder,
    ) -> rusqlite::Result<(String, Vec<Value>)> {
        let ids = match under {
            MadeUnder::Current => vec![self.current.clone()],
            MadeUnder::Previous => self.previous.iter().cloned().collect(),
            MadeUnder::Unknown => self.unknown(connection, "tokens")?,
        };
        let places = vec!["?"; ids.len()].join(", ");
        // A `+` keeps SQLite from the index, which would have it sort a million tokens for each page.
        let few = if is_few(connection, &ids)? { "" } else { "+" };
        Ok((format!("{few}pepper_id IN ({places})"), ids.into_iter().map(Value::Text).collect()))
    }

    /// The peppers that records name and that are not configured.
    fn unknown(&self, connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
        // From one to the next in the index: there are a handful of them, and a million records.
        let mut statement = connection.prepare_cached(&format!(
            "WITH RECURSIVE found (pepper) AS (
                 SELECT min(pepper_id) FROM {table}
                 UNION
                 SELECT (SELECT min(pepper_id) FROM {table} WHERE pepper_id > found.pepper) FROM found)
             SELECT pepper FROM found WHERE pepper IS NOT NULL"
        ))?;
        let all = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(all.into_iter().filter(|id| *id != self.current && Some(id) != self.previous.as_ref()).collect())
    }

    pub(super) fn count(&self, connection: &Connection, now: Timestamp) -> Result<StragglerCounts, Failure> {
        let previous: Vec<String> = self.previous.iter().cloned().collect();
        let (tokens, admins) = (self.unknown(connection, "tokens")?, self.unknown(connection, "admins")?);
        Ok(StragglerCounts {
            tokens: count_tokens(connection, &previous, now)?,
            admins: count_admins(connection, &previous)?,
            unknown_tokens: count_tokens(connection, &tokens, now)?,
            unknown_admins: count_admins(connection, &admins)?,
        })
    }

    pub(super) fn redigest(
        &self,
        connection: &Connection,
        stragglers: &[Straggler],
    ) -> Result<Vec<Redigested>, Failure> {
        stragglers.iter().map(|straggler| self.redigest_one(connection, straggler)).collect()
    }

    /// Only while it still has the digest it was found by: who has another one by now has been changed since.
    fn redigest_one(&self, connection: &Connection, straggler: &Straggler) -> Result<Redigested, Failure> {
        let (table, id) = match straggler.kind {
            StragglerKind::Token => ("tokens", "accessor"),
            StragglerKind::Admin => ("admins", "id"),
        };
        let accessor = straggler.accessor.to_string();
        let changed = connection
            .prepare_cached(&format!("UPDATE {table} SET digest = ?3, pepper_id = ?4 WHERE {id} = ?1 AND digest = ?2"))?
            .execute((&accessor, straggler.previous.as_bytes(), straggler.current.as_bytes(), &self.current));
        match changed {
            Err(error) if is_unique_violation(&error) => return Ok(Redigested::Collides),
            Err(error) => return Err(error.into()),
            Ok(0) => {}
            Ok(_) => return Ok(Redigested::Done),
        }
        let is_done = connection
            .prepare_cached(&format!("SELECT 1 FROM {table} WHERE {id} = ?1 AND digest = ?2"))?
            .query_one((&accessor, straggler.current.as_bytes()), |_| Ok(()))
            .optional()?;
        Ok(if is_done.is_some() { Redigested::Done } else { Redigested::Gone })
    }
}

fn is_few(connection: &Connection, ids: &[String]) -> rusqlite::Result<bool> {
    let mut left = FEW;
    for id in ids {
        let mut statement =
            connection.prepare_cached("SELECT count(*) FROM (SELECT 1 FROM tokens WHERE pepper_id = ?1 LIMIT ?2)")?;
        left -= statement.query_one((id, left), |row| row.get::<_, i64>(0))?;
        if left <= 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The living: what is revoked or past its end is refused under any pepper.
fn count_tokens(connection: &Connection, ids: &[String], now: Timestamp) -> rusqlite::Result<u64> {
    let mut count = connection.prepare_cached(&format!(
        "SELECT count(*) FROM tokens
         WHERE pepper_id = ?1 AND state <> 'revoked' AND (expires IS NULL OR expires > ?2) AND {NOT_PENDING}"
    ))?;
    let mut all = 0;
    for id in ids {
        all += count.query_one((id, seconds(now)), |row| row.get::<_, i64>(0))?.unsigned_abs();
    }
    Ok(all)
}

fn count_admins(connection: &Connection, ids: &[String]) -> rusqlite::Result<u64> {
    let mut count =
        connection.prepare_cached("SELECT count(*) FROM admins WHERE pepper_id = ?1 AND revoked IS NULL")?;
    let mut all = 0;
    for id in ids {
        all += count.query_one([id], |row| row.get::<_, i64>(0))?.unsigned_abs();
    }
    Ok(all)
}
