//! What the control plane works with: given by the wiring, and what it keeps for itself.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leastgate_policy::{Accessor, Authority, DigestCollision, PolicySnapshot, Timestamp, TokenDigest};
use leastgate_store::{AdminRecord, StoreError, TokenRecord, TokenStore, Undo};
use leastgate_telemetry::Telemetry;

use crate::api::{ListenerView, Moment, ReloadView, SinkView};
use crate::asking::Asking;
use crate::call::Failures;
use crate::lanes::Lanes;
use crate::ops::ProbeTarget;
use crate::problem::{Kind, Problem};
use crate::replays::Replays;
use crate::restriction::Restriction;
use crate::sweeps::Sweeps;
use crate::turn::{Held, MOST_WAITING, Turn};
use crate::unsynced::Unsynced;

/// What the wiring gives.
#[derive(Debug)]
pub struct AdminState {
    /// The one writer of what is allowed.
    pub authority: Arc<Authority>,
    /// Where administrators are kept, and tokens unless they are declared.
    pub store: Arc<dyn TokenStore>,
    /// Metrics, events, usage, and the clock.
    pub telemetry: Telemetry,
    /// The environment this gateway serves.
    pub environment: String,
    /// The product's version.
    pub version: String,
    /// Where tokens come from.
    pub tokens: Tokens,
    /// What `/probe/…` asks.
    pub probes: Vec<ProbeTarget>,
    /// What only the wiring knows.
    pub hooks: Hooks,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// The store.
    Store,
    /// The policy's files, by digest: they are changed there, not here.
    Declared {
        /// The files, to be named in refusals.
        files: Vec<PathBuf>,
    },
}

/// When the shadow of the api of this name ends.
pub type ShadowEnd = Box<dyn Fn(&str) -> Option<Moment> + Send + Sync>;

/// Questions to the rest of the process. Each answers at once.
pub struct Hooks {
    /// Whether the data listeners are bound.
    pub is_bound: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the gateway is going away.
    pub is_draining: Box<dyn Fn() -> bool + Send + Sync>,
    /// Where the rest of the gateway listens; the plane adds its own listeners as they are bound.
    pub listeners: Box<dyn Fn() -> Vec<ListenerView> + Send + Sync>,
    /// How the last reload went.
    pub reload: Box<dyn Fn() -> ReloadView + Send + Sync>,
    /// When the shadow of an api of the policy in force ends.
    pub shadow_until: ShadowEnd,
    /// How the audit sinks are.
    pub sinks: Box<dyn Fn() -> Vec<SinkView> + Send + Sync>,
    /// Puts the usage counted so far into the store, so that an answer about it is whole. Called on a thread made
    /// for blocking.
    pub flush_usage: Box<dyn Fn() + Send + Sync>,
    /// Whether usage was counted that the store does not hold, because it could not be written.
    pub is_usage_behind: Box<dyn Fn() -> bool + Send + Sync>,
    /// When uses were last lost: there was no room to count them, or the store did not take them for too long.
    pub usage_lost: Box<dyn Fn() -> Option<Timestamp> + Send + Sync>,
}

impl Default for Hooks {
    /// A gateway that is bound, stays, and has nothing to tell.
    fn default() -> Self {
        Self {
            is_bound: Box::new(|| true),
            is_draining: Box::new(|| false),
            listeners: Box::new(Vec::new),
            reload: Box::new(ReloadView::default),
            shadow_until: Box::new(|_| None),
            sinks: Box::new(Vec::new),
            flush_usage: Box::new(|| {}),
            is_usage_behind: Box::new(|| false),
            usage_lost: Box::new(|| None),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("is_bound", &(self.is_bound)())
            .field("is_draining", &(self.is_draining)())
            .finish_non_exhaustive()
    }
}

/// The state of a running plane.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) given: AdminState,
    pub(crate) started: Timestamp,
    pub(crate) failures: Failures,
    pub(crate) unsynced: Unsynced,
    pub(crate) replays: Replays,
    pub(crate) lanes: Lanes,
    pub(crate) asking: Asking,
    /// The plane's own listeners, as they are bound.
    pub(crate) bound: Vec<ListenerView>,
    /// Administrators who were revoked since the start, whether the store holds it or not.
    revoked_admins: Mutex<HashSet<Accessor>>,
    /// Administrators who have called: who they are where the store does not answer.
    callers: Mutex<HashMap<Accessor, AdminRecord>>,
    /// Held while a token's state changes in memory and in the store: two changes must not interleave, or a token
    /// would end up in one state here and in another there.
    changes: Turn,
    /// Held while the store revokes many, in parts, between which others change tokens.
    parts: Turn,
    pub(crate) sweeps: Sweeps,
}

/// Most revocations of many that wait for the one before them; the next is owed to the store at once.
const MOST_WAITING_FOR_PARTS: u32 = 4;
/// How long one waits for that.
const PARTS_PATIENCE: Duration = Duration::from_secs(1);

/// How long a change waits for its turn; with the store's own patience it is less than a caller's.
const TURN_PATIENCE: Duration = Duration::from_secs(3);

impl Shared {
    pub(crate) fn new(given: AdminState, bound: Vec<ListenerView>) -> Self {
        Self {
            started: given.telemetry.clock().timestamp(),
            failures: Failures::default(),
            unsynced: Unsynced::default(),
            replays: Replays::default(),
            lanes: Lanes::default(),
            asking: Asking::start(&given.store),
            bound,
            revoked_admins: Mutex::default(),
            callers: Mutex::default(),
            changes: Turn::new(MOST_WAITING),
            parts: Turn::new(MOST_WAITING_FOR_PARTS),
            sweeps: Sweeps::default(),
            given,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.given.telemetry.clock().timestamp()
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Result<Arc<PolicySnapshot>, Problem> {
        self.given.authority.snapshot().ok_or_else(|| {
            Problem::new(Kind::NoPolicy, "no policy is in force yet")
                .hint("look at the gateway's log: its policy files have errors")
        })
    }

    /// Waits for the turn to change tokens; what gives access takes it with [`crate::call::Call::lock_gift`]. `None`: others
    /// have it for too long, most likely at a store that hangs.
    pub(crate) fn lock_changes(&self) -> Option<Held<'_>> {
        self.changes.take(TURN_PATIENCE)
    }

    /// Waits for the turn to have the store revoke many. `None`: others have it for too long.
    pub(crate) fn lock_parts(&self) -> Option<Held<'_>> {
        self.parts.take(PARTS_PATIENCE)
    }

    /// Where a gift failed in a way that leaves it open whether it is kept, has it taken back. The caller has the turn, and
    /// tells its own caller that the gift was not made.
    pub(crate) fn refused(&self, error: &StoreError, undo: impl FnOnce(&[Accessor]) -> Vec<Undo>) {
        if let StoreError::InDoubt { made, .. } = error {
            tracing::warn!(%error, "a change was refused while the store wrote it");
            self.unsynced.take_back(undo(made), &self.given.telemetry);
        }
    }

    /// The same for new tokens.
    pub(crate) fn refused_new(&self, error: &StoreError) {
        self.refused(error, |made| made.iter().copied().map(Undo::Made).collect());
    }

    /// Puts a token in force as the store has it, but for what was taken from it since and the store owes. The caller
    /// has the turn.
    pub(crate) fn put_in_force(&self, record: &TokenRecord) -> Result<(), DigestCollision> {
        self.unsynced.put(record, |record, state| {
            self.given.authority.upsert(record.entry())?;
            if let Some(state) = state {
                self.given.authority.set_state(&record.digest, state);
            }
            Ok(())
        })?;
        self.sweeps.note(record);
        Ok(())
    }

    /// Takes something from a token in force, whoever has the turn: from what it is by now, so that nothing is undone that
    /// others have done since the caller looked.
    pub(crate) fn restrict_in_force(&self, digest: &TokenDigest, restriction: &Restriction) {
        self.given.authority.restrict(digest, |token| restriction.apply_in_force(token));
    }

    pub(crate) fn revoked_admins(&self) -> MutexGuard<'_, HashSet<Accessor>> {
        self.revoked_admins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn callers(&self) -> MutexGuard<'_, HashMap<Accessor, AdminRecord>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
