//! What must hold when a run is over.
//!
//! Memory and descriptors are compared by medians: that of the last fifth of the run with that of the third, the first two
//! being the warm-up (the ring of recent events fills, and the allocator's heaps grow with the worst moment so far, which a
//! new outage may surpass for minutes). A median is deaf to what comes and goes, a fifth of a run of a quarter of an hour
//! holds every disturbance several times, and a leak that matters grows on through the last two fifths. Allowed are 3 %, for
//! the allocator's pages, and a constant, so that a small process is not judged by single pages.
//!
//! What comes slowly shows in the slope of a straight line through the last three fifths. It is told of each run, and judged
//! in long ones: the heaps grow by a page now and then, which is much for an hour if it came in the last minutes.

use std::time::Duration;

use leastgate_testkit::metrics::Metrics;

use crate::ledger::Totals;
use crate::record::Record;
use crate::sampling::Sample;

/// Growth that is allowed, as a part and as a constant (KiB, descriptors).
const PART: f64 = 0.03;
const MEMORY: f64 = 1024.0;
const DESCRIPTORS: f64 = 6.0;

/// The steepest slope of memory, in MiB an hour, and from which length of a run on it is judged.
const SLOPE: f64 = 10.0;
const SLOPED: Duration = Duration::from_secs(30 * 60);

/// Threads that a pool may have started since.
const THREADS: f64 = 2.0;

/// What part of the legitimate requests may need the excuse that their upstream was out.
const EXCUSED: f64 = 0.25;

/// In a run of seconds everything is still warming up, and outages are not rare: here only a flood shows.
const SHORT_PART: f64 = 1.0;
const SHORT_MEMORY: f64 = 64.0 * 1024.0;
const SHORT_DESCRIPTORS: f64 = 100.0;
const SHORT_THREADS: f64 = 8.0;
const SHORT_EXCUSED: f64 = 0.6;

/// Words of lines that the disturbances cause.
const EXPECTED: [&str; 3] = [
    "policy not reloaded, the one in force stays",
    "certificates not replaced, those in force stay",
    "an upstream did not answer",
];

/// One judgement.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) gateway: &'static str,
    pub(crate) what: &'static str,
    pub(crate) holds: bool,
    /// The figures it rests on.
    pub(crate) says: String,
}

/// What is known of a gateway after the run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
    /// Before the load, and once it was over and everybody had gone.
    pub(crate) idle: (Sample, Sample),
    /// The metrics when nobody was there any more.
    pub(crate) metrics: Metrics,
    pub(crate) record: Record,
    /// Checkpoints, or what is wrong with the chain.
    pub(crate) chain: Result<usize, String>,
    pub(crate) totals: Totals,
    pub(crate) unbalanced: Vec<String>,
    pub(crate) findings: Vec<String>,
    pub(crate) log: String,
    pub(crate) code: Option<i32>,
    pub(crate) revoked: u64,
    /// Connections that the kernel has reset because TCP had no memory left, whoever's they were.
    pub(crate) starved: u64,
}

/// A figure after the warm-up, and in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    pub(crate) before: f64,
    pub(crate) after: f64,
}

impl Growth {
    /// The medians of the third and of the last fifth.
    pub(crate) fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        let fifth = samples.len() / 5;
        let median = |samples: &[Sample]| {
            let mut figures: Vec<f64> = samples.iter().map(&figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        Self { before: median(&samples[fifth * 2..fifth * 3]), after: median(&samples[samples.len() - fifth..]) }
    }

    fn is_within(self, part: f64, constant: f64) -> bool {
        self.after <= self.before * (1.0 + part) + constant
    }
}

/// Of the straight line with the least squares; 0 for what is no line.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (middle, level) = (mean(|point| point.0), mean(|point| point.1));
    let (rise, run) = points
        .iter()
        .fold((0.0, 0.0), |(rise, run), (x, y)| (rise + (x - middle) * (y - level), run + (x - middle).powi(2)));
    if run > 0.0 { rise / run } else { 0.0 }
}

/// How complaints are told: how many there are, and the first of those that were kept.
fn told(count: u64, complaints: &[String]) -> String {
    let first: Vec<&str> = complaints.iter().take(3).map(String::as_str).collect();
    format!("{count} {}", first.join("; ")).trim_end().to_owned()
}

impl Outcome {
    /// Memory in KiB.
    pub(crate) fn memory(&self) -> Growth {
        Growth::of(&self.samples, |sample| sample.resident as f64)
    }

    pub(crate) fn descriptors(&self) -> Growth {
        Growth::of(&self.samples, |sample| sample.descriptors as f64)
    }

    /// Of memory over the last three fifths, in MiB an hour.
    pub(crate) fn slope(&self) -> f64 {
        let points = self.samples.iter().map(|sample| (sample.at / 3600.0, sample.resident as f64 / 1024.0));
        slope(&points.skip(self.samples.len() * 2 / 5).collect::<Vec<_>>())
    }

    /// Every judgement on a run of this length.
    pub(crate) fn judge(&self, is_short: bool, length: Duration) -> Vec<Verdict> {
        let mut verdicts = self.growth(is_short);
        if length >= SLOPED {
            let slope = self.slope();
            verdicts.push(self.verdict("memory does not climb", slope <= SLOPE, format!("{slope:+.1} MiB an hour")));
        }
        verdicts.extend(self.rest());
        verdicts.extend(self.events());
        verdicts.extend(self.answers(if is_short { SHORT_EXCUSED } else { EXCUSED }));
        verdicts
    }

    fn verdict(&self, what: &'static str, holds: bool, says: String) -> Verdict {
        Verdict { gateway: self.name, what, holds, says }
    }

    fn growth(&self, is_short: bool) -> Vec<Verdict> {
        let (part, memory_over, descriptors_over, threads_over) = if is_short {
            (SHORT_PART, SHORT_MEMORY, SHORT_DESCRIPTORS, SHORT_THREADS)
        } else {
            (PART, MEMORY, DESCRIPTORS, THREADS)
        };
        let (memory, descriptors) = (self.memory(), self.descriptors());
        let threads = Growth::of(&self.samples, |sample| sample.threads as f64);
        vec![
            self.verdict(
                "memory is flat",
                memory.is_within(part, memory_over),
                format!("{:.1} → {:.1} MiB", memory.before / 1024.0, memory.after / 1024.0),
            ),
            self.verdict(
                "descriptors are flat",
                descriptors.is_within(part, descriptors_over),
                format!("{:.0} → {:.0}", descriptors.before, descriptors.after),
            ),
            self.verdict(
                "threads are flat",
                threads.after <= threads.before + threads_over,
                format!("{:.0} → {:.0}", threads.before, threads.after),
            ),
        ]
    }

    fn rest(&self) -> Vec<Verdict> {
        let (before, after) = self.idle;
        let depth = self.metrics.sum("leastgate_audit_queue_depth", &[]);
        let unexpected = self.unexpected();
        vec![
            // Where it does not hold, the machine was too small for all that ran on it: an answer that is missing then says
            // nothing about the gateway.
            self.verdict(
                "the kernel had memory for TCP",
                self.starved == 0,
                format!("{} connections of this machine reset without it", self.starved),
            ),
            self.verdict(
                "nothing is in flight when everybody has gone",
                after.in_flight == 0.0 && depth == 0.0,
                format!("requests {}, events {depth}", after.in_flight),
            ),
            self.verdict(
                "connections are closed when everybody has gone",
                after.descriptors <= before.descriptors,
                format!("descriptors {} → {}", before.descriptors, after.descriptors),
            ),
            self.verdict(
                "the log holds nothing unexpected",
                unexpected.is_empty(),
                told(unexpected.len() as u64, &unexpected),
            ),
            self.verdict("the gateway ends when it is told to", self.code == Some(0), format!("{:?}", self.code)),
        ]
    }

    /// Lines of the log that no disturbance explains.
    fn unexpected(&self) -> Vec<String> {
        let is_loud = |line: &&str| ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word));
        let is_expected = |line: &str| EXPECTED.iter().any(|words| line.contains(words));
        self.log.lines().filter(is_loud).filter(|line| !is_expected(line)).map(str::to_owned).collect()
    }

    fn events(&self) -> Vec<Verdict> {
        let count = |kind| self.record.count(kind);
        let decisions = count("decision");
        let [counted, finished] =
            ["leastgate_decisions_total", "leastgate_http_requests_total"].map(|name| self.metrics.sum(name, &[]));
        let (lost, totals) = (count("gap") + count("summary"), self.totals);
        vec![
            self.verdict(
                "events are requests",
                counted == decisions as f64 && finished == decisions as f64,
                format!("{decisions} events of decisions, {counted} decisions and {finished} requests by the metrics"),
            ),
            self.verdict(
                "each answered request has one event, with its status",
                self.unbalanced.is_empty(),
                format!(
                    "{} answered of {} sent; wrong: {}",
                    totals.answered,
                    totals.sent,
                    told(self.unbalanced.len() as u64, &self.unbalanced)
                ),
            ),
            self.verdict(
                "no event is of nothing",
                self.record.unnamed <= totals.unnamed,
                format!("{} of {} heads that nobody can read", self.record.unnamed, totals.unnamed),
            ),
            self.verdict(
                "no event is lost",
                lost == 0 && self.metrics.sum("leastgate_audit_dropped_total", &[]) == 0.0,
                format!("{} gaps, {} summaries", count("gap"), count("summary")),
            ),
            self.verdict(
                "the audit chain verifies",
                self.chain.is_ok(),
                format!("{:?} checkpoints, {} segments rotated", self.chain, self.record.segments),
            ),
        ]
    }

    fn answers(&self, excused: f64) -> Vec<Verdict> {
        let totals = self.totals;
        let part = totals.excused as f64 / (totals.right + totals.excused).max(1) as f64;
        vec![
            self.verdict(
                "every legitimate request gets its own answer, every other its refusal, and no revoked token passes",
                totals.found == 0,
                told(totals.found, &self.findings),
            ),
            self.verdict(
                "most requests did not need the excuse of an outage",
                totals.right > 0 && part < excused && self.revoked > 0,
                format!("{} right, {} in outages, {} tokens revoked", totals.right, totals.excused, self.revoked),
            ),
        ]
    }
}
