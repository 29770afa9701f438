//! What was taken away since a backup stays taken away: from the present store into the copy that replaces it.
//!
//! Only what the first layout had is read of the present store, and where it has them its tombstones and the revocations that
//! are not in its rows yet, row by row and without its indexes: it may be older than this code, and it may be why somebody
//! restores.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::decode::text;
use super::meta;
use super::pending;
use super::purge::{TOMBSTONES, tombstone};
use crate::error::Failure;
use crate::restored::Restored;

/// Why a token is revoked whose own reason is gone with its record.
const PURGED: &str = "revoked since the backup, and purged since then";

/// Most accessors that are named.
const NAMED: usize = 20;

/// What the restore does to access, beside bringing the backup back. Unless revocations were to be forgotten, it has
/// been done to the copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Tokens that were revoked since.
    pub revoked: u64,
    /// Tokens that were disabled since.
    pub disabled: u64,
    /// Tokens that were rotated away since: their grace ends when it did.
    pub rotated: u64,
    /// Tokens whose end was moved nearer since, rotated ones among them.
    pub shortened: u64,
    /// Tokens whose roles, scopes, networks, times or limits were narrowed since.
    pub narrowed: u64,
    /// Administrators that were revoked since.
    pub revoked_admins: u64,
    /// Tokens made since, not revoked: they are gone.
    pub lost: u64,
    /// Administrators made since, not revoked: they are gone.
    pub lost_admins: u64,
    /// Living tokens of the backup that the present store does not know: purged since by a release that left no tombstones, or
    /// of another store.
    /// Nobody can tell, and they live.
    pub unknown: u64,
    /// The accessors of the first of them.
    pub unknown_accessors: Vec<String>,
    /// The same of administrators.
    pub unknown_admins: u64,
    /// Whether all of the present store could be read.
    pub is_complete: bool,
}

impl Carried {
    /// How many tokens and administrators were taken away from since; one may count twice.
    #[must_use]
    pub fn taken(&self) -> u64 {
        let Self { revoked, disabled, rotated, shortened, narrowed, revoked_admins, .. } = self;
        revoked + disabled + rotated + shortened + narrowed + revoked_admins
    }
}

/// The present store's last word on each record.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Revocations of many that are not in the rows yet, by row: reason, who asked for it and when.
    pending: HashMap<i64, [Value; 3]>,
    tokens: HashMap<String, Token>,
    admins: HashMap<String, Admin>,
    /// What is left of those that were purged: whether it was revoked, when it was taken away, the digest's beginning, and
    /// until when it matters.
    tombstones: HashMap<String, Buried>,
    /// Restores that it came from itself, and of which nobody has heard yet.
    pub(super) restores: Vec<Restored>,
    /// Why there may be more.
    pub(super) fault: Option<String>,
}

/// An administrator: when revoked, and all that was ever written of it.
#[derive(Debug)]
struct Admin {
    revoked: Option<i64>,
    row: [Value; 6],
}

/// A token, as far as it can be taken away from.
#[derive(Debug)]
struct Token {
    state: &'static str,
    expires: Option<i64>,
    successor: Option<String>,
    roles: String,
    grants: String,
    source_ip: String,
    not_before: Option<i64>,
    rate: Option<i64>,
    burst: Option<i64>,
    concurrent: Option<i64>,
    version: i64,
    /// The change of its state, its reason, who asked for it and when.
    change: [Value; 4],
}

/// A row of the tombstones, as it is.
#[derive(Debug)]
struct Buried {
    is_revoked: bool,
    at: i64,
    digest_key: [u8; 8],
    until: Option<i64>,
}

/// The columns [`token`] reads after the accessor, in its order; the first layout has them all.
const COLUMNS: &str =
    "state, expires, successor, roles, grants, source_ip, not_before, rate, burst, concurrent, version,
    change, change_reason, change_by, change_at";

/// Where the row's own id is, if it is asked for behind them.
const ROW_ID: usize = 16;

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
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
    pub(super) fn read(connection: &Connection) -> Self {
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
    pub(super) fn unreadable(why: String) -> Self {
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
            let found = super::check::integrity(connection, &format!("integrity_check('{table}')"))?;
            found.into_iter().for_each(|line| self.note(line));
        }
        Ok(())
    }

    /// Takes from the copy what was taken from this store, in the transaction that the caller holds.
    pub(super) fn carry_into(&self, copy: &Connection) -> Result<Carried, Failure> {
        pending::fold_all(copy)?;
        let mut carried = Carried { is_complete: self.fault.is_none(), ..Carried::default() };
        for (accessor, now) in &self.tokens {
            let held = copy
                .prepare_cached(&format!("SELECT accessor, {COLUMNS} FROM tokens WHERE accessor = ?1"))?
                .query_one([accessor], token)
                .optional()?;
            match held {
                Some(held) => carry(copy, accessor, &held, now, &mut carried)?,
                None => carried.lost += u64::from(now.state != "revoked"),
            }
        }
        self.carry_tombstones(copy, &mut carried)?;
        self.carry_admins(copy, &mut carried)?;
        self.find_unknown(copy, &mut carried)?;
        Ok(carried)
    }

    /// What was purged since is taken away in the copy, and known there to have been.
    fn carry_tombstones(&self, copy: &Connection, carried: &mut Carried) -> Result<(), Failure> {
        let mut bury = copy.prepare(
            "INSERT INTO tombstones (accessor, digest_key, revoked, at, until) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?;
        let mut revoke = copy.prepare(
            "UPDATE tokens SET state = 'revoked', change = 'revoke', change_reason = ?2, change_by = 'restore',
                 change_at = ?3, holds_name = 0, version = version + 1
             WHERE accessor = ?1 AND state <> 'revoked'",
        )?;
        let mut shorten = copy.prepare(
            "UPDATE tokens SET expires = ?2, shortened = 1, version = version + 1
             WHERE accessor = ?1 AND state <> 'revoked' AND coalesce(expires, 9223372036854775807) > ?2",
        )?;
        for (accessor, buried) in &self.tombstones {
            let Buried { is_revoked, at, digest_key, until } = buried;
            bury.execute((accessor, digest_key, is_revoked, at, until))?;
            if *is_revoked {
                carried.revoked += revoke.execute((accessor, PURGED, at))? as u64;
            } else {
                carried.shortened += shorten.execute((accessor, at))? as u64;
            }
        }
        Ok(())
    }

    fn carry_admins(&self, copy: &Connection, carried: &mut Carried) -> Result<(), Failure> {
        let mut revoke = copy.prepare("UPDATE admins SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL")?;
        let mut find = copy.prepare("SELECT 1 FROM admins WHERE id = ?1")?;
        // A credential that was given for the first administrator is known by this row alone not to be taken again.
        let mut keep = copy.prepare(
            "INSERT INTO admins (id, revoked, digest, name, role, may_grant, created, created_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for (id, Admin { revoked, row }) in &self.admins {
            let is_here = find.exists([id])?;
            carried.lost_admins += u64::from(revoked.is_none() && !is_here);
            let Some(at) = revoked else { continue };
            let [digest, name, role, may_grant, created, by] = row;
            carried.revoked_admins += match is_here {
                true => revoke.execute((id, at))?,
                false => keep.execute((id, at, digest, name, role, may_grant, created, by))?,
            } as u64;
        }
        Ok(())
    }

    fn find_unknown(&self, copy: &Connection, carried: &mut Carried) -> Result<(), Failure> {
        let mut living =
            copy.prepare("SELECT accessor FROM tokens WHERE state IN ('active', 'rotating') ORDER BY id")?;
        let mut rows = living.query([])?;
        while let Some(row) = rows.next()? {
            let accessor = text(row, 0)?;
            if !self.tokens.contains_key(accessor) && !self.tombstones.contains_key(accessor) {
                carried.unknown += 1;
                if carried.unknown_accessors.len() < NAMED {
                    carried.unknown_accessors.push(accessor.to_owned());
                }
            }
        }
        let mut admins = copy.prepare("SELECT id FROM admins WHERE revoked IS NULL")?;
        let mut rows = admins.query([])?;
        while let Some(row) = rows.next()? {
            carried.unknown_admins += u64::from(!self.admins.contains_key(text(row, 0)?));
        }
        Ok(())
    }
}

/// How little a state lets in. Revoked is for good; between disabled and rotating, disabled.
fn rank(state: &str) -> u8 {
    match state {
        "active" => 0,
        "rotating" => 1,
        "disabled" => 2,
        _ => 3,
    }
}

fn carry(copy: &Connection, accessor: &str, held: &Token, now: &Token, carried: &mut Carried) -> Result<(), Failure> {
    let kept = stricter(held, now);
    let is_dead = held.state == "revoked";
    let is_stricter = rank(kept.state) > rank(held.state);
    let is_rotated = kept.successor != held.successor && !is_dead;
    let is_shorter = kept.expires != held.expires && !is_dead;
    let is_narrower = narrow(&kept) != narrow(held) && !is_dead;
    if now.state != "revoked" {
        carried.disabled += u64::from(is_stricter && now.state == "disabled");
        carried.rotated += u64::from(is_rotated);
        carried.shortened += u64::from(is_shorter);
        carried.narrowed += u64::from(is_narrower);
    } else {
        carried.revoked += u64::from(is_stricter);
    }
    // A version that somebody has seen must not come back with another content.
    if is_stricter || is_rotated || is_shorter || is_narrower || now.version > held.version {
        write(copy, accessor, &kept, if is_stricter { &now.change } else { &held.change })?;
    }
    Ok(())
}

fn write(copy: &Connection, accessor: &str, kept: &Token, change: &[Value; 4]) -> Result<(), Failure> {
    copy.prepare_cached(
        "UPDATE tokens SET state = :state, successor = :successor, roles = :roles, grants = :grants,
             source_ip = :source_ip, not_before = :not_before, rate = :rate, burst = :burst, concurrent = :concurrent,
             version = :version, change = :change, change_reason = :reason, change_by = :by, change_at = :at,
             shortened = shortened OR coalesce(:expires, 9223372036854775807) < coalesce(expires, 9223372036854775807),
             expires = :expires,
             holds_name = holds_name AND :state IN ('active', 'disabled') AND :successor IS NULL
         WHERE accessor = :accessor",
    )?
    .execute(named_params! {
        ":accessor": accessor,
        ":state": kept.state,
        ":expires": kept.expires,
        ":successor": kept.successor,
        ":roles": kept.roles,
        ":grants": kept.grants,
        ":source_ip": kept.source_ip,
        ":not_before": kept.not_before,
        ":rate": kept.rate,
        ":burst": kept.burst,
        ":concurrent": kept.concurrent,
        ":version": kept.version,
        ":change": change[0],
        ":reason": change[1],
        ":by": change[2],
        ":at": change[3],
    })?;
    Ok(())
}

type Narrow<'a> = (&'a str, &'a str, &'a str, Option<i64>, [Option<i64>; 3]);

/// All but its state and its end.
fn narrow(token: &Token) -> Narrow<'_> {
    let limits = [token.rate, token.burst, token.concurrent];
    (&token.roles, &token.grants, &token.source_ip, token.not_before, limits)
}

/// What both let in, and no more than the present store does.
fn stricter(held: &Token, now: &Token) -> Token {
    let is_slower = now.rate.is_some_and(|rate| held.rate.is_none_or(|old| rate <= old));
    let limits = if is_slower { now } else { held };
    Token {
        state: if rank(now.state) > rank(held.state) { now.state } else { held.state },
        expires: earlier(held.expires, now.expires),
        successor: held.successor.clone().or_else(|| now.successor.clone()),
        roles: narrowed_roles(&held.roles, &now.roles).unwrap_or_else(|| held.roles.clone()),
        grants: narrowed_grants(&held.grants, &now.grants).unwrap_or_else(|| held.grants.clone()),
        // Two lists of networks have no list of what both hold that can be empty: empty is everywhere.
        source_ip: if now.source_ip.is_empty() { held.source_ip.clone() } else { now.source_ip.clone() },
        not_before: held.not_before.max(now.not_before),
        rate: limits.rate,
        burst: limits.burst,
        concurrent: earlier(held.concurrent, now.concurrent),
        version: held.version.max(now.version).saturating_add(1),
        change: held.change.clone(),
    }
}

/// The lesser, where nothing is no limit.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn list(json: &str) -> Option<Vec<serde_json::Value>> {
    if json.is_empty() { Some(Vec::new()) } else { serde_json::from_str(json).ok() }
}

fn json(list: &[serde_json::Value]) -> Option<String> {
    if list.is_empty() { Some(String::new()) } else { serde_json::to_string(list).ok() }
}

/// The roles that both have; `None` where that takes none away. What does not decode takes nothing away.
fn narrowed_roles(held: &str, now: &str) -> Option<String> {
    let (held, now) = (list(held)?, list(now)?);
    let kept: Vec<_> = held.iter().filter(|role| now.contains(role)).cloned().collect();
    if kept.len() < held.len() { json(&kept) } else { None }
}

/// The grants of scopes that both have, each until the earlier of its two ends; `None` where that takes none away.
fn narrowed_grants(held: &str, now: &str) -> Option<String> {
    let (held, now) = (list(held)?, list(now)?);
    let end = |grant: &serde_json::Value| grant["expires"].as_u64().unwrap_or(u64::MAX);
    let same = |grant: &serde_json::Value| now.iter().find(|other| other["scope"] == grant["scope"]).cloned();
    let stricter = |grant: &serde_json::Value| {
        let other = same(grant)?;
        Some(if end(&other) < end(grant) { other } else { grant.clone() })
    };
    let kept: Vec<_> = held.iter().filter_map(stricter).collect();
    if kept == held { None } else { json(&kept) }
}
