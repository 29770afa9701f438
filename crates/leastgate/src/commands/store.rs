//! `leastgate store`: backups of the records, their restore, and whether they are whole.

use std::path::{Path, PathBuf};

use leastgate_admin::api::Moment;
use leastgate_config::{LoadedGateway, find_gateway_file};
use leastgate_policy::EnvironmentKey;
use leastgate_store::archive::{self, ArchiveError, Carried, Holdings, Owner, Report, Restore, RestoreOptions, Seal};
use leastgate_store::{Hand, RestoredBy, StateDir, StoreError};
use serde_json::{Value, json};

use super::client;
use super::interrupt::Interrupt;
use super::progress::Line;
use crate::cli::{Global, Store, StoreRestore};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output::{self, Format};

pub(super) fn run(global: &Global, command: Store) -> Result<(), Failure> {
    match command {
        Store::Backup { file } => backup(global, &file),
        Store::Restore(arguments) => restore(global, &arguments),
        Store::Check { file } => check(global, file),
    }
}

/// What the gateway's file says of the store.
struct Gateway {
    loaded: LoadedGateway,
    key: EnvironmentKey,
}

impl Gateway {
    fn load(global: &Global) -> Result<Self, Failure> {
        let loaded = loading::gateway_file(global, Vec::new())?;
        let key = loading::environment_key(&loaded)?;
        Ok(Self { loaded, key })
    }

    /// `None` where nothing configures a gateway here: a backup may be looked at on any machine.
    fn find(global: &Global) -> Result<Option<Self>, Failure> {
        let is_overridden = std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("LEASTGATE__"));
        if find_gateway_file(global.config.as_deref()).is_none() && !is_overridden {
            return Ok(None);
        }
        Self::load(global).map(Some)
    }

    fn owner(&self) -> Owner<'_> {
        Owner { environment: &self.loaded.config.environment, key: &self.key }
    }

    fn state_dir(&self) -> Result<&Path, Failure> {
        self.loaded.config.state_dir.as_deref().ok_or_else(|| {
            let message = "the gateway's file has no state_dir, so this gateway has no store";
            Failure::new(Exit::Failed, message)
        })
    }
}

fn backup(global: &Global, file: &Path) -> Result<(), Failure> {
    let gateway = Gateway::load(global)?;
    let store = StateDir::store_in(gateway.state_dir()?);
    let report = {
        let interrupt = Interrupt::take()?;
        let line = Line::start(global, &interrupt);
        archive::backup(&store, file, gateway.owner(), loading::now(), &mut |now| line.show(now))
    };
    let report = report.map_err(refused)?;
    match global.output {
        Format::Json => return output::json(&described(file, &report)),
        Format::Name => output::data(file.display()),
        Format::Table => output::data(format_args!("{} holds {}", file.display(), counted(&report.holds))),
    }
    Ok(())
}

fn check(global: &Global, file: Option<PathBuf>) -> Result<(), Failure> {
    let gateway = if file.is_some() { Gateway::find(global)? } else { Some(Gateway::load(global)?) };
    let file = match (file, &gateway) {
        (Some(file), _) => file,
        (None, Some(gateway)) => StateDir::store_in(gateway.state_dir()?),
        (None, None) => return Err(Failure::new(Exit::Usage, "name the file to check")),
    };
    let report = {
        let interrupt = Interrupt::take()?;
        let line = Line::start(global, &interrupt);
        archive::check(&file, gateway.as_ref().map(Gateway::owner), &mut |now| line.show(now))
    };
    let report = report.map_err(refused)?;
    say_checked(global, &file, &report)?;
    if report.is_fine() { Ok(()) } else { Err(Failure::silent(Exit::Invalid)) }
}

fn say_checked(global: &Global, file: &Path, report: &Report) -> Result<(), Failure> {
    match global.output {
        Format::Json => {
            let mut value = described(file, report);
            value["valid"] = report.is_fine().into();
            value["faults"] = report.faults.into();
            value["problems"] = report
                .problems
                .iter()
                .map(|problem| json!({ "record": problem.record, "problem": problem.what, "fix": problem.fix }))
                .collect();
            return output::json(&value);
        }
        Format::Name => report.problems.iter().for_each(|problem| output::data(&problem.record)),
        Format::Table => say_table(file, report),
    }
    Ok(())
}

fn say_table(file: &Path, report: &Report) {
    report.problems.iter().for_each(output::data);
    let told = report.problems.len() as u64;
    if report.faults > told {
        output::data(format_args!("and {} more", report.faults - told));
    }
    if !report.is_compared {
        output::warn("no gateway's file was found here: environment and pepper were not compared");
    }
    if report.seal == Seal::Unknown {
        output::warn("the seal needs the pepper, and was not looked at: name the gateway's file with --config");
    }
    let verdict = if report.is_fine() { "is whole".to_owned() } else { format!("has {} fault(s)", report.faults) };
    output::data(format_args!("{} {verdict}: {}", file.display(), counted(&report.holds)));
}

fn restore(global: &Global, arguments: &StoreRestore) -> Result<(), Failure> {
    let gateway = Gateway::load(global)?;
    let state_dir = gateway.state_dir()?;
    let file = &arguments.file;
    let dir = StateDir::open_own(state_dir).map_err(|error| Failure::new(Exit::Failed, error))?;
    let options = RestoreOptions {
        unsealed: arguments.unsealed,
        forget_revocations: arguments.forget_revocations,
        salvage: arguments.salvage,
    };
    // Until the end: what is made ready is a whole copy of the store, and goes again if nothing comes of it.
    let interrupt = Interrupt::take()?;
    let ready = {
        let line = Line::start(global, &interrupt);
        Restore::prepare(&dir, file, gateway.owner(), options, hand(), &mut |now| line.show(now))
    };
    let ready = ready.map_err(refused)?;
    tell_consequences(file, &ready, options);
    client::confirm_or(&interrupt, &format!("Replace {} with it?", dir.store_path().display()), arguments.yes)?;
    let (report, carried) = (ready.report().clone(), ready.carried().cloned());
    let uses = if ready.counts_uses_anew() { "counted anew" } else { "carried over" };
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    let kept = ready.finish(&stamp).map_err(refused)?;
    let store = dir.store_path();
    match global.output {
        Format::Json => {
            let mut value = described(&store, &report);
            value["from"] = file.display().to_string().into();
            value["kept"] = kept.map(|path| path.display().to_string()).into();
            value["since"] = carried.as_ref().map_or(Value::Null, since);
            value["revocations"] = revocations(carried.as_ref(), options).into();
            value["uses"] = uses.into();
            return output::json(&value);
        }
        Format::Name => output::data(store.display()),
        Format::Table => {
            output::data(format_args!("{} holds {}", store.display(), counted(&report.holds)));
            if let Some(kept) = kept {
                output::note(format_args!(
                    "the former store is {}; remove it when it is no longer needed",
                    kept.display()
                ));
            }
        }
    }
    Ok(())
}

/// What becomes of what was taken away since the backup.
fn revocations(carried: Option<&Carried>, options: RestoreOptions) -> &'static str {
    match carried {
        None => "unknown",
        Some(_) if options.forget_revocations => "forgotten",
        Some(_) => "carried over",
    }
}

/// Who runs this: the next start of the gateway puts it on record.
fn hand() -> Hand {
    let sudo_user = loading::variable("SUDO_USER").map(|name| name.to_string_lossy().chars().take(80).collect());
    Hand { at: loading::now(), by: RestoredBy { uid: rustix::process::getuid().as_raw(), sudo_user } }
}

/// Says what becomes of whom, before it does.
fn tell_consequences(file: &Path, ready: &Restore, options: RestoreOptions) {
    let report = ready.report();
    let made = match report.seal {
        Seal::Good(at) => format!(", made at {}", Moment(at)),
        Seal::None | Seal::Broken | Seal::Unknown => ", without a seal".to_owned(),
    };
    output::note(format_args!("{}{made}: {}", file.display(), counted(&report.holds)));
    if ready.counts_uses_anew() {
        output::note(
            "which tokens were used since is not known of all of them: none counts as unused since before now",
        );
    }
    let Some(carried) = ready.carried() else {
        let message = "there is no present store: what was revoked since the backup can't be known, and lives again";
        output::warn(message);
        return;
    };
    tell_taken(carried, options.forget_revocations);
    if !carried.is_complete {
        output::warn(
            "the present store could not be read whole: more may have been revoked since, and would live again",
        );
    }
    if carried.lost + carried.lost_admins > 0 {
        output::warn(format_args!(
            "made since the backup, and gone with the restore: {} token(s), {} administrator(s)",
            carried.lost, carried.lost_admins
        ));
    }
    if carried.unknown + carried.unknown_admins > 0 {
        output::warn(format_args!(
            "in the backup and not in the present store: {} token(s), {} administrator(s); they live again, though they may \
             have been revoked since and purged by an older release. Revoke those that should not: {}",
            carried.unknown,
            carried.unknown_admins,
            carried.unknown_accessors.join(", ")
        ));
    }
}

fn tell_taken(carried: &Carried, forget: bool) {
    let Carried { revoked, disabled, rotated, shortened, narrowed, revoked_admins, .. } = carried;
    let since = format!(
        "{revoked} token(s) and {revoked_admins} administrator(s) revoked, {disabled} disabled, {rotated} rotated, \
         {shortened} with a nearer end, {narrowed} narrowed"
    );
    if revoked + disabled + rotated + shortened + narrowed + revoked_admins == 0 {
        output::note("nothing was revoked since the backup");
    } else if forget {
        output::warn(format_args!("since the backup, and undone by the restore: {since}"));
    } else {
        output::note(format_args!("since the backup, and so it stays: {since}"));
    }
}

fn since(carried: &Carried) -> Value {
    json!({
        "revoked": carried.revoked,
        "disabled": carried.disabled,
        "rotated": carried.rotated,
        "shortened": carried.shortened,
        "narrowed": carried.narrowed,
        "revoked_admins": carried.revoked_admins,
        "lost": carried.lost,
        "lost_admins": carried.lost_admins,
        "unknown": carried.unknown,
        "unknown_admins": carried.unknown_admins,
        "complete": carried.is_complete,
    })
}

fn described(file: &Path, report: &Report) -> Value {
    let (seal, made) = match report.seal {
        Seal::None => ("none", None),
        Seal::Good(at) => ("good", Some(Moment(at).to_string())),
        Seal::Broken => ("broken", None),
        Seal::Unknown => ("unknown", None),
    };
    let holds = &report.holds;
    json!({
        "file": file.display().to_string(),
        "schema": report.schema,
        "environment": report.environment,
        "compared": report.is_compared,
        "seal": seal,
        "made": made,
        "tokens": holds.tokens,
        "revoked_tokens": holds.revoked_tokens,
        "admins": holds.admins,
        "revoked_admins": holds.revoked_admins,
        "rules": holds.rules,
        "usage": holds.usage,
        "tombstones": holds.tombstones,
    })
}

fn counted(holds: &Holdings) -> String {
    format!(
        "{} token(s), {} of them revoked; {} administrator(s), {} of them revoked",
        holds.tokens, holds.revoked_tokens, holds.admins, holds.revoked_admins
    )
}

fn refused(error: ArchiveError) -> Failure {
    let exit = match &error {
        ArchiveError::Store(
            StoreError::Corrupt { .. }
            | StoreError::Foreign { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::UnknownObject { .. }
            | StoreError::WrongPepper { .. }
            | StoreError::OtherEnvironment { .. },
        )
        | ArchiveError::Faulty { .. }
        | ArchiveError::BrokenSeal { .. }
        | ArchiveError::NotAlone { .. }
        | ArchiveError::Unsealed { .. }
        | ArchiveError::NothingKnown { .. }
        | ArchiveError::Unreadable { .. }
        | ArchiveError::Unfit { .. } => Exit::Invalid,
        ArchiveError::Interrupted => Exit::Interrupted,
        ArchiveError::Same { .. } | ArchiveError::Reserved { .. } => Exit::Usage,
        ArchiveError::Store(_) | ArchiveError::Exists { .. } | ArchiveError::OthersFolder { .. } => Exit::Failed,
    };
    Failure::new(exit, error)
}
