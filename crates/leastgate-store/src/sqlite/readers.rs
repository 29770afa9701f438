//! The readers' pool: listing never waits for a commit, and a commit never waits for a list.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connect::Place;
use crate::error::{Failure, StoreError};

/// A few connections for reading, opened when first needed.
#[derive(Debug)]
pub(super) struct Readers {
    place: Place,
    most: usize,
    state: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Connection>,
    /// How many more may be opened.
    spare: usize,
    open: bool,
}

impl Readers {
    pub(super) fn new(place: Place, most: usize) -> Self {
        let most = most.max(1);
        let pool = Pool { idle: Vec::new(), spare: most, open: true };
        Self { place, most, state: Mutex::new(pool), returned: Condvar::new() }
    }

    /// How many reads may run at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Has `read` done on one of the connections, waiting up to `patience` for it. What it sees is one state
    /// of the store, however many statements it runs.
    pub(super) fn read<T>(
        &self,
        patience: Duration,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let lent = self.lend(patience)?;
        in_transaction(lent.connection()?, read).map_err(|failure| failure.at(self.place.path()))
    }

    /// Refuses reads from now on and closes the connections as they come back.
    pub(super) fn close(&self) {
        let mut pool = self.lock();
        pool.open = false;
        pool.idle.clear();
        self.returned.notify_all();
    }

    fn lend(&self, patience: Duration) -> Result<Lent<'_>, StoreError> {
        let deadline = Instant::now() + patience;
        let mut pool = self.lock();
        loop {
            if !pool.open {
                return Err(StoreError::Closed);
            }
            if let Some(connection) = pool.idle.pop() {
                return Ok(Lent { connection: Some(connection), readers: self });
            }
            if pool.spare > 0 {
                pool.spare -= 1;
                drop(pool);
                return self.open_one();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(StoreError::Overloaded);
            }
            pool = self.returned.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn open_one(&self) -> Result<Lent<'_>, StoreError> {
        let opened = self.place.connect_reader();
        if opened.is_err() {
            self.lock().spare += 1;
            self.returned.notify_one();
        }
        Ok(Lent { connection: Some(opened?), readers: self })
    }

    /// No code panics while it holds the lock, so a poisoned one is still in order.
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan; it goes back however the reading ends.
struct Lent<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Lent<'_> {
    fn connection(&self) -> Result<&Connection, StoreError> {
        self.connection.as_ref().ok_or(StoreError::Closed)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.lock();
        if pool.open {
            pool.idle.extend(self.connection.take());
        }
        self.readers.returned.notify_one();
    }
}

fn in_transaction<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // Rolls back when dropped, which is all a transaction that only read needs.
    let _transaction = connection.unchecked_transaction()?;
    read(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    #[test]
    fn is_bounded_and_gives_back_even_after_a_panic() {
        let readers = Readers::new(Place::memory(), 1);
        readers
            .read(PATIENCE, |_| {
                assert_eq!(readers.read(PATIENCE, |_| Ok(())), Err(StoreError::Overloaded));
                Ok(())
            })
            .unwrap();
        std::thread::scope(|scope| {
            let faulty = scope.spawn(|| readers.read(PATIENCE, |_| -> Result<(), Failure> { panic!("in a callback") }));
            assert!(faulty.join().is_err());
        });
        readers.read(PATIENCE, |_| Ok(())).unwrap();
        readers.close();
        assert_eq!(readers.read(PATIENCE, |_| Ok(())), Err(StoreError::Closed));
    }

    #[test]
    fn a_reader_can_not_write() {
        let readers = Readers::new(Place::memory(), 1);
        let write = |c: &Connection| Ok(c.execute_batch("CREATE TABLE t (n)")?);
        assert!(matches!(readers.read(PATIENCE, write), Err(StoreError::ReadOnly { .. })));
    }
}
