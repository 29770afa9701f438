//! What is done on a timer and never by a request: usage to the store, gauges of tokens, dead records purged, idle tokens
//! disabled.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leastgate_admin::api::TokenCounts;
use leastgate_admin::{IdleTokens, Looked};
use leastgate_config::TokenSource;
use leastgate_policy::{Accessor, Timestamp};
use leastgate_store::{StoreError, UsageBatch, UsageDelta};
use leastgate_telemetry::TokenGauge;

use super::Shared;
use super::clock_watch::ClockWatch;
use super::purging::{BATCH, Purging};

/// How often it is looked whether the time is in doubt.
const CLOCK: Duration = Duration::from_secs(10);
/// How often usage is handed to the store.
const FLUSH: Duration = Duration::from_secs(10);
/// How often tokens are counted by state: a walk over all of them.
const COUNT: Duration = Duration::from_secs(15);
/// How often tokens that are due for rotation are counted: a walk over an index.
const OVERDUE: Duration = Duration::from_secs(60);
/// How often dead records are looked for.
const PURGE: Duration = Duration::from_secs(3600);
/// Between these, how often tokens that nobody uses are looked for: a quarter of the time they may lie idle.
const IDLE_LEAST: Duration = Duration::from_secs(1);
const IDLE_MOST: Duration = Duration::from_secs(3600);
/// Usage handed over in one commit.
const USAGE_BATCH: usize = 10_000;
/// Usage kept in memory while the store can't be written; beyond it counts are lost, and that is logged.
const MOST_UNWRITTEN: usize = 100_000;

/// The thread that does it.
pub(super) struct Upkeep {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Tasks {
    shared: Arc<Shared>,
    /// When the last look for shadows that end was.
    looked: Timestamp,
    retention: Duration,
    clock: ClockWatch,
    purging: Purging,
    idle: IdleTokens,
    /// When tokens that nobody uses were looked for.
    looked_for_idle: Option<Instant>,
}

/// How often something is done, and what.
type Task = (Duration, fn(&mut Tasks));

/// Usage that the store does not hold for certain.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// By token and rule.
    rows: HashMap<(Accessor, Option<Arc<str>>), Pending>,
    /// Handed to the store, which may have it.
    handed: Option<UsageBatch>,
}

/// One row of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    count: u64,
    last_used: Timestamp,
    last_source: Option<IpAddr>,
}

impl Upkeep {
    pub(super) fn start(
        shared: Arc<Shared>,
        source: TokenSource,
        retention: Duration,
        idle: IdleTokens,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        let looked = shared.clock.timestamp();
        let (clock, purging) = (ClockWatch::default(), Purging::new(source));
        let mut tasks = Tasks { shared, looked, retention, clock, purging, idle, looked_for_idle: None };
        let thread = std::thread::Builder::new().name("upkeep".into()).spawn(move || {
            let begun = Instant::now();
            // Not after a whole interval first: a gateway that is restarted every hour would never purge.
            let mut next = [begun, begun, begun, begun + FLUSH, begun + FLUSH];
            loop {
                // The policy may change it at any time: it is asked anew at least as often as usage is flushed.
                let idle = tasks.next_look_for_idle(begun);
                let wait = next
                    .iter()
                    .copied()
                    .chain(idle)
                    .min()
                    .map_or(FLUSH, |next| next.saturating_duration_since(Instant::now()));
                if stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                    return tasks.flush_usage();
                }
                tasks.run_due(&mut next);
                if idle.is_some_and(|due| due <= Instant::now()) {
                    tasks.disable_idle();
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Whether its thread still runs.
    pub(super) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Hands the last usage over and ends.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the upkeep thread has panicked");
        }
    }
}

impl Tasks {
    fn run_due(&mut self, next: &mut [Instant; 5]) {
        let tasks: [Task; 5] = [
            (CLOCK, Self::look_at_clock),
            (COUNT, Self::count_tokens),
            (OVERDUE, Self::count_overdue),
            (FLUSH, Self::flush_usage),
            (PURGE, Self::purge),
        ];
        for (due, (every, task)) in next.iter_mut().zip(tasks) {
            if *due <= Instant::now() {
                task(self);
                *due = Instant::now() + every;
            }
        }
    }

    fn count_tokens(&mut self) {
        let counts = TokenCounts::of(&self.shared.authority.tokens(), self.shared.clock.timestamp());
        let telemetry = &self.shared.telemetry;
        for (gauge, count) in [
            // A state for each token: those that end soon are not counted as active again.
            (TokenGauge::Active, counts.active - counts.expiring),
            (TokenGauge::Expiring, counts.expiring),
            (TokenGauge::Expired, counts.expired),
            (TokenGauge::Disabled, counts.disabled),
            (TokenGauge::Revoked, counts.revoked),
            (TokenGauge::Rotating, counts.rotating),
        ] {
            telemetry.set_tokens(gauge, count);
        }
        telemetry.set_next_expiry(counts.next_expiry.map(|end| end.0));
        self.tell_ended_shadows();
        self.shared.restores.forget_written(&self.shared.telemetry);
    }

    fn count_overdue(&mut self) {
        let every = self.shared.authority.snapshot().and_then(|policy| policy.token_rules().rotation_every);
        let now = self.shared.clock.timestamp();
        let count = every.map_or(Ok(0), |every| {
            let before = Timestamp(now.0.saturating_sub(every.as_secs()));
            self.shared.store.count_made_before(before, now)
        });
        match count {
            Ok(count) => self.shared.telemetry.set_rotation_overdue(count),
            Err(error) => tracing::warn!(%error, "tokens due for rotation could not be counted"),
        }
    }

    /// From this moment on requests are refused that were forwarded before: whoever looks for why finds it in the log.
    fn tell_ended_shadows(&mut self) {
        let now = self.shared.clock.timestamp();
        for shadow in self.shared.state.shadows_ended(self.looked, now) {
            tracing::warn!("{}", shadow.tell(now));
        }
        self.looked = now;
    }

    fn flush_usage(&mut self) {
        self.shared.flush_usage();
    }

    /// Whatever else is due: a jump is seen soon after it.
    fn look_at_clock(&mut self) {
        self.clock.look(&self.shared);
    }

    /// Often enough that a token is idle for little longer than it may be, and not before a whole interval of usage could
    /// be counted: a token in use all the time is known to be by then.
    fn next_look_for_idle(&self, begun: Instant) -> Option<Instant> {
        let rule = self.idle.rule()?;
        let every = (rule / 4).clamp(IDLE_LEAST, IDLE_MOST);
        Some(self.looked_for_idle.map_or(begun + FLUSH, |looked| looked + every))
    }

    fn disable_idle(&mut self) {
        let Some(now) = self.clock.look(&self.shared) else {
            tracing::info!("idle tokens are not disabled while the time is in doubt; looked for again later");
            self.looked_for_idle = Some(Instant::now());
            return;
        };
        // Where there are more, they come after what is due besides them.
        let is_more = match self.idle.disable(now) {
            Ok(Looked::Some) => true,
            Ok(Looked::Unknown) => {
                tracing::warn!("token_rules.idle_disable waits: the store does not know yet which tokens were used");
                false
            }
            Ok(Looked::NotAsked | Looked::All(_)) => false,
            Err(error) => {
                tracing::warn!(%error, "idle tokens could not be looked for; tried again later");
                false
            }
        };
        if !is_more {
            self.looked_for_idle = Some(Instant::now());
        }
    }

    fn purge(&mut self) {
        let Some(now) = self.clock.look(&self.shared) else {
            return tracing::info!("dead tokens are not purged while the time is in doubt; tried again in an hour");
        };
        let before = Timestamp(now.0.saturating_sub(self.retention.as_secs()));
        let Shared { authority, store, .. } = &*self.shared;
        if let Err(error) = self.purging.run(authority, &**store, before, || store.purge(before, BATCH)) {
            tracing::warn!(%error, "dead tokens could not be purged; tried again in an hour");
        }
    }
}

impl Shared {
    /// Whether there is usage that the store did not take.
    pub(super) fn is_usage_behind(&self) -> bool {
        !self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Hands the usage counted so far to the store; what it does not take is kept for the next time.
    pub(super) fn flush_usage(&self) {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let overflow = self.telemetry.usage().overflow();
        if self.usage_overflow.swap(overflow, Ordering::Relaxed) < overflow {
            tracing::warn!(uses = overflow, "there was no room to count every use of a token since the start");
            self.lost_usage();
        }
        for delta in self.telemetry.usage().drain() {
            let rule = match delta.rule.map(|rule| self.authority.rule_id(rule)) {
                Some(None) => continue,
                rule => rule.flatten(),
            };
            let use_of = unwritten.rows.entry((delta.accessor, rule)).or_default();
            use_of.count += delta.count;
            if delta.last_used >= use_of.last_used {
                use_of.last_used = delta.last_used;
                use_of.last_source = delta.last_source.or(use_of.last_source);
            }
        }
        while let Some(error) = self.store_usage(&mut unwritten).err() {
            if unwritten.rows.len() <= MOST_UNWRITTEN {
                return tracing::warn!(%error, "usage is kept in memory until the store takes it");
            }
            tracing::error!(%error, lost = unwritten.rows.len(), "usage could not be stored for too long and is lost");
            *unwritten = Unwritten::default();
            self.lost_usage();
        }
    }

    /// When uses were last lost.
    pub(super) fn usage_lost(&self) -> Option<Timestamp> {
        let lost = self.usage_lost.load(Ordering::Relaxed);
        (lost > 0).then_some(Timestamp(lost))
    }

    fn lost_usage(&self) {
        self.usage_lost.store(self.clock.timestamp().0, Ordering::Relaxed);
    }

    fn store_usage(&self, unwritten: &mut Unwritten) -> Result<(), StoreError> {
        while let Some(batch) = unwritten.next()? {
            self.store.record_usage(batch)?;
            unwritten.handed = None;
        }
        Ok(())
    }
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.handed.is_none()
    }

    /// What to hand over next: a commit of everything would keep all changes waiting. The same again, until the store has it.
    fn next(&mut self) -> Result<Option<UsageBatch>, StoreError> {
        if self.handed.is_none() && !self.rows.is_empty() {
            let deltas: Vec<_> = self.rows.iter().take(USAGE_BATCH).map(|(key, use_of)| use_of.delta(key)).collect();
            let keys: Vec<_> = deltas.iter().map(|delta| (delta.accessor, delta.rule.clone())).collect();
            self.handed = Some(UsageBatch::draw(deltas)?);
            for key in keys {
                self.rows.remove(&key);
            }
        }
        Ok(self.handed.clone())
    }
}

impl Pending {
    fn delta(&self, (accessor, rule): &(Accessor, Option<Arc<str>>)) -> UsageDelta {
        let Self { count, last_used, last_source } = *self;
        UsageDelta { accessor: *accessor, rule: rule.clone(), count, last_used, last_source }
    }
}
