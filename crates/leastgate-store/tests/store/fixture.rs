//! A store in a folder of its own, and records to put in it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use leastgate_policy::{EnvironmentKey, Pepper, Restrictions, Timestamp, TokenEntry, TokenLimits};
use leastgate_store::draw::draw_token;
use leastgate_store::{
    AdminRole, Change, MayGrant, NewAdmin, NewToken, SqliteOptions, SqliteStore, StateChange, StoreError, TokenName,
    TokenRecord, TokenStore,
};

pub(crate) const ENV: &str = "prod";
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);

pub(crate) fn key() -> EnvironmentKey {
    key_of(7, ENV)
}

pub(crate) fn key_of(pepper: u8, environment: &str) -> EnvironmentKey {
    EnvironmentKey::derive(&Pepper::new(vec![pepper; 32]).unwrap(), environment)
}

/// A folder with a store's file, which can be opened again and again.
pub(crate) struct Home {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        Self { _dir: dir, path }
    }

    pub(crate) fn open(&self) -> SqliteStore {
        self.try_open(SqliteOptions::default()).unwrap()
    }

    pub(crate) fn try_open(&self, options: SqliteOptions) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.path, ENV, &key(), options)
    }
}

impl Home {
    /// Copies the file and its log as they are, from under whoever has them open, and returns their bytes.
    pub(crate) fn copy_to(&self, other: &Self) -> [Vec<u8>; 2] {
        for (from, to) in self.files().iter().zip(other.files()) {
            std::fs::copy(from, to).unwrap();
        }
        other.bytes()
    }

    pub(crate) fn bytes(&self) -> [Vec<u8>; 2] {
        self.files().map(|path| std::fs::read(path).unwrap())
    }

    fn files(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.path.with_extension("db-wal")]
    }
}

/// Patient enough for a busy machine.
pub(crate) fn options() -> SqliteOptions {
    SqliteOptions { patience: Duration::from_secs(60), ..SqliteOptions::default() }
}

pub(crate) fn memory() -> SqliteStore {
    SqliteStore::in_memory(ENV, &key()).unwrap()
}

pub(crate) fn named(name: &str) -> NewToken {
    NewToken {
        name: TokenName::parse(name).unwrap(),
        owner: None,
        roles: vec!["reader".into()],
        grants: vec![],
        restrictions: Restrictions::default(),
        limits: TokenLimits::default(),
        created: NOW,
        created_by: "root".into(),
        expires: None,
        parent: None,
        is_canary: false,
        note: None,
    }
}

pub(crate) fn new_admin(name: &str) -> NewAdmin {
    NewAdmin {
        name: TokenName::parse(name).unwrap(),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: NOW,
        created_by: "root".into(),
    }
}

pub(crate) fn record(token: NewToken) -> TokenRecord {
    draw_token(ENV, &key(), token).unwrap().0
}

pub(crate) fn change(change: Change) -> StateChange {
    StateChange { change, reason: "leaked".into(), by: "ann".into(), at: NOW.plus(5) }
}

/// Turns a store into what the first release wrote: the same rows, without what came later.
pub(crate) const FIRST_LAYOUT: &str =
    "DROP INDEX tokens_by_parent; DROP INDEX tokens_by_successor; DROP INDEX tokens_by_activity;
    DROP INDEX tokens_by_state; DROP INDEX tokens_by_owner;
    ALTER TABLE tokens DROP COLUMN parent; ALTER TABLE tokens DROP COLUMN canary;
    ALTER TABLE tokens DROP COLUMN last_used; ALTER TABLE tokens DROP COLUMN last_source;
    ALTER TABLE usage DROP COLUMN last_source;
    DROP TABLE tombstones; ALTER TABLE tokens DROP COLUMN shortened;
    DROP TABLE pending_revocations; DROP TABLE bulk_revocations;
    DROP INDEX tokens_by_pepper; ALTER TABLE admins DROP COLUMN pepper_id;
    CREATE INDEX tokens_by_owner ON tokens (owner) WHERE owner IS NOT NULL;
    PRAGMA user_version = 1";

/// What the data plane gets at a start, by accessor.
pub(crate) fn loaded(store: &SqliteStore) -> Vec<TokenEntry> {
    let entries = Mutex::new(vec![]);
    let count = store.load(&|entry| entries.lock().unwrap().push(entry)).unwrap();
    let mut entries = entries.into_inner().unwrap();
    assert_eq!(count, entries.len() as u64);
    entries.sort_unstable_by_key(|entry| entry.accessor);
    entries
}
