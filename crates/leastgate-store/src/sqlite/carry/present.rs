//! What the present store says, and says last: read for the copy that is to replace it.
//!
//! Only what the first layout had is read of it, and where it has them its tombstones and the revocations that are not in its
//! rows yet, row by row and without its indexes: it may be older than this code, and it may be why somebody restores.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::stricter::list;
use crate::error::Failure;
use crate::restored::Restored;
use crate::sqlite::decode::text;
use crate::sqlite::purge::{TOMBSTONES, tombstone};
use crate::sqlite::{check, meta};

/// The present store's last word on each record.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Present {
    /// Revocations of many that are not in the rows yet, by row: reason, who asked for it and when.
    pending: HashMap<i64, [Value; 3]>,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) admins: HashMap<String, Admin>,
    /// What is left of those that were purged: whether it was revoked, when it was taken away, the digest's beginning, and
    /// until when it matters.
    pub(super) tombstones: HashMap<String, Buried>,
    /// Restores that it came from itself, and of which nobody has heard yet.
    pub(in crate::sqlite) restores: Vec<Restored>,
    /// Why there may be more.
    pub(in crate::sqlite) fault: Option<String>,
}

/// An administrator: when revoked, and all that was ever written of it.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) revoked: Option<i64>,
    pub(super) row: [Value; 6],
}

/// A token, as far as it can be taken away from.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) state: &'static str,
    pub(super) expires: Option<i64>,
    pub(super) successor: Option<String>,
    pub(super) roles: String,
    pub(super) grants: String,
    pub(super) source_ip: String,
    pub(super) not_before: Option<i64>,
    pub(super) rate: Option<i64>,
    pub(super) burst: Option<i64>,
    pub(super) concurrent: Option<i64>,
    pub(super) version: i64,
    /// The change of its state, its reason, who asked for it and when.
    pub(super) change: [Value; 4],
}

/// A row of the tombstones, as it is.
#[derive(Debug)]
pub(super) struct Buried {
    pub(super) is_revoked: bool,
    pub(super) at: i64,
    pub(super) digest_key: [u8; 8],
    pub(super) until: Option<i64>,
}

/// The columns [`token`] reads after the accessor, in its order; the first layout has them all.
pub(super) const COLUMNS: &str =
    "state, expires, successor, roles, grants, source_ip, not_before, rate, burst, concurrent, version,
    change, change_reason, change_by, change_at";

/// Where the row's own id is, if it is asked for behind them.
const ROW_ID: usize = 16;

pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let known = ["active", "rotating", "disabled"].into_iter().find(|known| text(row, 1) == Ok(known));
    Ok(Token {
        // What is no state lets nobody in.
        state: known.unwrap_or("revoked"),
        expires: row.get(2)?,
        successor: row.get(3)?,
        roles: row.get(4)?,
        grants: row.get(5)?,
        source_ip: row.get(6)?,
        not_before: row.get(7)?,
        rate: row.get(8)?,
        burst: row.get(9)?,
        concurrent: row.get(10)?,
        version: row.get(11)?,
        change: [row.get(12)?, row.get(13)?, row.get(14)?, row.get(15)?],
    })
}

impl Present {
    /// Reads what it can.
    pub(in crate::sqlite) fn read(connection: &Connection) -> Self {
        let mut present = Self::default();
        let steps =
            [Self::read_pending, Self::read_tokens, Self::read_admins, Self::read_tombstones, Self::look_for_damage];
        for read in steps {
            if let Err(Failure::Sqlite(error)) = read(&mut present, connection) {
                present.note(error.to_string());
            }
        }
        present.restores = meta::restores(connection).unwrap_or_default();
        present
    }

    fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// A store that can't even be opened.
    pub(in crate::sqlite) fn unreadable(why: String) -> Self {
        Self { fault: Some(why), ..Self::default() }
    }

    /// Older layouts have none.
    fn read_pending(&mut self, connection: &Connection) -> Result<(), Failure> {
        if !connection.table_exists(None, "pending_revocations")? {
            return Ok(());
        }
        let mut statement = connection.prepare(
            "SELECT token, coalesce(bulk_reason, ''), coalesce(bulk_by, ''), coalesce(bulk_at, 0)
             FROM pending_revocations LEFT JOIN bulk_revocations ON bulk_revocations.bulk = pending_revocations.bulk",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.pending.insert(row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]);
        }
        Ok(())
    }

    fn read_tokens(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut statement = connection.prepare(&format!("SELECT accessor, {COLUMNS}, id FROM tokens NOT INDEXED"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match text(row, 0).and_then(|accessor| Ok((accessor.to_owned(), self.token(row)?))) {
                Ok((accessor, token)) => {
                    if list(&token.roles).is_none() || list(&token.grants).is_none() {
                        self.note(format!("the roles or grants of {accessor} do not decode"));
                    }
                    self.tokens.insert(accessor, token);
                }
                Err(error) => self.note(error.to_string()),
            }
        }
        Ok(())
    }

    fn token(&self, row: &Row<'_>) -> rusqlite::Result<Token> {
        let kept = token(row)?;
        Ok(match self.pending.get(&row.get(ROW_ID)?) {
            Some([reason, by, at]) => Token {
                state: "revoked",
                version: kept.version.saturating_add(1),
                change: [Value::Text("revoke".to_owned()), reason.clone(), by.clone(), at.clone()],
                ..kept
            },
            None => kept,
        })
    }

    fn read_admins(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut statement = connection.prepare(
            "SELECT id, revoked, digest, name, role, may_grant, created, created_by FROM admins NOT INDEXED",
        )?;
        let admin = |row: &Row<'_>| {
            let row_of = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
            Ok((text(row, 0)?.to_owned(), Admin { revoked: row.get(1)?, row: row_of }))
        };
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read: rusqlite::Result<_> = admin(row);
            match read {
                Ok((id, admin)) => drop(self.admins.insert(id, admin)),
                Err(error) => self.note(error.to_string()),
            }
        }
        Ok(())
    }

    /// Older layouts have none.
    fn read_tombstones(&mut self, connection: &Connection) -> Result<(), Failure> {
        if !connection.table_exists(None, "tombstones")? {
            return Ok(());
        }
        let mut statement = connection.prepare(&format!("{TOMBSTONES} NOT INDEXED"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read = tombstone(row).and_then(|read| {
                let (is_revoked, at, digest_key, until) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((read.accessor.to_string(), Buried { is_revoked, at, digest_key, until }))
            });
            match read {
                Ok((accessor, buried)) => drop(self.tombstones.insert(accessor, buried)),
                Err(error) => self.note(error.to_string()),
            }
        }
        Ok(())
    }

    /// Rows can be missing without an error: a page that no other page leads to any more.
    fn look_for_damage(&mut self, connection: &Connection) -> Result<(), Failure> {
        for table in ["tokens", "admins", "tombstones", "pending_revocations", "bulk_revocations"] {
            if !connection.table_exists(None, table)? {
                continue;
            }
            let found = check::integrity(connection, &format!("integrity_check('{table}')"))?;
            found.into_iter().for_each(|line| self.note(line));
        }
        Ok(())
    }
}
