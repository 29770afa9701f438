//! What the present store says, and says last: read for the copy that is to replace it.
//!
//! Only what the first layout had is read of it, and where it has them its tombstones, the revocations that are not in
//! its rows yet and what was used, row by row and without its indexes: it may be older than this code, and it may be
//! why somebody restores. What does not decode is damage, is told, and never gets into the copy: whose record it is is
//! taken as revoked.

use std::collections::HashMap;
use std::path::Path;

use leastgate_policy::{Accessor, Restrictions, Timestamp, TokenDigest, TokenLimits, TokenState};
use rusqlite::{Connection, Row};

use crate::admin::AdminRecord;
use crate::error::Failure;
use crate::record::{Change, StateChange, TokenGrant};
use crate::restored::Restored;
use crate::sqlite::decode::{
    digest, grants, limits, list, number, optional, optional_time, parsed, restrictions, state, state_change, time,
};
use crate::sqlite::purge::{TOMBSTONES, tombstone};
use crate::sqlite::{admins, check, meta, objects};

/// The present store's last word on each record.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Present {
    /// What it is read with; `None`: it can't be.
    pub(super) connection: Option<Connection>,
    /// Revocations of many that are not in the rows yet, by row; `None`: one that does not decode.
    pending: HashMap<i64, Option<StateChange>>,
    pub(super) tokens: HashMap<Accessor, Token>,
    /// Tokens of which something does not decode, and the version they had, if that does.
    pub(super) damaged: HashMap<Accessor, u64>,
    /// The tombstones of those tokens that were taken away and are not purged, for a store that does not know them.
    pub(super) graves: HashMap<Accessor, Buried>,
    pub(super) admins: HashMap<Accessor, Admin>,
    /// What is left of those that were purged.
    pub(super) tombstones: HashMap<Accessor, Buried>,
    /// Restores that it came from itself, and of which nobody has heard yet.
    pub(in crate::sqlite) restores: Vec<Restored>,
    /// Whether it says when a token was used last.
    pub(super) knows_uses: bool,
    /// Since when it knows itself what was used, if not since ever.
    pub(in crate::sqlite) use_known_since: Option<Timestamp>,
    /// Why there may be more.
    pub(in crate::sqlite) fault: Option<String>,
}

/// An administrator.
#[derive(Debug)]
pub(super) enum Admin {
    Known(AdminRecord),
    /// Something of it does not decode; this is its digest, if that does.
    Damaged(Option<TokenDigest>),
}

/// A token, as far as it can be taken away from.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) state: TokenState,
    pub(super) expires: Option<Timestamp>,
    pub(super) successor: Option<Accessor>,
    pub(super) roles: Vec<String>,
    pub(super) grants: Vec<TokenGrant>,
    pub(super) restrictions: Restrictions,
    pub(super) limits: TokenLimits,
    pub(super) version: u64,
    pub(super) change: Option<StateChange>,
}

/// A tombstone.
#[derive(Debug)]
pub(super) struct Buried {
    pub(super) is_revoked: bool,
    pub(super) at: Timestamp,
    /// What its digest begins with.
    pub(super) digest_key: [u8; 8],
    pub(super) until: Option<Timestamp>,
}

/// Those that are read.
const TABLES: [&str; 7] =
    ["tokens", "admins", "tombstones", "pending_revocations", "bulk_revocations", "rules", "usage"];

/// The columns [`token`] reads after the accessor, in its order; the first layout has them all.
pub(super) const COLUMNS: &str =
    "state, expires, successor, roles, grants, source_ip, not_before, rate, burst, concurrent, version,
    change, change_reason, change_by, change_at";

/// Where they have the version.
const VERSION: usize = 11;
/// Where the row's own id is, if it is asked for behind them.
const ROW_ID: usize = 16;

pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        state: state(row, 1)?,
        expires: optional_time(row, 2)?,
        successor: optional(row, 3)?,
        roles: list(row, 4)?,
        grants: grants(row, 5)?,
        restrictions: restrictions(row, 6, 7)?,
        limits: limits(row, 8)?,
        version: number(row, VERSION)?,
        change: state_change(row, 12)?,
    })
}

fn buried(row: &Row<'_>) -> rusqlite::Result<(Accessor, Buried)> {
    let accessor = tombstone(row)?.accessor;
    let (is_revoked, at) = (row.get(1)?, time(row, 2)?);
    Ok((accessor, Buried { is_revoked, at, digest_key: row.get(3)?, until: optional_time(row, 4)? }))
}

/// The tombstone of a token that was taken away; of one that does not decode as of a revoked one. What is disabled could not be
/// enabled without its record.
fn grave(row: &Row<'_>, token: Option<&Token>) -> rusqlite::Result<Option<Buried>> {
    let (is_revoked, at, end) = match token {
        None => (true, Timestamp(0), None),
        Some(Token { state: TokenState::Revoked | TokenState::Disabled, change, expires, .. }) => {
            (true, change.as_ref().map_or(Timestamp(0), |change| change.at), *expires)
        }
        Some(Token { expires: Some(end), .. }) if row.get(ROW_ID + 2)? => (false, *end, None),
        Some(_) => return Ok(None),
    };
    let mut digest_key = [0; 8];
    digest_key.copy_from_slice(&digest(row, ROW_ID + 1)?.as_bytes()[..8]);
    // What stands in for another token is not looked for behind its end.
    let until = end.filter(|_| row.get(ROW_ID + 3) == Ok(true));
    Ok(Some(Buried { is_revoked, at, digest_key, until }))
}

impl Present {
    /// Reads what it can.
    pub(in crate::sqlite) fn read(connection: Connection, path: &Path) -> Self {
        let mut present = Self::default();
        let steps = [
            Self::read_pending,
            Self::read_tokens,
            Self::read_admins,
            Self::read_tombstones,
            Self::look_for_owner,
            Self::look_for_unknown,
            Self::look_at_uses,
            Self::look_for_damage,
        ];
        for read in steps {
            if let Err(failure) = read(&mut present, &connection) {
                present.note(failure.at(path).to_string());
            }
        }
        present.restores = meta::restores(&connection).unwrap_or_default();
        present.connection = Some(connection);
        present
    }

    /// A store that can't even be opened.
    pub(in crate::sqlite) fn unreadable(why: String) -> Self {
        Self { fault: Some(why), ..Self::default() }
    }

    /// Whether it holds no record of anybody, and all of it was read.
    pub(in crate::sqlite) fn is_empty(&self) -> bool {
        let is_nobody_known = self.tokens.is_empty() && self.damaged.is_empty() && self.admins.is_empty();
        is_nobody_known && self.tombstones.is_empty() && self.fault.is_none()
    }

    pub(super) fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Older layouts have none.
    fn read_pending(&mut self, connection: &Connection) -> Result<(), Failure> {
        if !connection.table_exists(None, "pending_revocations")? {
            return Ok(());
        }
        let mut statement = connection.prepare(
            "SELECT token, bulk_reason, bulk_by, bulk_at
             FROM pending_revocations LEFT JOIN bulk_revocations ON bulk_revocations.bulk = pending_revocations.bulk",
        )?;
        let listed = |row: &Row<'_>| {
            let (reason, by, at) = (row.get(1)?, row.get(2)?, time(row, 3)?);
            Ok(StateChange { change: Change::Revoke, reason, by, at })
        };
        let columns = check::columns(&statement);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read: rusqlite::Result<_> = listed(row);
            if let Err(error) = &read {
                self.note(format!("a revocation of many: {}", check::told(error, &columns)));
            }
            self.pending.insert(row.get(0)?, read.ok());
        }
        Ok(())
    }

    fn read_tokens(&mut self, connection: &Connection) -> Result<(), Failure> {
        // Older layouts say neither.
        let has = |column, or| connection.column_exists(None, "tokens", column).map(|is| if is { column } else { or });
        let (shortened, parent) = (has("shortened", "successor IS NOT NULL")?, has("parent", "NULL")?);
        let read = format!(
            "SELECT accessor, {COLUMNS}, id, digest, {shortened}, {parent} IS NOT NULL FROM tokens NOT INDEXED"
        );
        let mut statement = connection.prepare(&read)?;
        let columns = check::columns(&statement);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let accessor: Accessor = match parsed(row, 0) {
                Ok(accessor) => accessor,
                Err(error) => {
                    self.note(format!("{}: {}", check::called("token", row, ROW_ID), check::told(&error, &columns)));
                    continue;
                }
            };
            let kept = self.token(row, &columns)?;
            match grave(row, kept.as_ref()) {
                Ok(grave) => self.graves.extend(grave.map(|grave| (accessor, grave))),
                Err(error) => self.note(format!("token {accessor}: {}", check::told(&error, &columns))),
            }
            let Some(kept) = kept else {
                self.damaged.insert(accessor, number(row, VERSION).unwrap_or(0));
                continue;
            };
            if self.tokens.insert(accessor, kept).is_some() {
                self.note(format!("token {accessor}: it is there twice"));
                self.damaged.insert(accessor, 0);
            }
        }
        Ok(())
    }

    /// `None`: something of it does not decode.
    fn token(&mut self, row: &Row<'_>, columns: &[String]) -> Result<Option<Token>, Failure> {
        let kept = match token(row) {
            Ok(kept) => kept,
            Err(error) => {
                self.note(format!("{}: {}", check::called("token", row, ROW_ID), check::told(&error, columns)));
                return Ok(None);
            }
        };
        Ok(match self.pending.get(&row.get(ROW_ID)?) {
            None => Some(kept),
            Some(None) => None,
            Some(Some(change)) => Some(Token {
                state: TokenState::Revoked,
                version: kept.version.saturating_add(1),
                change: Some(change.clone()),
                ..kept
            }),
        })
    }

    fn read_admins(&mut self, connection: &Connection) -> Result<(), Failure> {
        // Older layouts do not say under which pepper.
        let is_known = connection.column_exists(None, "admins", "pepper_id")?;
        let columns = if is_known { admins::COLUMNS.to_owned() } else { admins::COLUMNS.replace("pepper_id", "''") };
        let mut statement = connection.prepare(&format!("SELECT {columns} FROM admins NOT INDEXED"))?;
        let columns = check::columns(&statement);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read = admins::record(row);
            if let Err(error) = &read {
                self.note(format!("{}: {}", check::called("admin", row, 0), check::told(error, &columns)));
            }
            let Ok(id) = parsed(row, 0) else { continue };
            self.admins.insert(id, read.map_or_else(|_| Admin::Damaged(digest(row, 1).ok()), Admin::Known));
        }
        Ok(())
    }

    /// Older layouts have none.
    fn read_tombstones(&mut self, connection: &Connection) -> Result<(), Failure> {
        if !connection.table_exists(None, "tombstones")? {
            return Ok(());
        }
        let mut statement = connection.prepare(&format!("{TOMBSTONES} NOT INDEXED"))?;
        let columns = check::columns(&statement);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match buried(row) {
                Ok((accessor, buried)) => drop(self.tombstones.insert(accessor, buried)),
                Err(error) => {
                    self.note(format!("{}: {}", check::called("tombstone of", row, 0), check::told(&error, &columns)));
                    // Who has one was taken away, whatever else it says.
                    self.damaged.extend(parsed(row, 0).ok().map(|accessor: Accessor| (accessor, 0)));
                }
            }
        }
        Ok(())
    }

    /// Who put it there may have changed what was taken away.
    fn look_for_unknown(&mut self, connection: &Connection) -> Result<(), Failure> {
        if let Some((kind, name)) = objects::unknown(connection)? {
            self.note(format!("it has the {kind} `{name}`, which leastgate did not make"));
        }
        Ok(())
    }

    /// Under which pepper its digests were made does not matter: accessors stay what they are.
    fn look_for_owner(&mut self, connection: &Connection) -> Result<(), Failure> {
        if meta::environment(connection)?.is_none() && !self.is_empty() {
            self.note("it does not say of which environment it is".to_owned());
        }
        Ok(())
    }

    /// Rows can be missing without an error: a page that no other page leads to any more.
    fn look_for_damage(&mut self, connection: &Connection) -> Result<(), Failure> {
        for table in TABLES {
            if !connection.table_exists(None, table)? {
                continue;
            }
            let found = check::integrity(connection, &format!("integrity_check('{table}')"))?;
            found.into_iter().for_each(|line| self.note(line));
        }
        Ok(())
    }
}
