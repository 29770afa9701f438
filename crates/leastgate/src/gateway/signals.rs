//! Signals: SIGHUP reloads, SIGTERM and SIGINT drain, and a second one of those ends at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Iterator;

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
        let mut signals = Iterator::new([SIGHUP, SIGINT, SIGTERM]).context("signals can't be taken over")?;
        let (send, received) = sync_channel(16);
        let hurry = Hurry::default();
        let second = hurry.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch(&mut signals, &send, &second))
            .context("the signal thread can't be started")?;
        Ok(Self { received, hurry })
    }

    /// The next request; [`Signal::None`] when there was none for so long, `None` when there can be no more.
    pub(crate) fn next(&self, within: Duration) -> Option<Signal> {
        match self.received.recv_timeout(within) {
            Ok(signal) => Some(signal),
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

fn watch(signals: &mut Iterator, send: &SyncSender<Signal>, second: &Hurry) {
    let mut ending = false;
    for signal in signals.forever() {
        let request = if signal == SIGHUP { Signal::Reload } else { Signal::Terminate };
        if request == Signal::Terminate && std::mem::replace(&mut ending, true) {
            second.set();
        }
        // A full queue holds requests enough: none of them is lost by leaving one out.
        let _ = send.try_send(request);
    }
}
