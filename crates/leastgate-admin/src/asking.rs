//! Questions to the store by who can't wait for a disk: what takes access away goes on without an answer.
//!
//! A read that hangs has no deadline of its own, and whoever made it hangs with it. So it is made on a thread of the few that
//! are there for that, and who asked waits as long as they like.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use leastgate_store::{StoreError, TokenStore};

/// How long who has something to take out of force waits: three such waits and the rest take less than a second.
pub(crate) const HASTE: Duration = Duration::from_millis(250);
/// How long they wait once it is out of force, or where the store alone knows what it is: as long as the store itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Questions answered at a time.
const THREADS: usize = 4;
/// Questions that wait; one more is answered at once, that there is no answer.
const MOST: usize = 256;

type Question = Box<dyn FnOnce(&dyn TokenStore) + Send>;

/// The threads, which end with this, but for those that hang.
pub(crate) struct Asking {
    questions: SyncSender<Question>,
}

/// A question that was asked. Dropped before it is begun, it is not begun any more.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    answer: Receiver<Result<T, StoreError>>,
    _asker: Arc<()>,
}

impl Asking {
    pub(crate) fn start(store: &Arc<dyn TokenStore>) -> Self {
        let (questions, waiting) = sync_channel(MOST);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let (waiting, store) = (Arc::clone(&waiting), Arc::downgrade(store));
            let thread = thread::Builder::new().name("ask".to_owned()).spawn(move || answer(&waiting, &store));
            if let Err(error) = thread {
                // With fewer of them some have no answer in time, and go on without.
                tracing::warn!(%error, "a thread that asks the store can't be had");
            }
        }
        Self { questions }
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<T> {
        let (reply, answer) = sync_channel(1);
        let asker = Arc::new(());
        let waits = Arc::downgrade(&asker);
        let question = move |store: &dyn TokenStore| {
            if waits.strong_count() > 0 {
                let _ = reply.try_send(question(store));
            }
        };
        // One that finds no room is dropped, and its asker is told so.
        let _ = self.questions.try_send(Box::new(question));
        Asked { answer, _asker: asker }
    }
}

impl<T> Asked<T> {
    /// What the store says. To be asked again after `Timeout`.
    ///
    /// # Errors
    /// `Timeout`: nothing so far. `Overloaded`: it was not asked. Or what the store failed with.
    pub(crate) fn wait(&self, patience: Duration) -> Result<T, StoreError> {
        self.answer.recv_timeout(patience).unwrap_or_else(|none| {
            Err(match none {
                RecvTimeoutError::Timeout => StoreError::Timeout { waited: patience },
                RecvTimeoutError::Disconnected => StoreError::Overloaded,
            })
        })
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

fn answer(waiting: &Mutex<Receiver<Question>>, store: &Weak<dyn TokenStore>) {
    loop {
        // One of them waits for the next question, the others for that one.
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let (Ok(question), Some(store)) = (next, store.upgrade()) else { return };
        question(&*store);
    }
}

#[cfg(test)]
mod tests {
    use leastgate_policy::{EnvironmentKey, Pepper};
    use leastgate_store::SqliteStore;

    use super::*;

    #[test]
    fn who_asks_a_store_that_hangs_is_told_in_time_and_hears_the_answer_if_it_comes() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
        let store: Arc<dyn TokenStore> = Arc::new(SqliteStore::in_memory("test", &key).unwrap());
        let asking = Asking::start(&store);
        assert_eq!(asking.ask(|store| store.count_tokens()).wait(PATIENCE), Ok(0));
        let (hold, held) = sync_channel::<()>(0);
        let held = Arc::new(Mutex::new(held));
        let hang = |_| {
            let held = Arc::clone(&held);
            asking.ask(move |_| {
                let _ = held.lock().unwrap().recv();
                Ok(())
            })
        };
        let hanging: Vec<_> = (0..THREADS).map(hang).collect();
        let waits = asking.ask(|store| store.count_tokens());
        let short = Duration::from_millis(5);
        assert_eq!(waits.wait(short), Err(StoreError::Timeout { waited: short }));
        let left = (0..MOST).map(|_| asking.ask(|_| -> Result<(), StoreError> { panic!("nobody waits for it") }));
        drop(left.collect::<Vec<_>>());
        assert_eq!(asking.ask(|_| Ok(())).wait(PATIENCE), Err(StoreError::Overloaded), "no more wait than may");
        drop(hold);
        for asked in hanging {
            assert_eq!(asked.wait(PATIENCE), Ok(()));
        }
        assert_eq!(waits.wait(PATIENCE), Ok(0), "who still wants to know is told");
    }
}
