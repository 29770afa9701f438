//! What the recorder answers: steps on the raw socket, so that any misbehaviour can be spelled.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a closed gate holds an answer at most.
const GATE_LIMIT: Duration = Duration::from_secs(60);

/// The answer to one path.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) early: bool,
    pub(super) steps: Vec<Step>,
}

/// One move on the connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes these bytes.
    Send(Arc<[u8]>),
    /// Writes that many bytes, each `x`.
    Flood(u64),
    /// A head with this length, and the [`Pattern`](crate::pattern::Pattern) as its body.
    Pattern(u64),
    /// Reads so much of the request's body at a time (after an early start), and waits that long before each part.
    ReadSlowly(usize, Duration),
    /// The echo answer: 200, the target as JSON, `X-Echo` the request's `X-Probe`.
    Echo,
    /// Reads the request's body (after an early start).
    ReadBody,
    /// Waits until the gate is open.
    Wait(Gate),
    /// Waits that long.
    Pause(Duration),
    /// Keeps the connection open and says nothing more.
    Hold,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

impl Default for Answer {
    fn default() -> Self {
        Self::steps([Step::Echo])
    }
}

impl Answer {
    /// Reads the whole request, then takes the steps.
    #[must_use]
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { early: false, steps: steps.into_iter().collect() }
    }

    /// Takes the steps before the request's body is read.
    #[must_use]
    pub fn early(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { early: true, steps: steps.into_iter().collect() }
    }

    /// Reads the whole request, then writes these bytes.
    #[must_use]
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::steps([Step::send(bytes)])
    }
}

impl Step {
    /// Writes these bytes.
    #[must_use]
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().into())
    }
}

/// Holds answers back until a test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets every waiting and later answer go on.
    pub fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().expect("no holder panics");
        drop(self.0.1.wait_timeout_while(open, GATE_LIMIT, |open| !*open).expect("no holder panics"));
    }
}
