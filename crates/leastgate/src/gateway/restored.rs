//! A store that comes from a restore says so until it is on record: nothing runs while `leastgate store restore` does, so the
//! next start tells it. What says so is taken out of the store once the event is written: told twice is better than never.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leastgate_admin::api::Moment;
use leastgate_policy::Timestamp;
use leastgate_store::{Restored, Revocations, SqliteStore};
use leastgate_telemetry::{AdminActor, AdminEvent, Micros, Telemetry};

use super::{FLUSH, Shared};
use crate::exit::{Exit, Failure};

/// The restores of a store that wait to be on record.
#[derive(Debug)]
pub(super) struct Restores {
    store: Arc<SqliteStore>,
    /// When they were told by this process; `None`: nothing waits to be forgotten.
    told: Mutex<Option<Micros>>,
}

impl Restores {
    pub(super) fn of(store: &Arc<SqliteStore>) -> Self {
        Self { store: Arc::clone(store), told: Mutex::default() }
    }

    /// Tells them, before anybody is served what they brought back.
    ///
    /// # Errors
    /// The store can't be read, or the audit sinks can't record it.
    pub(super) fn tell(&self, shared: &Shared) -> Result<(), Failure> {
        let restores = self.store.restores().map_err(anyhow::Error::from)?;
        for restore in &restores {
            let Ok(place) = shared.telemetry.reserve_admin() else {
                let message = "the store was restored from a backup, and the audit sinks can't record it: mend them, and start again";
                return Err(Failure::new(Exit::Failed, message));
            };
            tracing::warn!(
                at = %Moment(Timestamp(restore.at)),
                uid = restore.by.uid,
                backup = restore.backup,
                revocations = restore.revocations.as_str(),
                "the store was restored from a backup"
            );
            shared.telemetry.admin(&event(shared, restore), Some(place));
        }
        // What happens from now on is written behind it.
        if !restores.is_empty() && shared.telemetry.flush(FLUSH) {
            *self.told() = Some(shared.clock.now());
        }
        Ok(())
    }

    /// Once what was told is written: not said again from then on.
    pub(super) fn forget_written(&self, telemetry: &Telemetry) {
        if self.told().is_some_and(|at| telemetry.is_written(at)) {
            self.forget();
        }
    }

    /// The same for who knows that everything is written.
    pub(super) fn forget(&self) {
        if self.told().is_none() {
            return;
        }
        match self.store.forget_restores() {
            Ok(()) => {
                tracing::info!("the restore of the store is on record");
                *self.told() = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the restore of the store is on record, and the next start tells it again");
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<Micros>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(shared: &Shared, restore: &Restored) -> AdminEvent {
    let detail = |name: &str, value: String| (name.to_owned(), value);
    let moment = |at: u64| Moment(Timestamp(at)).to_string();
    let mut details = vec![
        detail("at", moment(restore.at)),
        detail("backup", restore.backup.clone()),
        detail("backup.made", restore.made.map_or_else(|| "unknown".to_owned(), moment)),
        detail("backup.sealed", restore.made.is_some().to_string()),
        detail("revocations", restore.revocations.as_str().to_owned()),
        detail("lost", restore.lost.to_string()),
        detail("unknown", restore.unknown.to_string()),
        detail("kept", restore.kept.clone().unwrap_or_default()),
    ];
    match restore.revocations {
        Revocations::CarriedOver | Revocations::CarriedOverInPart => {
            details.push(detail("carried_over", restore.taken.to_string()));
        }
        Revocations::Forgotten => details.push(detail("forgotten", restore.taken.to_string())),
        Revocations::Unknown => {}
    }
    details.extend(restore.by.sudo_user.clone().map(|user| detail("sudo_user", user)));
    AdminEvent {
        operation: "store.restore".to_owned(),
        actor: AdminActor { subject: format!("uid:{}", restore.by.uid), ..AdminActor::default() },
        result: "ok".to_owned(),
        durable: Some(true),
        details,
        policy_rev: shared.authority.snapshot().map(|policy| policy.revision().to_owned()),
        ..AdminEvent::default()
    }
}
