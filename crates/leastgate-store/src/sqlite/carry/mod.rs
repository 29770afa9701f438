//! What was taken away since a backup stays taken away: from the present store into the copy that replaces it.

mod present;
mod stricter;
mod uses;

use leastgate_policy::{Accessor, Timestamp, TokenDigest, TokenState};
use rusqlite::{Connection, OptionalExtension as _, named_params};

pub(super) use self::present::Present;
use self::present::{Admin, Buried, COLUMNS, Token, token};
use self::stricter::{narrow, rank, stricter};
use super::decode::{change_name, grants_text, integer, list_text, networks_text, parsed, seconds};
use super::{admins, pending};
use crate::admin::{AdminRecord, AdminRole, MayGrant};
use crate::error::Failure;
use crate::record::{StateChange, TokenName};

/// Why a token is revoked whose own reason is gone with its record.
const PURGED: &str = "revoked since the backup, and purged since then";

/// Why a token is revoked of which nobody can say what it may do.
const DAMAGED: &str = "its record in the store before the restore is damaged";

/// Who revokes these, in records.
const BY: &str = "restore";

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
    /// Living tokens of the backup that the present store does not know: purged since by a release that left no
    /// tombstones, or of another store. Nobody can tell, and they live.
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
    /// Takes from the copy what was taken from this store, in the transaction that the caller holds. `at` is the
    /// moment of the restore.
    pub(super) fn carry_into(&self, copy: &Connection, at: Timestamp) -> Result<Carried, Failure> {
        pending::fold_all(copy)?;
        let mut carried = Carried { is_complete: self.fault.is_none(), ..Carried::default() };
        for (accessor, now) in &self.tokens {
            let held = copy
                .prepare_cached(&format!("SELECT accessor, {COLUMNS} FROM tokens WHERE accessor = ?1"))?
                .query_one([accessor.to_string()], token)
                .optional()?;
            match held {
                Some(held) => carry(copy, *accessor, &held, now, &mut carried)?,
                None => carried.lost += u64::from(now.state != TokenState::Revoked),
            }
        }
        self.bury_unknown(copy)?;
        self.carry_tombstones(copy, &mut carried)?;
        for (accessor, version) in &self.damaged {
            carried.revoked += revoke(copy, *accessor, DAMAGED, at, *version)?;
        }
        self.carry_admins(copy, at, &mut carried)?;
        self.find_unknown(copy, &mut carried)?;
        Ok(carried)
    }

    /// What the copy does not know is gone with the restore, and an old export could bring it back: of what was taken away it has
    /// to be known that it was.
    fn bury_unknown(&self, copy: &Connection) -> Result<(), Failure> {
        let mut is_known = copy.prepare("SELECT 1 FROM tokens WHERE accessor = ?1")?;
        for (accessor, grave) in &self.graves {
            if !is_known.exists([accessor.to_string()])? {
                bury(copy, *accessor, grave)?;
            }
        }
        Ok(())
    }

    /// What was purged since is taken away in the copy, and known there to have been.
    fn carry_tombstones(&self, copy: &Connection, carried: &mut Carried) -> Result<(), Failure> {
        let mut shorten = copy.prepare(
            "UPDATE tokens SET expires = ?2, shortened = 1, version = version + 1
             WHERE accessor = ?1 AND state <> 'revoked' AND coalesce(expires, 9223372036854775807) > ?2",
        )?;
        for (accessor, buried) in &self.tombstones {
            bury(copy, *accessor, buried)?;
            let Buried { is_revoked, at, .. } = buried;
            if *is_revoked {
                carried.revoked += revoke(copy, *accessor, PURGED, *at, 0)?;
            } else {
                carried.shortened += shorten.execute((accessor.to_string(), seconds(*at)))? as u64;
            }
        }
        Ok(())
    }

    fn carry_admins(&self, copy: &Connection, at: Timestamp, carried: &mut Carried) -> Result<(), Failure> {
        let mut find = copy.prepare("SELECT 1 FROM admins WHERE id = ?1 OR digest = ?2")?;
        let mut revoke =
            copy.prepare("UPDATE admins SET revoked = ?3 WHERE (id = ?1 OR digest = ?2) AND revoked IS NULL")?;
        for (id, admin) in &self.admins {
            let (digest, revoked) = match admin {
                Admin::Known(record) => (Some(record.digest), record.revoked),
                Admin::Damaged(digest) => (*digest, Some(at)),
            };
            let key = digest.as_ref().map(TokenDigest::as_bytes);
            let is_here = find.exists((id.to_string(), key))?;
            let Some(at) = revoked else {
                carried.lost_admins += u64::from(!is_here);
                continue;
            };
            if is_here {
                carried.revoked_admins += revoke.execute((id.to_string(), key, seconds(at)))? as u64;
                continue;
            }
            // A credential that was given for the first administrator is known by this row alone not to be taken again.
            let kept = match admin {
                Admin::Known(record) => Some(record.clone()),
                Admin::Damaged(digest) => digest.and_then(|digest| stand_in(*id, digest, at)),
            };
            if let Some(kept) = kept {
                admins::insert(copy, &kept)?;
                carried.revoked_admins += 1;
            }
        }
        Ok(())
    }

    fn find_unknown(&self, copy: &Connection, carried: &mut Carried) -> Result<(), Failure> {
        let mut living =
            copy.prepare("SELECT accessor FROM tokens WHERE state IN ('active', 'rotating') ORDER BY id")?;
        let mut rows = living.query([])?;
        while let Some(row) = rows.next()? {
            let accessor: Accessor = parsed(row, 0)?;
            if !self.tokens.contains_key(&accessor) && !self.tombstones.contains_key(&accessor) {
                carried.unknown += 1;
                if carried.unknown_accessors.len() < NAMED {
                    carried.unknown_accessors.push(accessor.to_string());
                }
            }
        }
        let mut admins = copy.prepare("SELECT id FROM admins WHERE revoked IS NULL")?;
        let mut rows = admins.query([])?;
        while let Some(row) = rows.next()? {
            carried.unknown_admins += u64::from(!self.admins.contains_key(&parsed(row, 0)?));
        }
        Ok(())
    }
}

fn bury(copy: &Connection, accessor: Accessor, buried: &Buried) -> Result<(), Failure> {
    let Buried { is_revoked, at, digest_key, until } = buried;
    copy.prepare_cached(
        "INSERT INTO tombstones (accessor, digest_key, revoked, at, until) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )?
    .execute((accessor.to_string(), digest_key, is_revoked, seconds(*at), until.map(seconds)))?;
    Ok(())
}

/// What is kept of a revoked administrator whose record is damaged.
fn stand_in(id: Accessor, digest: TokenDigest, at: Timestamp) -> Option<AdminRecord> {
    Some(AdminRecord {
        id,
        digest,
        name: TokenName::parse("damaged").ok()?,
        role: AdminRole::Viewer,
        may_grant: MayGrant::default(),
        created: at,
        created_by: BY.to_owned(),
        revoked: Some(at),
        pepper_id: String::new(),
    })
}

/// Revokes a token of the copy for good; says how many it were. No version comes back that was seen with another
/// content.
fn revoke(copy: &Connection, accessor: Accessor, why: &str, at: Timestamp, version: u64) -> Result<u64, Failure> {
    let mut revoke = copy.prepare_cached(
        "UPDATE tokens SET state = 'revoked', change = 'revoke', change_reason = ?2, change_by = ?3, change_at = ?4,
             holds_name = 0, version = min(max(version, ?5), 9223372036854775806) + 1
         WHERE accessor = ?1 AND state <> 'revoked'",
    )?;
    Ok(revoke.execute((accessor.to_string(), why, BY, seconds(at), integer(version)))? as u64)
}

fn carry(
    copy: &Connection,
    accessor: Accessor,
    held: &Token,
    now: &Token,
    carried: &mut Carried,
) -> Result<(), Failure> {
    let kept = stricter(held, now);
    let is_dead = held.state == TokenState::Revoked;
    let is_stricter = rank(kept.state) > rank(held.state);
    let is_rotated = kept.successor != held.successor && !is_dead;
    let is_shorter = kept.expires != held.expires && !is_dead;
    let is_narrower = narrow(&kept) != narrow(held) && !is_dead;
    if now.state != TokenState::Revoked {
        carried.disabled += u64::from(is_stricter && now.state == TokenState::Disabled);
        carried.rotated += u64::from(is_rotated);
        carried.shortened += u64::from(is_shorter);
        carried.narrowed += u64::from(is_narrower);
    } else {
        carried.revoked += u64::from(is_stricter);
    }
    // A version that somebody has seen must not come back with another content.
    if is_stricter || is_rotated || is_shorter || is_narrower || now.version > held.version {
        let change = if is_stricter { &now.change } else { &held.change };
        write(copy, accessor, &kept, change.as_ref())?;
    }
    Ok(())
}

fn write(copy: &Connection, accessor: Accessor, kept: &Token, change: Option<&StateChange>) -> Result<(), Failure> {
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
        ":accessor": accessor.to_string(),
        ":state": kept.state.as_str(),
        ":expires": kept.expires.map(seconds),
        ":successor": kept.successor.map(|successor| successor.to_string()),
        ":roles": list_text(&kept.roles)?,
        ":grants": grants_text(&kept.grants)?,
        ":source_ip": networks_text(&kept.restrictions)?,
        ":not_before": kept.restrictions.not_before.map(seconds),
        ":rate": kept.limits.rate,
        ":burst": kept.limits.burst,
        ":concurrent": kept.limits.concurrent,
        ":version": integer(kept.version),
        ":change": change.map(|change| change_name(change.change)),
        ":reason": change.map(|change| &change.reason),
        ":by": change.map(|change| &change.by),
        ":at": change.map(|change| seconds(change.at)),
    })?;
    Ok(())
}
