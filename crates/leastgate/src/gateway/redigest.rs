//! Tokens that were used and are kept under the previous pepper get a digest under the current one: the store first, then
//! the table. A request never waits for this; what can't be kept now is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leastgate_config::TokenSource;
use leastgate_policy::{DigestCollision, Straggler, StragglerKind};
use leastgate_store::{MadeUnder, Redigested, StoreError, StragglerCounts};
use leastgate_telemetry::LifecycleEvent;

use super::Shared;

/// How often it is looked whether some wait.
const LOOK: Duration = Duration::from_millis(250);
/// How long a store that could not be written is left alone.
const REST: Duration = Duration::from_secs(5);
/// Kept in one commit, so that no other change waits long for it.
const BATCH: usize = 256;
/// Declared tokens that one line names.
const NAMES: usize = 20;
/// How often it is told what was done. Moves are forgotten after twice as long.
const TELL: Duration = Duration::from_secs(60);

/// The thread that does it, where there is a previous pepper.
pub(super) struct Redigester {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Tasks {
    shared: Arc<Shared>,
    source: TokenSource,
    done: Done,
}

/// What was done since it was told last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    tokens: u64,
    admins: u64,
    /// Declared tokens that were used: how many, and the names of some by their accessors.
    declared: u64,
    names: BTreeMap<String, String>,
    error: Option<StoreError>,
}

impl Redigester {
    pub(super) fn start(shared: Arc<Shared>, source: TokenSource) -> std::io::Result<Self> {
        if shared.authority.key().previous().is_none() {
            return Ok(Self { stop: None, thread: None });
        }
        let (stop, stopped) = sync_channel::<()>(0);
        let mut tasks = Tasks { shared, source, done: Done::default() };
        let thread = std::thread::Builder::new().name("redigest".into()).spawn(move || {
            let (mut next, mut tell) = (Instant::now(), Instant::now() + TELL);
            while stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Disconnected) {
                if next <= Instant::now() {
                    next = Instant::now() + tasks.run();
                }
                if tell <= Instant::now() {
                    tasks.tell();
                    tasks.shared.authority.age_moves();
                    tell = Instant::now() + TELL;
                }
            }
            tasks.tell_last();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Whether a thread that should run still does.
    pub(super) fn is_running(&self) -> bool {
        self.stop.is_none() || self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Tells what was done last, and ends.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that re-digests tokens has panicked");
        }
    }
}

impl Done {
    /// A declared token was used.
    fn used(&mut self, accessor: String, name: &str) {
        self.declared += 1;
        if self.names.len() < NAMES {
            self.names.insert(accessor, name.to_owned());
        }
    }
}

impl Tasks {
    /// All that wait, and how long to rest then.
    fn run(&mut self) -> Duration {
        loop {
            let waiting = self.shared.authority.stragglers().waiting(BATCH);
            let is_last = waiting.len() < BATCH;
            let begun: Vec<Straggler> = waiting.into_iter().filter(|straggler| self.begin(straggler)).collect();
            if let Err(error) = self.keep(&begun) {
                // Nothing is lost: they wait, and either digest is theirs.
                self.done.error = Some(error);
                return REST;
            }
            if is_last {
                return Duration::ZERO;
            }
        }
    }

    /// Whether there is something to be kept.
    fn begin(&mut self, straggler: &Straggler) -> bool {
        let authority = &self.shared.authority;
        match (straggler.kind, self.source) {
            (StragglerKind::Admin, _) => true,
            (StragglerKind::Token, TokenSource::Declared) => {
                match authority.token(&straggler.previous) {
                    Some(token) => {
                        self.done.used(straggler.accessor.to_string(), &token.name);
                        authority.stragglers().left(straggler);
                    }
                    // A reload has taken it away meanwhile.
                    None => authority.stragglers().done(straggler),
                }
                false
            }
            (StragglerKind::Token, TokenSource::Store) => match authority.begin_redigest(straggler) {
                Ok(true) => true,
                Ok(false) => {
                    authority.stragglers().done(straggler);
                    false
                }
                Err(DigestCollision) => self.leave(straggler),
            },
        }
    }

    fn keep(&mut self, begun: &[Straggler]) -> Result<(), StoreError> {
        if begun.is_empty() {
            return Ok(());
        }
        let kept = self.shared.store.redigest(begun.to_vec())?;
        for (straggler, outcome) in begun.iter().zip(kept) {
            self.finish(straggler, outcome);
        }
        Ok(())
    }

    fn finish(&mut self, straggler: &Straggler, outcome: Redigested) {
        let authority = &self.shared.authority;
        match (outcome, straggler.kind) {
            (Redigested::Done, StragglerKind::Admin) => self.done.admins += 1,
            (Redigested::Done, StragglerKind::Token) => match authority.finish_redigest(straggler) {
                Ok(_) => self.done.tokens += 1,
                Err(DigestCollision) => {
                    self.leave(straggler);
                    return;
                }
            },
            (Redigested::Gone, _) => authority.give_up_redigest(straggler),
            (Redigested::Collides, _) => {
                authority.give_up_redigest(straggler);
                self.leave(straggler);
                return;
            }
        }
        self.shared.authority.stragglers().done(straggler);
    }

    /// One in 2^64.
    fn leave(&self, straggler: &Straggler) -> bool {
        tracing::warn!(
            accessor = %straggler.accessor,
            "another token's digest under the current pepper begins with the same 64 bits: this one stays under the previous \
             pepper; replace it before that is taken away"
        );
        self.shared.authority.stragglers().left(straggler);
        false
    }

    /// What waits for the store goes on waiting, for the next use after the next start; what is only told is told now.
    fn tell_last(&mut self) {
        if self.source == TokenSource::Declared {
            let waiting = self.shared.authority.stragglers().waiting(usize::MAX);
            for straggler in waiting.iter().filter(|straggler| straggler.kind == StragglerKind::Token) {
                self.begin(straggler);
            }
        }
        self.tell();
    }

    /// One line and one event for all: a rotation touches every token once.
    fn tell(&mut self) {
        let Done { tokens, admins, declared, names, error } = std::mem::take(&mut self.done);
        if let Some(error) = error {
            tracing::warn!(%error, "tokens found under the previous pepper could not be kept under the current one yet");
        }
        if tokens + admins > 0 {
            tracing::info!(tokens, admins, "kept under the current pepper from now on");
            self.shared.telemetry.lifecycle(&LifecycleEvent {
                operation: "pepper.redigested".into(),
                result: "ok".into(),
                details: vec![("tokens".into(), tokens.to_string()), ("admins".into(), admins.to_string())],
                ..LifecycleEvent::default()
            });
        }
        if declared > 0 {
            let names: Vec<String> = names.into_values().collect();
            tracing::warn!(
                tokens = declared,
                "declared tokens were used that are made under pepper.previous, and only a new token replaces one: {}",
                names.join(", ")
            );
        }
    }
}

/// What a start finds under other peppers than the current one.
pub(super) fn tell_standing(counts: StragglerCounts, has_previous: bool, source: TokenSource) {
    let StragglerCounts { mut tokens, admins, mut unknown_tokens, unknown_admins } = counts;
    if source == TokenSource::Declared {
        // What a store keeps beside declared tokens is not in force.
        (tokens, unknown_tokens) = (0, 0);
    }
    let list = |under: MadeUnder| format!("`leastgate token list --pepper {}`", under.as_str());
    if unknown_tokens + unknown_admins > 0 {
        tracing::warn!(
            tokens = unknown_tokens,
            admins = unknown_admins,
            "made under a pepper that is not configured, so nobody can use them: name it as pepper.previous, or replace \
             them ({})",
            list(MadeUnder::Unknown)
        );
    }
    if !has_previous {
        return;
    }
    match (tokens + admins, source) {
        (0, TokenSource::Store) => {
            tracing::info!("nothing is kept under pepper.previous any more: it can be left out");
        }
        (0, TokenSource::Declared) => {
            tracing::info!("declared tokens made under pepper.previous are told once they are used");
        }
        _ => tracing::info!(
            tokens,
            admins,
            "still kept under pepper.previous, and under the current one from their next use on ({})",
            list(MadeUnder::Previous)
        ),
    }
}
