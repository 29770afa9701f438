//! Somebody asks a command to end that should not end just anywhere: the first signal is noted, the second is final.

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::{Exit, Failure};

/// How often whoever waits for an answer looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that ask for an end, taken over until this is dropped.
#[derive(Debug)]
pub(super) struct Interrupt {
    has_come: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes them over: the first ends the work in good order, the second ends the process. Those that are ignored stay so.
    pub(super) fn take() -> Result<Self, Failure> {
        let has_come = Arc::new(AtomicBool::new(false));
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            flag::register_conditional_default(signal, Arc::clone(&has_come))
                .and_then(|_| flag::register(signal, Arc::clone(&has_come)))
                .map_err(|error| Failure::new(Exit::Failed, format!("signals can't be taken over: {error}")))?;
        }
        Ok(Self { has_come })
    }

    /// Whether one has come.
    pub(super) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Relaxed)
    }

    /// A line of standard input; `None` if a signal comes first, or nothing can be read.
    pub(super) fn line(&self) -> Option<String> {
        let (tell, told) = mpsc::channel();
        // A read can't be called off: whoever has been interrupted ends, and this thread with the process.
        thread::spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            tell.send(read.map(|_| line))
        });
        loop {
            match told.recv_timeout(LOOK) {
                _ if self.has_come() => return None,
                Ok(line) => return line.ok(),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // What follows has nothing to tidy up: a signal does what it does by default.
        self.has_come.store(true, Ordering::Relaxed);
    }
}

/// The ignored signals, as `/proc/self/status` has them: bit n - 1 is signal n. None where there is no such file.
pub(super) fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read() {
        let ignored = ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n");
        assert_eq!(ignored, 1 << (SIGHUP - 1) | 1 << 12);
        assert_eq!(super::ignored(""), 0);
    }
}
