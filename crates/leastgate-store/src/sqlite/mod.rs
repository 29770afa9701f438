//! The embedded store: one SQLite file, one writer, a few readers.

mod admins;
mod backup;
mod bulk;
mod carry;
mod check;
mod connect;
mod decode;
mod draft;
mod fate;
mod list;
mod load;
mod meta;
mod objects;
mod opening;
mod pending;
mod peppers;
mod purge;
mod queue;
mod readers;
mod restore;
mod rotate;
mod schema;
mod seal;
mod snapshot;
mod tokens;
mod undo;
mod usage;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::backup::backup;
pub use self::carry::Carried;
pub use self::check::{Holdings, Problem, Report, check};
pub use self::opening::SqliteOptions;
pub use self::restore::{Restore, RestoreOptions};
pub use self::seal::Seal;
use leastgate_policy::{Accessor, EnvironmentKey, Straggler, Timestamp, TokenDigest, TokenEntry};
use rusqlite::Connection;

use self::connect::Place;
use self::opening::{prepare, refuse_others};
use self::pending::Folding;
use self::peppers::Peppers;
use self::readers::Readers;
use self::writer::{Abandoned, Writer};
use crate::admin::AdminRecord;
use crate::error::{Failure, StoreError};
use crate::pepper::{Redigested, StragglerCounts};
use crate::query::{TimeFilter, TokenPage, TokenQuery};
use crate::record::{StateChange, TokenRecord};
use crate::restored::Restored;
use crate::rotation::{Rotated, Rotation};
use crate::store::TokenStore;
use crate::tombstone::Tombstone;
use crate::undo::Undo;
use crate::usage::{UsageBatch, UsageRow};

/// Records in one SQLite file, or in memory. A clone is another handle to the same store; when the last one
/// goes, what waits is committed and the file is closed.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    environment: Arc<str>,
    peppers: Peppers,
    patience: Duration,
    rows_at_once: u32,
    readers: Readers,
    /// Only for what is found at once, or asked by what takes access away: no number of lists keeps it waiting.
    lookups: Readers,
    writer: Writer,
}

/// How many [`Shared::lookups`] may run at once.
const LOOKUPS: usize = 4;

impl SqliteStore {
    /// Opens the store at `path`, and makes it where there is none. The caller holds the folder's lock
    /// ([`crate::StateDir`]).
    ///
    /// # Errors
    /// `Foreign`, `NewerSchema`, `UnknownObject`, `OtherEnvironment`, `WrongPepper`, `Corrupt`, or when the file can't be used.
    pub fn open(
        path: &Path,
        environment: &str,
        key: &EnvironmentKey,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        connect::create_file(path)?;
        let place = Place::File(path.to_owned());
        let connection = place.connect()?;
        connect::keep_log_on_close(&connection, true).map_err(|failure| failure.at(path))?;
        schema::recognize(&connection, path)?;
        objects::refuse_unknown(&connection, path).map_err(|failure| failure.at(path))?;
        refuse_others(&connection, path, environment, key).map_err(|failure| failure.at(path))?;
        connect::keep_log_on_close(&connection, false).map_err(|failure| failure.at(path))?;
        connect::restrict_file(path)?;
        Self::start(place, connection, environment, key, options)
    }

    /// A store that lives in this process and ends with its last handle.
    ///
    /// # Errors
    /// When SQLite can't start.
    pub fn in_memory(environment: &str, key: &EnvironmentKey) -> Result<Self, StoreError> {
        Self::in_memory_with(environment, key, SqliteOptions::default())
    }

    /// The same with other bounds.
    ///
    /// # Errors
    /// When SQLite can't start.
    pub fn in_memory_with(environment: &str, key: &EnvironmentKey, options: SqliteOptions) -> Result<Self, StoreError> {
        let place = Place::memory();
        let connection = place.connect()?;
        Self::start(place, connection, environment, key, options)
    }

    fn start(
        place: Place,
        connection: Connection,
        environment: &str,
        key: &EnvironmentKey,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        prepare(&connection, place.path(), environment, key, options).map_err(|failure| failure.at(place.path()))?;
        let folding = Folding::new(options.rows_at_once);
        let writer = Writer::start(connection, place.path(), options.queue, folding)?;
        let (readers, lookups) = (Readers::new(place.clone(), options.readers), Readers::new(place.clone(), LOOKUPS));
        let (environment, peppers) = (environment.into(), Peppers::of(key));
        let SqliteOptions { patience, rows_at_once, .. } = options;
        let shared = Shared { place, environment, peppers, patience, rows_at_once, readers, lookups, writer };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Restores that this store came from and that are not on record yet, the oldest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn restores(&self) -> Result<Vec<Restored>, StoreError> {
        self.read(meta::restores)
    }

    /// Forgets them: they are on record.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn forget_restores(&self) -> Result<(), StoreError> {
        self.write(Abandoned::MakeAnyway, |connection| meta::set_restores(connection, &[]))
    }

    /// How many tokens are revoked by a list and not in their rows yet: they fall to none while no change waits.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn count_pending(&self) -> Result<u64, StoreError> {
        self.read(|connection| Ok(pending::count(connection)?))
    }

    fn write<T, F>(&self, abandoned: Abandoned, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.shared.writer.submit(work, abandoned, self.shared.patience)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.shared.readers.read(self.shared.patience, read)
    }

    fn look_up<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.shared.lookups.read(self.shared.patience, read)
    }

    fn environment(&self) -> Arc<str> {
        Arc::clone(&self.shared.environment)
    }

    fn check_environment(&self, token: &TokenRecord) -> Result<(), StoreError> {
        if token.env == *self.shared.environment {
            return Ok(());
        }
        Err(StoreError::OtherEnvironment {
            path: self.shared.place.path().to_owned(),
            stored: self.shared.environment.to_string(),
            configured: token.env.clone(),
        })
    }
}

impl Shared {
    fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        // Readers first: the last connection to close folds the write-ahead log into the file.
        self.readers.close();
        self.lookups.close();
        self.writer.close(deadline)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to be told; what was acknowledged is on disk already.
        let _ = self.close(self.patience);
    }
}

impl TokenStore for SqliteStore {
    fn create_token(&self, token: TokenRecord) -> Result<TokenRecord, StoreError> {
        self.check_environment(&token)?;
        let (env, accessor) = (self.environment(), token.accessor);
        self.write(Abandoned::Skip, move |connection| tokens::create(connection, &env, &token))
            .map_err(|error| error.about(|| vec![accessor]))
    }

    fn create_tokens(&self, all: Vec<TokenRecord>) -> Result<usize, StoreError> {
        all.iter().try_for_each(|token| self.check_environment(token))?;
        let env = self.environment();
        let accessors: Vec<Accessor> = all.iter().map(|token| token.accessor).collect();
        let kept = self.write(Abandoned::Skip, move |connection| {
            all.iter().try_for_each(|token| tokens::create(connection, &env, token).map(drop))?;
            Ok(all.len())
        });
        kept.map_err(|error| error.about(|| accessors))
    }

    fn token(&self, accessor: Accessor) -> Result<TokenRecord, StoreError> {
        self.look_up(|connection| tokens::by_accessor(connection, &self.shared.environment, accessor))
    }

    fn find_token(&self, name_or_accessor: &str) -> Result<TokenRecord, StoreError> {
        self.look_up(|connection| tokens::find(connection, &self.shared.environment, name_or_accessor))
    }

    fn list_tokens(&self, query: &TokenQuery) -> Result<TokenPage, StoreError> {
        self.read(|connection| list::list(connection, &self.shared.environment, &self.shared.peppers, query))
    }

    fn count_tokens(&self) -> Result<u64, StoreError> {
        self.read(tokens::count).map(i64::unsigned_abs)
    }

    fn change_state(
        &self,
        accessor: Accessor,
        change: StateChange,
        expected: Option<u64>,
    ) -> Result<TokenRecord, StoreError> {
        let env = self.environment();
        let abandoned = if change.change.takes_access_away() { Abandoned::MakeAnyway } else { Abandoned::Skip };
        self.write(abandoned, move |connection| tokens::change_state(connection, &env, accessor, &change, expected))
    }

    fn revoke_tokens(&self, accessors: Vec<Accessor>, change: StateChange) -> Result<usize, StoreError> {
        let at_once = accessors.len() <= self.shared.rows_at_once as usize;
        self.write(Abandoned::MakeAnyway, move |connection| match at_once {
            true => bulk::revoke(connection, &accessors, &change),
            false => pending::add(connection, &accessors, &change),
        })
    }

    fn update_token(&self, token: TokenRecord) -> Result<TokenRecord, StoreError> {
        let env = self.environment();
        self.write(Abandoned::Skip, move |connection| tokens::update(connection, &env, &token))
    }

    fn narrow_token(&self, token: TokenRecord, end: StateChange) -> Result<TokenRecord, StoreError> {
        let env = self.environment();
        self.write(Abandoned::Skip, move |connection| tokens::narrow(connection, &env, &token, &end))
    }

    fn undo(&self, gifts: Vec<Undo>) -> Result<usize, StoreError> {
        let env = self.environment();
        self.write(Abandoned::MakeAnyway, move |connection| undo::undo(connection, &env, &gifts))
    }

    fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StoreError> {
        self.check_environment(&rotation.successor)?;
        let (env, successor) = (self.environment(), rotation.successor.accessor);
        self.write(Abandoned::Skip, move |connection| rotate::rotate(connection, &env, &rotation))
            .map_err(|error| error.about(|| vec![successor]))
    }

    fn predecessors_of(&self, accessor: Accessor) -> Result<Vec<TokenRecord>, StoreError> {
        self.look_up(|connection| rotate::predecessors_of(connection, &self.shared.environment, accessor))
    }

    fn namesakes(&self, name: &str, now: Timestamp) -> Result<Vec<TokenRecord>, StoreError> {
        self.look_up(|connection| rotate::namesakes(connection, &self.shared.environment, name, now))
    }

    fn sharing_limits(&self) -> Result<Vec<(TokenDigest, TokenDigest)>, StoreError> {
        self.read(rotate::sharing_limits)
    }

    fn for_each_by_time(&self, filter: &TimeFilter, take: &mut dyn FnMut(Accessor)) -> Result<u64, StoreError> {
        self.look_up(|connection| bulk::for_each_by_time(connection, filter, take))
    }

    fn idle_tokens(&self, since: Timestamp, limit: u32) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(|connection| bulk::idle(connection, &self.shared.environment, since, limit))
    }

    fn count_made_before(&self, before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
        self.read(|connection| bulk::count_made_before(connection, before, now)).map(i64::unsigned_abs)
    }

    fn load(&self, take: &(dyn Fn(TokenEntry) + Sync)) -> Result<u64, StoreError> {
        load::load(&self.shared.readers, self.shared.patience, take)
    }

    fn record_usage(&self, batch: UsageBatch) -> Result<(), StoreError> {
        self.write(Abandoned::Skip, move |connection| usage::record_once(connection, &batch))
    }

    fn use_known_since(&self) -> Result<Option<Timestamp>, StoreError> {
        self.look_up(meta::use_known_since)
    }

    fn usage_of(&self, accessor: Accessor) -> Result<Vec<UsageRow>, StoreError> {
        self.read(|connection| usage::of(connection, accessor))
    }

    fn for_each_usage(&self, take: &mut dyn FnMut(UsageRow)) -> Result<u64, StoreError> {
        self.read(|connection| usage::for_each(connection, take))
    }

    fn purge(&self, older_than: Timestamp, limit: u32) -> Result<Vec<TokenDigest>, StoreError> {
        self.write(Abandoned::Skip, move |connection| purge::purge(connection, older_than, limit))
    }

    fn tombstone_of(&self, accessor: Accessor, digest: &TokenDigest) -> Result<Option<Tombstone>, StoreError> {
        self.look_up(|connection| purge::tombstone_of(connection, accessor, digest))
    }

    fn create_admin(&self, admin: AdminRecord) -> Result<AdminRecord, StoreError> {
        let id = admin.id;
        self.write(Abandoned::Skip, move |connection| admins::create(connection, &admin))
            .map_err(|error| error.about(|| vec![id]))
    }

    fn find_admin(&self, digest: &TokenDigest) -> Result<Option<AdminRecord>, StoreError> {
        self.look_up(|connection| admins::by_digest(connection, digest))
    }

    fn list_admins(&self) -> Result<Vec<AdminRecord>, StoreError> {
        self.look_up(admins::all)
    }

    fn count_admins(&self) -> Result<u64, StoreError> {
        self.look_up(admins::count).map(i64::unsigned_abs)
    }

    fn revoke_admin(&self, id: Accessor, at: Timestamp) -> Result<AdminRecord, StoreError> {
        self.write(Abandoned::MakeAnyway, move |connection| admins::revoke(connection, id, at))
    }

    fn redigest(&self, stragglers: Vec<Straggler>) -> Result<Vec<Redigested>, StoreError> {
        let peppers = self.shared.peppers.clone();
        self.write(Abandoned::Skip, move |connection| peppers.redigest(connection, &stragglers))
    }

    fn count_stragglers(&self, now: Timestamp) -> Result<StragglerCounts, StoreError> {
        self.read(|connection| self.shared.peppers.count(connection, now))
    }

    fn is_running(&self) -> bool {
        self.shared.writer.is_running()
    }

    fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.shared.close(deadline)
    }
}
