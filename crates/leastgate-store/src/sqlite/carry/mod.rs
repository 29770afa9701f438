//! What was taken away since a backup stays taken away: from the present store into the copy that replaces it.

mod present;
mod stricter;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, named_params};

pub(super) use self::present::Present;
use self::present::{Admin, Buried, COLUMNS, Token, token};
use self::stricter::{narrow, rank, stricter};
use super::decode::text;
use super::pending;
use crate::error::Failure;

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

impl Present {
    /// Takes from the copy what was taken from this store, in the transaction that the caller holds.
    pub(in crate::sqlite) fn carry_into(&self, copy: &Connection) -> Result<Carried, Failure> {
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
