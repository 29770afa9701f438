//! The one writer: a thread that owns the writing connection and commits what waits in one go.
//!
//! A commit costs two fsyncs however much is in it, so everything that waits is grouped into one transaction,
//! each change in a savepoint of its own. When the group fails (a full disk undoes all of it), every change is
//! made again alone: one that is too large for the disk must not take a revocation beside it down. What can wait
//! ([`Upkeep`]) is done while nothing else does.
//!
//! Who gives access and waits no longer takes the change back by leaving. Right before a commit the writer asks whether
//! anybody of the group has left, and if so makes it again without theirs; from there until the commit has succeeded or
//! failed, who leaves is in doubt, and knows it.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::fate::{Fate, Left};
use super::queue::{Queue, Refused, Taken};
use crate::error::{Failure, StoreError, from_io};

/// Most changes of one commit: bounds how long the first of them waits for the last.
const GROUP: usize = 512;

/// Whether a change is still made when nobody waits for its answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It gives something: what was refused to the caller must not become valid.
    Skip,
    /// It only takes access away, or only counts.
    MakeAnyway,
}

/// What the thread does while no change waits.
pub(super) trait Upkeep: Send + 'static {
    /// A little of it, in a transaction of its own: a change that comes meanwhile waits for its end.
    fn when_idle(&mut self, connection: &Connection) -> Idle;
}

/// How long there is nothing more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    For(Duration),
    /// Until something has been written.
    UntilChanged,
}

#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue<Box<dyn Change>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Disconnected when the thread has ended and its connection is closed.
    ended: Mutex<Receiver<()>>,
}

impl Writer {
    /// Starts the thread, which owns `connection` from here on.
    pub(super) fn start(
        connection: Connection,
        path: &Path,
        capacity: usize,
        mut upkeep: impl Upkeep,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::new(capacity));
        let (ending, ended) = sync_channel(1);
        let (queue_of_thread, path_of_thread) = (Arc::clone(&queue), path.to_owned());
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                // Dropped in reverse: the connection closes, then callers are let go, then the end is told.
                let _ending: SyncSender<()> = ending;
                let _guard = AbandonOnExit(&queue_of_thread);
                let connection = connection;
                run(&connection, &queue_of_thread, &path_of_thread, &mut upkeep);
            })
            .map_err(|error| from_io(path, &error))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), ended: Mutex::new(ended) })
    }

    /// Has `work` done inside a transaction, and waits up to `patience` for its commit.
    ///
    /// `work` may run twice: what it did the first time has been rolled back by then.
    pub(super) fn submit<T, F>(&self, work: F, abandoned: Abandoned, patience: Duration) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let deadline = Instant::now() + patience;
        let (reply, answer) = sync_channel(1);
        let fate = (abandoned == Abandoned::Skip).then(|| Arc::new(Fate::default()));
        let change = Box::new(Work { work, fate: fate.clone(), done: None, reply });
        self.queue.push(change, deadline).map_err(|refused| match refused {
            Refused::Full => StoreError::Overloaded,
            Refused::Closed => StoreError::Closed,
        })?;
        let gone = match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => return result,
            Err(gone) => gone,
        };
        match (fate.map(|fate| fate.leave()), gone) {
            // The answer may have come while the caller was leaving.
            (Some(Left::InDoubt), _) => {
                answer.try_recv().unwrap_or(Err(StoreError::InDoubt { waited: patience, made: Vec::new() }))
            }
            (_, RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
            (Some(Left::Withdrawn), RecvTimeoutError::Timeout) => Err(StoreError::Withdrawn { waited: patience }),
            (None, RecvTimeoutError::Timeout) => Err(StoreError::Timeout { waited: patience }),
        }
    }

    /// Whether the thread is there to make changes.
    pub(super) fn is_running(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes no more changes, and waits until those that wait are made and the connection is closed.
    pub(super) fn close(&self, patience: Duration) -> Result<(), StoreError> {
        self.queue.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            return Err(StoreError::Timeout { waited: patience });
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            Some(Err(_)) => Err(StoreError::Closed),
            _ => Ok(()),
        }
    }
}

/// However the thread ends, nobody is left waiting for it.
struct AbandonOnExit<'a>(&'a Queue<Box<dyn Change>>);

impl Drop for AbandonOnExit<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// One change in the queue, its type erased.
trait Change: Send + std::fmt::Debug {
    /// Where it stands, if it is one that isn't made when nobody waits for it.
    fn fate(&self) -> Option<&Fate>;
    /// Does the work; says whether its writes are to be kept.
    fn attempt(&mut self, connection: &Connection, path: &Path) -> Kept;
    /// Tells the caller, who may have left.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

struct Work<T, F> {
    work: F,
    fate: Option<Arc<Fate>>,
    done: Option<Result<T, StoreError>>,
    reply: SyncSender<Result<T, StoreError>>,
}

impl<T, F> std::fmt::Debug for Work<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("fate", &self.fate).finish_non_exhaustive()
    }
}

impl<T, F> Change for Work<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<T, Failure> + Send,
{
    fn fate(&self) -> Option<&Fate> {
        self.fate.as_deref()
    }

    fn attempt(&mut self, connection: &Connection, path: &Path) -> Kept {
        let result = (self.work)(connection).map_err(|failure| failure.at(path));
        let kept = if result.is_ok() { Kept::Yes } else { Kept::No };
        self.done = Some(result);
        kept
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.done, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        let _ = self.reply.send(result);
    }
}

fn run(connection: &Connection, queue: &Queue<Box<dyn Change>>, path: &Path, upkeep: &mut impl Upkeep) {
    // At once, when nothing waits: what was left to do when the store was closed.
    let mut due = Some(Instant::now());
    loop {
        let mut group = match queue.take(GROUP, due) {
            Taken::Items(group) => group,
            Taken::Nothing => {
                due = match upkeep.when_idle(connection) {
                    Idle::For(pause) => Some(Instant::now() + pause),
                    Idle::UntilChanged => None,
                };
                continue;
            }
            Taken::Closed => return,
        };
        due.get_or_insert_with(Instant::now);
        match commit_group(connection, &mut group, path) {
            Ok(()) => group.into_iter().for_each(|change| change.answer(Ok(()))),
            // Behind a foreign lock each further attempt would only wait as long again.
            Err(error) if group.len() == 1 || matches!(error, StoreError::Busy { .. }) => {
                group.into_iter().for_each(|change| change.answer(Err(error.clone())));
            }
            Err(_) => group.into_iter().for_each(|change| commit_alone(connection, change, path)),
        }
    }
}

fn commit_alone(connection: &Connection, change: Box<dyn Change>, path: &Path) {
    let mut group = vec![change];
    let committed = commit_group(connection, &mut group, path);
    group.into_iter().for_each(|change| change.answer(committed.clone()));
}

/// All changes of the group in one transaction, but for those whose callers have left; on an error none of them is made.
fn commit_group(connection: &Connection, group: &mut Vec<Box<dyn Change>>, path: &Path) -> Result<(), StoreError> {
    loop {
        group.retain(|change| !change.fate().is_some_and(Fate::is_left));
        if group.is_empty() {
            return Ok(());
        }
        let outcome = in_transaction(connection, group, path);
        if let Ok(Outcome::Committed) = outcome {
            return Ok(());
        }
        if !connection.is_autocommit() {
            // SQLite has often rolled back by itself; if this fails too, the next BEGIN says so.
            let _ = connection.execute_batch("ROLLBACK");
        }
        group.retain(|change| change.fate().is_none_or(Fate::end_commit));
        // Each time somebody has left there is one less.
        outcome.map_err(|failure| failure.at(path))?;
    }
}

/// How far a transaction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    /// Somebody has left whose change is in it.
    SomebodyLeft,
}

fn in_transaction(connection: &Connection, group: &mut [Box<dyn Change>], path: &Path) -> Result<Outcome, Failure> {
    // IMMEDIATE: a transaction that begins as a reader can be refused when it comes to write.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for change in &mut *group {
        connection.prepare_cached("SAVEPOINT change")?.execute([])?;
        if change.attempt(connection, path) == Kept::No {
            // Fails when the error has already undone the whole transaction, which then fails as a whole.
            connection.prepare_cached("ROLLBACK TO change")?.execute([])?;
        }
        connection.prepare_cached("RELEASE change")?.execute([])?;
    }
    if !group.iter().all(|change| change.fate().is_none_or(Fate::begin_commit)) {
        return Ok(Outcome::SomebodyLeft);
    }
    connection.execute_batch("COMMIT")?;
    Ok(Outcome::Committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Nothing;

    impl Upkeep for Nothing {
        fn when_idle(&mut self, _: &Connection) -> Idle {
            Idle::UntilChanged
        }
    }

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
        Writer::start(connection, Path::new("memory"), 64, Nothing).unwrap()
    }

    fn insert(n: i64) -> impl Fn(&Connection) -> Result<usize, Failure> + Send + 'static {
        move |connection| Ok(connection.execute("INSERT INTO t VALUES (?1)", [n])?)
    }

    fn count(writer: &Writer) -> i64 {
        let read = |c: &Connection| Ok(c.query_one("SELECT count(*) FROM t", [], |row| row.get(0))?);
        writer.submit(read, Abandoned::Skip, PATIENCE).unwrap()
    }

    /// Holds the writer inside a change until the returned sender is dropped.
    fn hold(writer: &Arc<Writer>) -> (SyncSender<()>, JoinHandle<()>) {
        let (release, held) = sync_channel::<()>(1);
        let (entered, inside) = sync_channel(1);
        let held = Mutex::new(held);
        let writer = Arc::clone(writer);
        let thread = std::thread::spawn(move || {
            let work = move |_: &Connection| {
                let _ = entered.try_send(());
                let _ = held.lock().unwrap().recv_timeout(PATIENCE);
                Ok(())
            };
            writer.submit(work, Abandoned::MakeAnyway, PATIENCE).unwrap();
        });
        inside.recv_timeout(PATIENCE).unwrap();
        (release, thread)
    }

    type Answer<T> = Receiver<Result<T, StoreError>>;

    fn queued<T, F>(queue: &Queue<Box<dyn Change>>, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = sync_channel(1);
        let change = Work { work, fate: None, done: None, reply };
        queue.push(Box::new(change), Instant::now() + PATIENCE).unwrap();
        answer
    }

    fn rows(connection: &Connection) -> Vec<i64> {
        let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn on_disk(dir: &tempfile::TempDir) -> Connection {
        let connection = Connection::open(dir.path().join("t.db")).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY) STRICT")
            .unwrap();
        connection
    }

    #[test]
    fn what_waits_is_committed_together_and_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, other) = (on_disk(&dir), on_disk(&dir));
        let queue = Queue::new(8);
        let first = queued(&queue, insert(1));
        let again = queued(&queue, insert(1));
        let peek = queued(&queue, move |_| Ok(rows(&other)));
        let last = queued(&queue, insert(2));
        queue.close();
        run(&connection, &queue, Path::new("t.db"), &mut Nothing);
        assert_eq!(first.try_recv().unwrap(), Ok(1));
        assert!(again.try_recv().unwrap().is_err());
        assert_eq!(peek.try_recv().unwrap(), Ok(vec![]), "nothing is visible before the group's commit");
        assert_eq!(last.try_recv().unwrap(), Ok(1));
        assert_eq!(rows(&connection), [1, 2]);
    }

    /// Notes how many rows it finds each time it is called.
    struct Look {
        found: SyncSender<usize>,
        then: Idle,
    }

    impl Upkeep for Look {
        fn when_idle(&mut self, connection: &Connection) -> Idle {
            let _ = self.found.try_send(rows(connection).len());
            self.then
        }
    }

    #[test]
    fn upkeep_comes_after_all_that_waits_and_again_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let connection = on_disk(&dir);
        let queue = Arc::new(Queue::new(2 * GROUP));
        let waiting: Vec<_> = (0..i64::try_from(GROUP).unwrap() + 1).map(|n| queued(&queue, insert(n))).collect();
        let (found, finds) = sync_channel(8);
        let of_thread = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            let mut look = Look { found, then: Idle::UntilChanged };
            run(&connection, &of_thread, Path::new("t.db"), &mut look);
        });
        assert_eq!(finds.recv_timeout(PATIENCE).unwrap(), waiting.len(), "more than one group was in the queue");
        let last = queued(&queue, insert(-1));
        assert_eq!(finds.recv_timeout(PATIENCE).unwrap(), waiting.len() + 1);
        assert_eq!(last.recv_timeout(PATIENCE).unwrap(), Ok(1));
        queue.close();
        thread.join().unwrap();
        assert!(finds.try_recv().is_err(), "not without a change between");
    }

    #[test]
    fn neither_a_change_nor_the_end_waits_for_upkeep_that_has_more_to_do() {
        for then in [Idle::For(Duration::ZERO), Idle::For(Duration::from_secs(3600))] {
            let dir = tempfile::tempdir().unwrap();
            let (found, _finds) = sync_channel(1);
            let writer = Writer::start(on_disk(&dir), Path::new("t.db"), 8, Look { found, then }).unwrap();
            assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Ok(1), "{then:?}");
            assert_eq!(writer.close(PATIENCE), Ok(()), "{then:?}");
        }
    }

    #[test]
    fn a_group_that_is_undone_is_made_again_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let connection = on_disk(&dir);
        let queue = Queue::new(2);
        let good = queued(&queue, insert(7));
        // OR ROLLBACK undoes the whole transaction, as a full disk does.
        let bad = queued(&queue, |c| Ok(c.execute_batch("INSERT OR ROLLBACK INTO t VALUES (1), (1)")?));
        queue.close();
        run(&connection, &queue, Path::new("t.db"), &mut Nothing);
        assert_eq!(good.try_recv().unwrap(), Ok(1));
        assert!(bad.try_recv().unwrap().is_err());
        assert_eq!(rows(&connection), [7]);
    }

    #[test]
    fn what_nobody_waits_for_is_made_only_if_it_takes_away() {
        let writer = Arc::new(writer());
        let (release, held) = hold(&writer);
        let short = Duration::from_millis(5);
        let withdrawn = Err(StoreError::Withdrawn { waited: short });
        assert_eq!(writer.submit(insert(1), Abandoned::Skip, short), withdrawn);
        let timeout = Err(StoreError::Timeout { waited: short });
        assert_eq!(writer.submit(insert(2), Abandoned::MakeAnyway, short), timeout);
        drop(release);
        held.join().unwrap();
        assert_eq!(count(&writer), 1);
    }

    #[test]
    fn what_was_begun_when_its_caller_left_is_not_committed_and_the_rest_of_its_group_is() {
        let writer = Arc::new(writer());
        let (release, held) = sync_channel::<()>(1);
        let (entered, inside) = sync_channel(1);
        let held = Mutex::new(held);
        let gift = move |connection: &Connection| {
            connection.execute("INSERT INTO t VALUES (1)", [])?;
            let _ = entered.try_send(());
            let _ = held.lock().unwrap().recv_timeout(PATIENCE);
            Ok(())
        };
        let giver = Arc::clone(&writer);
        let short = Duration::from_millis(50);
        let giving = std::thread::spawn(move || giver.submit(gift, Abandoned::Skip, short));
        inside.recv_timeout(PATIENCE).unwrap();
        assert_eq!(giving.join().unwrap(), Err(StoreError::Withdrawn { waited: short }));
        drop(release);
        assert_eq!(writer.submit(insert(2), Abandoned::Skip, PATIENCE), Ok(1));
        assert_eq!(count(&writer), 1);
    }

    /// Without a write-ahead log a commit waits for every reader: one that hangs, for as long as it is wanted.
    #[test]
    fn who_leaves_while_the_commit_is_under_way_is_in_doubt_and_what_comes_next_knows_better() {
        let dir = tempfile::tempdir().unwrap();
        let [connection, reader] = [0, 1].map(|_| Connection::open(dir.path().join("t.db")).unwrap());
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        let writer = Writer::start(connection, Path::new("t.db"), 64, Nothing).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        assert!(rows(&reader).is_empty());
        let short = Duration::from_millis(200);
        let doubt = Err(StoreError::InDoubt { waited: short, made: vec![] });
        assert_eq!(writer.submit(insert(1), Abandoned::Skip, short), doubt);
        // One that waits behind it is not begun, so there is no doubt about it.
        let withdrawn = Err(StoreError::Withdrawn { waited: short });
        assert_eq!(writer.submit(insert(2), Abandoned::Skip, short), withdrawn);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&writer), 1);
        assert_eq!(rows(&reader), [1]);
    }

    #[test]
    fn closing_makes_what_waits_and_refuses_the_rest() {
        let writer = Arc::new(writer());
        let (release, held) = hold(&writer);
        assert_eq!(
            writer.close(Duration::from_millis(5)),
            Err(StoreError::Timeout { waited: Duration::from_millis(5) })
        );
        drop(release);
        held.join().unwrap();
        writer.close(PATIENCE).unwrap();
        writer.close(PATIENCE).unwrap();
        assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
    }

    #[test]
    fn a_writer_that_dies_leaves_nobody_waiting() {
        let writer = writer();
        assert!(writer.is_running());
        let die = |_: &Connection| -> Result<(), Failure> { panic!("as a fault of ours would") };
        assert_eq!(writer.submit(die, Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
        assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
        assert!(writer.close(PATIENCE).is_err());
        assert!(!writer.is_running());
    }
}
