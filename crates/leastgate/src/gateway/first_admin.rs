//! How a store without an administrator comes by one at a start: a credential that is drawn and written into a file, or
//! one that the operator of many gateways gives to all of them. It is on record as every change of who may do what.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use leastgate_admin::{BootstrapError, UnfitCredential, bootstrap_given};
use leastgate_config::SecretSource;
use leastgate_policy::{Accessor, TokenKind};
use leastgate_store::draw::{draw_accessor, draw_secret};
use leastgate_store::{AdminRecord, AdminRole, MayGrant, StoreError};
use leastgate_telemetry::{AdminActor, AdminEvent};

use super::{Shared, loading};
use crate::exit::{Exit, Failure};
use crate::files::NewFile;

/// What the first administrator is called.
const NAME: &str = "root";

/// Where the first administrator's credential goes, or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstAdmin {
    /// Into this new file.
    Write(PathBuf),
    /// From here.
    Given(SecretSource),
}

/// An administrator that was made.
struct Made {
    id: Accessor,
    /// What the start ends with where it is not known whether the store has kept it.
    doubt: Option<Failure>,
}

impl Made {
    fn sure(record: &AdminRecord) -> Self {
        Self { id: record.id, doubt: None }
    }
}

impl FirstAdmin {
    /// Makes it, unless there is an administrator already.
    ///
    /// # Errors
    /// What was given is not fit for it (3), or it can't be kept, written or recorded.
    pub(super) fn make(&self, shared: &Shared, environment: &str) -> Result<(), Failure> {
        if let Self::Write(path) = self {
            self.settle(shared, path)?;
        }
        let admins = shared.store.count_admins().map_err(|error| self.failed(&error))?;
        if admins > 0 {
            // Not even looked at: what a first start was given may be gone by now, and had better be.
            tracing::info!("the store has administrators: {self} is ignored");
            return Ok(());
        }
        let Ok(place) = shared.telemetry.reserve_admin() else {
            return Err(self.failed(&"the audit sinks can't record it"));
        };
        let made = match self {
            Self::Write(path) => self.write(shared, environment, path)?,
            Self::Given(source) => self.register(shared, environment, source)?,
        };
        let Some(Made { id, doubt }) = made else { return Ok(()) };
        shared.telemetry.admin(&self.event(shared, id, doubt.is_some()), Some(place));
        if let Some(failure) = doubt {
            return Err(failure);
        }
        tracing::info!(%id, "administrator {NAME} is made ({self})");
        Ok(())
    }

    /// On the disk before it is anybody's: an administrator whose credential nobody has would keep every later start from
    /// making another.
    fn write(&self, shared: &Shared, environment: &str, path: &Path) -> Result<Option<Made>, Failure> {
        let failed = |error: &dyn fmt::Display| self.failed(&format!("{}: {error}", path.display()));
        let file = match NewFile::create(path, 0o600) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return self.find_taken(shared, path),
            made => made.map_err(|error| failed(&error))?,
        };
        let drawn = draw_accessor().and_then(|id| draw_secret(TokenKind::Admin, environment, id));
        let secret = drawn.map_err(|error| self.failed(&error))?;
        let credential = secret.expose().as_bytes();
        file.fill(credential).map_err(|error| failed(&error))?;
        let (store, key) = (&*shared.store, shared.authority.key());
        match bootstrap_given(store, environment, key, credential, NAME, loading::now()) {
            Ok(record) => Ok(record.as_ref().map(Made::sure)),
            Err(BootstrapError::Store(error @ StoreError::InDoubt { .. })) => {
                let left = in_doubt(path);
                fs::rename(path, &left).map_err(|second| failed(&format!("{error}; {second}")))?;
                self.doubt(&error, &format!("{} has its credential until then", left.display()))
            }
            // It opens nothing, and the next start is to write another.
            Err(error) => Err(match fs::remove_file(path) {
                Ok(()) => self.failed(&error),
                Err(second) => self.failed(&format!("{error}; {} opens nothing: remove it ({second})", path.display())),
            }),
        }
    }

    /// This process may not live to see what becomes of it, so nothing takes it back.
    fn doubt(&self, error: &StoreError, then: &str) -> Result<Option<Made>, Failure> {
        let StoreError::InDoubt { why, made } = error else { return Err(self.failed(error)) };
        let &[id] = &made[..] else { return Err(self.failed(error)) };
        let message = format!("{why}, and whether administrator {id} is kept is not known yet: start again; {then}");
        Ok(Some(Made { id, doubt: Some(self.failed(&message)) }))
    }

    /// A former start has left a credential of which it is known by now whether it is anybody's.
    fn settle(&self, shared: &Shared, path: &Path) -> Result<(), Failure> {
        let left = in_doubt(path);
        let failed = |error: &dyn fmt::Display| self.failed(&format!("{}: {error}", left.display()));
        let credential = match fs::read(&left) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|error| failed(&error))?,
        };
        let digest = shared.authority.key().digest(credential.trim_ascii());
        let admin = shared.store.find_admin(&digest).map_err(|error| self.failed(&error))?;
        if admin.is_some_and(|admin| admin.revoked.is_none()) {
            // Unlike a renaming it replaces nothing.
            let file =
                NewFile::create(path, 0o600).map_err(|error| self.failed(&format!("{}: {error}", path.display())))?;
            file.fill(credential.trim_ascii()).map_err(|error| failed(&error))?;
            tracing::info!("the administrator of the start before is kept: {} has the credential", path.display());
        }
        fs::remove_file(&left).map_err(|error| failed(&error))
    }

    /// Something has the file's name. It may be what a first start wrote, whose administrator was revoked since.
    fn find_taken(&self, shared: &Shared, path: &Path) -> Result<Option<Made>, Failure> {
        let former = shared.store.list_admins().map_err(|error| self.failed(&error))?;
        let path = path.display();
        if former.is_empty() {
            let message = format!(
                "{path} is there already, and is not written over: name another file, or remove that one if it is what a \
                 start left that did not get further"
            );
            return Err(self.failed(&message));
        }
        // Whoever revoked them did so for a reason, and a gateway that stays down for it serves nobody.
        tracing::warn!(
            "{self}: every administrator is revoked, and {path} is there already; the gateway serves without an \
             administrator: remove the file and start again to have another one made"
        );
        Ok(None)
    }

    fn register(&self, shared: &Shared, environment: &str, source: &SecretSource) -> Result<Option<Made>, Failure> {
        let invalid = |error: &dyn fmt::Display| Failure::new(Exit::Invalid, format!("{self}: {error}"));
        let text = source.read(&|name| std::env::var_os(name)).map_err(|error| invalid(&error))?;
        let (store, key) = (&*shared.store, shared.authority.key());
        match bootstrap_given(store, environment, key, text.trim_ascii(), NAME, loading::now()) {
            // Whoever revoked it did so for a reason, and a gateway that stays down for it serves nobody.
            Err(BootstrapError::Unfit(revoked @ UnfitCredential::Revoked)) => {
                tracing::warn!("{self}: {revoked}; the gateway serves without an administrator");
                Ok(None)
            }
            Err(BootstrapError::Unfit(unfit)) => Err(invalid(&unfit)),
            Err(BootstrapError::Store(error @ StoreError::InDoubt { .. })) => {
                self.doubt(&error, "the same credential is taken again if it is not")
            }
            Err(error) => Err(self.failed(&error)),
            Ok(record) => Ok(record.as_ref().map(Made::sure)),
        }
    }

    fn event(&self, shared: &Shared, id: Accessor, is_in_doubt: bool) -> AdminEvent {
        let detail = |name: &str, value: String| (name.to_owned(), value);
        AdminEvent {
            operation: "admin.bootstrap".to_owned(),
            actor: AdminActor { subject: "bootstrap".to_owned(), ..AdminActor::default() },
            target: Some(id.to_string()),
            reason: Some("the store had no administrator".to_owned()),
            result: if is_in_doubt { "in_doubt" } else { "ok" }.to_owned(),
            durable: Some(!is_in_doubt),
            details: vec![
                detail("name", NAME.to_owned()),
                detail("role", AdminRole::Admin.to_string()),
                detail("may_grant", serde_json::to_string(&MayGrant::everything()).unwrap_or_default()),
                detail("by", self.to_string()),
            ],
            policy_rev: shared.authority.snapshot().map(|policy| policy.revision().to_owned()),
            ..AdminEvent::default()
        }
    }

    fn failed(&self, error: &dyn fmt::Display) -> Failure {
        Failure::new(Exit::Failed, format!("{self}: {error}"))
    }
}

/// Where a credential is put of which it is not known whether it is an administrator's.
fn in_doubt(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".in-doubt");
    name.into()
}

impl fmt::Display for FirstAdmin {
    /// As its user knows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(_) => f.write_str("--bootstrap-admin"),
            Self::Given(SecretSource::Env(name)) => f.write_str(name),
            Self::Given(_) => f.write_str("--bootstrap-admin-from"),
        }
    }
}
