//! A run from its start to the facts it is judged by.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::within;
use leastgate_testkit::vitals::reset_for_memory;

use crate::disturbing::{Pace, churn, disturb};
use crate::judging::Outcome;
use crate::load::Crowd;
use crate::options::Options;
use crate::record::Record;
use crate::report::Run;
use crate::sampling::{EVERY, Progress, Sample};
use crate::scene::{Scene, Subject};

/// What connections may take to be closed when nobody is there any more: past the idle time of those to the upstream.
const CLOSING: Duration = Duration::from_secs(30);

/// An upstream hangs for less than the gateway waits for an answer, and for more.
const PACE: Pace =
    Pace { pause: Duration::from_secs(3), down: Duration::from_millis(1500), hung: Duration::from_secs(4) };
const SHORT_PACE: Pace =
    Pace { pause: Duration::from_millis(700), down: Duration::from_millis(300), hung: Duration::from_millis(300) };

/// What is gathered of a gateway while it runs.
struct Gathered {
    samples: Vec<Sample>,
    before: Sample,
    record: Record,
    revoked: u64,
    /// What the machine had reset for want of memory when it began.
    starved: u64,
}

pub(crate) fn run(options: &Options) -> (Run, Vec<Outcome>) {
    let _ = writeln!(io::stderr(), "soak for {:?}, seed {}", options.length, options.seed);
    let scene = Scene::start(if options.is_short { "2MiB" } else { "64MiB" });
    let disturbances = AtomicU64::new(0);
    let gathered = under_load(&scene, options, &disturbances);
    let count = disturbances.load(Ordering::SeqCst);
    let run = Run { length: options.length, seed: options.seed, disturbances: count };
    (run, scene.subjects.into_iter().zip(gathered).map(|(subject, gathered)| outcome(subject, gathered)).collect())
}

fn under_load(scene: &Scene, options: &Options, disturbances: &AtomicU64) -> Vec<Gathered> {
    let begin = Instant::now();
    let end = begin + options.length;
    let mut gathered: Vec<Gathered> = scene.subjects.iter().map(|subject| Gathered::new(subject, begin)).collect();
    let mut progress = Progress::new(options.length);
    let pace = if options.is_short { SHORT_PACE } else { PACE };
    thread::scope(|scope| {
        let load = scope.spawn(|| load(scene, options.seed));
        let tokens: Vec<ScopedJoinHandle<'_, u64>> =
            scene.subjects.iter().map(|subject| scope.spawn(move || churn(subject, options.seed, end))).collect();
        let told = Arc::clone(&progress.latest);
        let disturbing = scope.spawn(move || {
            disturb(scene, options.seed, pace, end, |what| {
                disturbances.fetch_add(1, Ordering::SeqCst);
                *told.lock().expect("no holder panics") = what;
            });
        });
        while !disturbing.is_finished() || !tokens.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(EVERY);
            look(scene, begin, &mut gathered, &mut progress);
        }
        progress.end();
        for subject in &scene.subjects {
            subject.target.over.store(true, Ordering::SeqCst);
        }
        for (gathered, tokens) in gathered.iter_mut().zip(tokens) {
            gathered.revoked = tokens.join().expect("the admin API answers");
        }
        load.join().expect("the load ends by itself");
    });
    gathered
}

fn look(scene: &Scene, begin: Instant, gathered: &mut [Gathered], progress: &mut Progress) {
    let mut looks = Vec::new();
    for (subject, gathered) in scene.subjects.iter().zip(gathered) {
        let now = Sample::take(subject, begin);
        looks.push((gathered.samples.last().copied().unwrap_or(gathered.before), now));
        gathered.samples.push(now);
        if let Err(error) = gathered.record.follow() {
            subject.target.ledger.find(format!("{}: the audit stream: {error}", subject.name()));
        }
    }
    progress.tell(&looks);
}

/// Every visitor of every gateway, on one thread, until they have seen that it is over.
fn load(scene: &Scene, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let mut crowds: Vec<Crowd> = scene.subjects.iter().map(|subject| Crowd::start(&subject.target, seed)).collect();
        for crowd in &mut crowds {
            crowd.end().await;
        }
    });
}

impl Gathered {
    fn new(subject: &Subject, begin: Instant) -> Self {
        Self {
            samples: Vec::new(),
            before: Sample::take(subject, begin),
            record: Record::of(subject.gateway.path(), &subject.target.ledger),
            revoked: 0,
            starved: reset_for_memory(),
        }
    }
}

fn outcome(mut subject: Subject, mut gathered: Gathered) -> Outcome {
    let begin = Instant::now();
    let mut last = Sample::take(&subject, begin);
    let _ = within(CLOSING, || {
        last = Sample::take(&subject, begin);
        last.is_as_idle_as(&gathered.before).then_some(())
    });
    let metrics = subject.gateway.metrics();
    let ended = subject.gateway.stop();
    let chain = gathered.record.finish();
    let ledger = &subject.target.ledger;
    Outcome {
        name: subject.name(),
        samples: gathered.samples,
        idle: (gathered.before, last),
        metrics,
        record: gathered.record,
        chain,
        totals: ledger.totals(),
        unbalanced: ledger.unbalanced(),
        findings: ledger.findings(),
        log: ended.stderr,
        code: ended.code,
        revoked: gathered.revoked,
        starved: reset_for_memory() - gathered.starved,
    }
}
