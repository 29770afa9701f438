//! A clock that a test can hold up, and a worker with it: what comes meanwhile waits in the kernel. Or it breaks, and
//! whoever asks it panics.

use std::sync::{Condvar, Mutex, MutexGuard};

use leastgate_telemetry::{Clock, Micros, SystemClock};

use crate::harness::PATIENCE;

#[derive(Debug, Default)]
pub(crate) struct TestClock {
    system: SystemClock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_held: bool,
    is_broken: bool,
    /// How many wait for it.
    waiting: usize,
}

impl TestClock {
    pub(crate) fn hold(&self) {
        self.state().is_held = true;
    }

    pub(crate) fn go_on(&self) {
        self.state().is_held = false;
        self.changed.notify_all();
    }

    pub(crate) fn break_down(&self) {
        self.state().is_broken = true;
    }

    /// Waits until somebody waits for it.
    pub(crate) fn wait_for_a_waiter(&self) {
        let (state, _) = self.changed.wait_timeout_while(self.state(), PATIENCE, |state| state.waiting == 0).unwrap();
        assert!(state.waiting > 0, "nobody asked for the time");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Micros {
        let mut state = self.state();
        if state.is_held {
            state.waiting += 1;
            self.changed.notify_all();
            state = self.changed.wait_while(state, |state| state.is_held).unwrap();
            state.waiting -= 1;
        }
        let is_broken = state.is_broken;
        drop(state);
        assert!(!is_broken, "a clock that a test has broken");
        self.system.now()
    }

    fn elapsed(&self) -> std::time::Duration {
        self.system.elapsed()
    }
}
