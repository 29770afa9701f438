//! Signals on their way to the command, and the wait for its end.
//!
//! The command stays in this process's group: what is sent to the group, by a terminal, by `timeout` or by who ends a job,
//! reaches it as it would without us. Of the signals that this process gets, those that the terminal sent (Ctrl-C, Ctrl-\)
//! have reached the command already. Every other is passed on, even if somebody sent it to the whole group: that can't be
//! told, and a command that hears twice that it should end is better than one that never hears of it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgid, kill_process, waitid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::commands::interrupt::ignored;
use crate::exit::{Exit, Failure};

/// What is passed on.
const PASSED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// The process's signals, from the moment this is made.
#[derive(Debug)]
pub(super) struct Relay {
    stage: Arc<Mutex<Stage>>,
}

#[derive(Debug)]
enum Stage {
    /// There is no command yet; and, after a signal, there will be none.
    Before { ended_by: Option<i32> },
    /// It runs, and its process id is nobody else's.
    Running(Pid),
    /// What comes now would be too late: the token is being revoked.
    Over,
}

/// Why a command was not started.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// A signal came before.
    Ended(ExitStatus),
    /// The system refuses.
    Refused(io::Error),
}

impl Relay {
    /// Takes over the signals. Those that are ignored stay so, for the command too: that is how `nohup` works.
    pub(super) fn take() -> Result<Self, Failure> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let taken = PASSED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        // Where the end of children is ignored, nobody is told how they ended.
        let failed = |error| Failure::new(Exit::Failed, format!("signals can't be taken over: {error}"));
        let mut signals = SignalsInfo::<WithOrigin>::new(taken.chain([SIGCHLD])).map_err(failed)?;
        let stage = Arc::new(Mutex::new(Stage::Before { ended_by: None }));
        let of_thread = Arc::clone(&stage);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|origin| lock(&of_thread).take(&origin)))
            .map_err(failed)?;
        Ok(Self { stage })
    }

    /// Starts the command, unless a signal has come.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<Child, NotStarted> {
        let mut stage = lock(&self.stage);
        if let Stage::Before { ended_by: Some(signal) } = *stage {
            return Err(NotStarted::Ended(ExitStatus::from_raw(signal)));
        }
        let process = command.spawn().map_err(NotStarted::Refused)?;
        *stage = Stage::Running(Pid::from_child(&process));
        Ok(process)
    }

    /// Waits for the command's end.
    pub(super) fn wait(&self, mut process: Child) -> io::Result<ExitStatus> {
        let id = Pid::from_child(&process);
        // Until it is asked how it ended, its process id is its own: no signal goes to whoever has it next.
        while let Err(Errno::INTR) = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
        *lock(&self.stage) = Stage::Over;
        process.wait()
    }
}

impl Stage {
    fn take(&mut self, origin: &Origin) {
        match self {
            _ if origin.signal == SIGCHLD => {}
            Self::Before { ended_by } => *ended_by = ended_by.or(Some(origin.signal)),
            Self::Running(command) if !is_terminals(origin, *command) => {
                if let Some(signal) = Signal::from_named_raw(origin.signal) {
                    // If it is gone already, there is nobody to tell.
                    let _ = kill_process(*command, signal);
                }
            }
            Self::Running(_) | Self::Over => {}
        }
    }
}

/// Whether the terminal sent it, to the command as to us. A hang-up goes to the first process of a session alone.
fn is_terminals(origin: &Origin, command: Pid) -> bool {
    // Some systems do not say who sent a signal, but none says of the terminal that it was a process.
    matches!(origin.signal, SIGINT | SIGQUIT)
        && matches!(origin.cause, Cause::Kernel | Cause::Unknown)
        && getpgid(Some(command)) == getpgid(None)
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}
