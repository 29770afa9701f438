//! The one writer: a thread that owns the writing connection and commits what waits in one go.
//!
//! A commit costs two fsyncs however much is in it, so everything that waits is grouped into one transaction,
//! each change in a savepoint of its own. When the group fails (a full disk undoes all of it), every change is
//! made again alone: one that is too large for the disk must not take a revocation beside it down. What can wait
//! ([`Upkeep`]) is done while nothing else does.
//!
//! Who gives access and waits no longer takes the change back by leaving. Right before a commit the writer asks whether
//! anybody of the group has left, and if so makes it again without theirs; from there until the commit has succeeded, or is
//! known to have failed for good ([`commits`]), who leaves is in doubt, and knows it.

mod commits;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use self::commits::{Commits, Failed};
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
                let why = format!("the store did not finish within {patience:?}");
                answer.try_recv().unwrap_or(Err(StoreError::InDoubt { why, made: Vec::new() }))
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
    let mut commits = Commits::new(connection, path);
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
            Taken::Closed => return commits.close(),
        };
        due.get_or_insert_with(Instant::now);
        match commits.make(&mut group) {
            // Behind a foreign lock each further attempt would only wait as long again.
            Err(Failed::Undone(error)) if group.len() > 1 && !matches!(error, StoreError::Busy { .. }) => {
                for change in group {
                    let mut alone = vec![change];
                    let made = commits.make(&mut alone);
                    answer(alone, &made);
                }
            }
            made => answer(group, &made),
        }
    }
}

fn answer(group: Vec<Box<dyn Change>>, made: &Result<(), Failed>) {
    for change in group {
        let made = made.as_ref().copied().map_err(|failed| match failed {
            Failed::Undone(error) => error.clone(),
            Failed::InDoubt(error) if change.fate().is_none() => error.clone(),
            Failed::InDoubt(error) => {
                StoreError::InDoubt { why: format!("the store failed while it wrote ({error})"), made: Vec::new() }
            }
        });
        change.answer(made);
    }
}

#[cfg(test)]
mod tests;
