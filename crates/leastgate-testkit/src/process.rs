//! A program under test: its output kept, its end waited for, its life over when the test's is.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::within;

/// A running program. Dropping it kills it; if the test is failing, what it wrote to stderr is shown.
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: Tape,
    stderr: Tape,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Everything it wrote to stdout.
    pub stdout: String,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with its output recorded and nothing to read.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        Self::spawn_into(name, command, Stdio::piped())
    }

    /// The same with stdout wherever the caller wants it: recorded only if it is piped to here.
    #[must_use]
    pub fn spawn_into(name: &str, command: &mut Command, stdout: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        // The command keeps its own end of a pipe: while it does, a reader never sees the end.
        command.stdout(Stdio::null());
        let stdout = child.stdout.take().map_or_else(Tape::blank, Tape::record);
        let stderr = Tape::record(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, status: None, stdout, stderr }
    }

    /// Runs `command` to its end; `None` when that did not come within `limit`.
    #[must_use]
    pub fn run(name: &str, command: &mut Command, limit: Duration) -> Ended {
        let mut process = Self::spawn(name, command);
        process.wait(limit).unwrap_or_else(|| panic!("{name} still runs after {limit:?}"))
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process can be signalled");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Waits for the end and gathers the output; `None` when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<Ended> {
        let status = within(limit, || self.poll())?;
        self.stdout.finish();
        self.stderr.finish();
        Some(Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() })
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.poll().is_none() {
            // It may end by itself in between: then there is nothing left to do.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- stderr of {}\n{}---", self.name, self.stderr());
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// One output stream, read to its end by a thread so that the program never blocks on a full pipe.
struct Tape {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tape {
    fn record(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                sink.lock().expect("no reader panics").extend_from_slice(&chunk[..read]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    /// Of a stream that goes elsewhere.
    fn blank() -> Self {
        Self { bytes: Arc::default(), reader: None }
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of a pipe does not panic");
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::PATIENCE;

    #[test]
    fn output_and_code_are_kept() {
        let ended = Process::run("sh", Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), PATIENCE);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_signal_ends_it() {
        let mut process = Process::spawn("sleep", Command::new("sleep").arg("60"));
        assert!(process.is_running());
        process.signal(Signal::TERM);
        assert_eq!(process.wait(PATIENCE).unwrap().code, None);
    }
}
