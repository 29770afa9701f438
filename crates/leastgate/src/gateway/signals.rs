//! Signals: SIGHUP reloads, SIGTERM and SIGINT drain, and a second one of those ends at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;

/// What the process was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Nothing, within the time waited.
    None,
    /// Take the files anew.
    Reload,
    /// Drain and end.
    Terminate,
}

/// The process's signals, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    received: Receiver<Signal>,
    reload_waits: Arc<AtomicBool>,
    hurry: Hurry,
}

/// The other end: what the thread that catches signals asks for.
#[derive(Debug)]
pub(super) struct Requests {
    send: SyncSender<Signal>,
    reload_waits: Arc<AtomicBool>,
    hurry: Hurry,
}

/// Set by the second request to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hurry(Arc<(Mutex<bool>, Condvar)>);

impl Signals {
    /// Takes over SIGHUP, SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take() -> anyhow::Result<Self> {
        let mut signals = Caught::new([SIGHUP, SIGINT, SIGTERM]).context("signals can't be taken over")?;
        let (requests, taken) = queue();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch(signals.forever(), &requests))
            .context("the signal thread can't be started")?;
        Ok(taken)
    }

    /// The next request; [`Signal::None`] when there was none for so long, `None` when there can be no more.
    pub(crate) fn next(&self, within: Duration) -> Option<Signal> {
        match self.received.recv_timeout(within) {
            Ok(signal) => {
                if signal == Signal::Reload {
                    self.reload_waits.store(false, Ordering::SeqCst);
                }
                Some(signal)
            }
            Err(RecvTimeoutError::Timeout) => Some(Signal::None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    pub(crate) fn cut_short(&self) -> Hurry {
        self.hurry.clone()
    }
}

impl Hurry {
    pub(crate) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long, or until it is set.
    pub(crate) fn wait(&self, delay: Duration) {
        let (set, changed) = &*self.0;
        let set = set.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_timeout_while(set, delay, |set| !*set));
    }

    fn set(&self) {
        let (set, changed) = &*self.0;
        *set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}

/// At most one reload and one end wait in it, so that there is always room for the other.
pub(super) fn queue() -> (Requests, Signals) {
    let (send, received) = sync_channel(2);
    let (reload_waits, hurry) = (Arc::new(AtomicBool::new(false)), Hurry::default());
    let taken = Signals { received, reload_waits: Arc::clone(&reload_waits), hurry: hurry.clone() };
    (Requests { send, reload_waits, hurry }, taken)
}

fn watch(signals: impl Iterator<Item = i32>, requests: &Requests) {
    let mut is_ending = false;
    for signal in signals {
        if signal == SIGHUP {
            requests.reload();
        } else if std::mem::replace(&mut is_ending, true) {
            requests.hurry.set();
        } else {
            requests.ask(Signal::Terminate);
        }
    }
}

impl Requests {
    /// One reload that has not begun takes what every other that waits would take.
    fn reload(&self) {
        if !self.reload_waits.swap(true, Ordering::SeqCst) {
            self.ask(Signal::Reload);
        }
    }

    pub(super) fn ask(&self, request: Signal) {
        // There is room; with nobody left to take it, the process has ended its work.
        let _ = self.send.try_send(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(taken: &Signals) -> Vec<Signal> {
        let next = || taken.next(Duration::ZERO).filter(|signal| *signal != Signal::None);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn no_number_of_reloads_keeps_the_end_away() {
        let (requests, taken) = queue();
        watch([SIGHUP; 40].into_iter().chain([SIGTERM]).chain([SIGHUP; 40]), &requests);
        assert_eq!(all(&taken), [Signal::Reload, Signal::Terminate]);
    }

    #[test]
    fn only_a_second_request_to_end_is_in_a_hurry() {
        let (requests, taken) = queue();
        watch([SIGHUP; 40].into_iter().chain([SIGTERM]), &requests);
        assert!(!taken.cut_short().is_set());
        let (requests, taken) = queue();
        watch([SIGTERM, SIGHUP, SIGINT].into_iter(), &requests);
        assert!(taken.cut_short().is_set());
        assert_eq!(all(&taken), [Signal::Terminate, Signal::Reload]);
    }

    #[test]
    fn a_reload_that_has_begun_stands_for_no_later_one() {
        let (requests, taken) = queue();
        for _ in 0..3 {
            watch([SIGHUP, SIGHUP].into_iter(), &requests);
            assert_eq!(all(&taken), [Signal::Reload]);
        }
    }
}
