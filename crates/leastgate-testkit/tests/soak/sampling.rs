//! Looking at the gateways from outside, once a second, and saying how it goes.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leastgate_testkit::vitals::resident;

use crate::scene::Subject;

/// From one look to the next.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// What one look at a gateway shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Seconds since the load began.
    pub(crate) at: f64,
    /// Resident memory in KiB.
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) in_flight: f64,
    /// Decisions so far.
    pub(crate) decisions: f64,
    /// Findings so far.
    pub(crate) found: u64,
}

impl Sample {
    pub(crate) fn take(subject: &Subject, begin: Instant) -> Self {
        let process = subject.gateway.id();
        let metrics = subject.gateway.metrics();
        let entries = |folder: &str| {
            fs::read_dir(format!("/proc/{process}/{folder}")).map_or(0, |entries| entries.count() as u64)
        };
        Self {
            at: begin.elapsed().as_secs_f64(),
            resident: resident(process) / 1024,
            descriptors: entries("fd"),
            threads: entries("task"),
            in_flight: metrics.sum("leastgate_http_requests_in_flight", &[]),
            decisions: metrics.sum("leastgate_decisions_total", &[]),
            found: subject.target.ledger.totals().found,
        }
    }

    /// Nothing is under way, and no connection is left over.
    pub(crate) fn is_as_idle_as(&self, before: &Self) -> bool {
        self.in_flight == 0.0 && self.descriptors <= before.descriptors
    }
}

/// The line that says how it goes: rewritten on a terminal, now and then a new one elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    length: Duration,
    is_terminal: bool,
    is_coloured: bool,
    told: Option<Instant>,
    /// The disturbance of late.
    pub(crate) latest: Arc<Mutex<&'static str>>,
}

/// From one line to the next where lines stay.
const LINES: Duration = Duration::from_secs(15);

impl Progress {
    pub(crate) fn new(length: Duration) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { length, is_terminal, is_coloured, told: None, latest: Arc::default() }
    }

    /// Tells of the last two looks at each gateway.
    pub(crate) fn tell(&mut self, looks: &[(Sample, Sample)]) {
        if !self.is_terminal && self.told.is_some_and(|told| told.elapsed() < LINES) {
            return;
        }
        self.told = Some(Instant::now());
        let line = self.line(looks);
        let mut stderr = io::stderr();
        // Nobody who reads along is no reason to stop.
        let _ = if self.is_terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
    }

    /// Ends the line.
    pub(crate) fn end(&self) {
        if self.is_terminal {
            let _ = writeln!(io::stderr());
        }
    }

    fn line(&self, looks: &[(Sample, Sample)]) -> String {
        let joined = |say: &dyn Fn(&(Sample, Sample)) -> String| looks.iter().map(say).collect::<Vec<_>>().join(" + ");
        let at = looks.first().map_or(0.0, |(_, now)| now.at);
        let found: u64 = looks.iter().map(|(_, now)| now.found).sum();
        let (mark, end) = if found > 0 && self.is_coloured { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        format!(
            "{} of {}  {} requests/s  RSS {} MiB  fds {}  in flight {}  {mark}wrong {found}{end}  {}",
            clock(at),
            clock(self.length.as_secs_f64()),
            joined(&|(before, now)| format!("{:.0}", rate(before, now))),
            joined(&|(_, now)| format!("{}.{}", now.resident / 1024, now.resident % 1024 * 10 / 1024)),
            joined(&|(_, now)| now.descriptors.to_string()),
            joined(&|(_, now)| format!("{:.0}", now.in_flight)),
            self.latest.lock().expect("no holder panics"),
        )
    }
}

/// Decisions per second from one look to another.
pub(crate) fn rate(before: &Sample, now: &Sample) -> f64 {
    let time = now.at - before.at;
    if time > 0.0 { (now.decisions - before.decisions) / time } else { 0.0 }
}

fn clock(seconds: f64) -> String {
    format!("{:.0}:{:02.0}", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}
