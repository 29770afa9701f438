//! `leastgate serve`: from the files to a gateway that runs until a signal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use leastgate_config::{GatewayConfig, LoadedGateway, Override, SecretSource, TokenSource};
use leastgate_policy::EnvironmentKey;
use leastgate_store::{SqliteOptions, SqliteStore, StateDir, StateDirError, StoreError};

use super::first_steps::FirstSteps;
use crate::cli::{Global, Serve};
use crate::exit::{Exit, Failure};
use crate::gateway::loading::GatewayFile;
use crate::gateway::{Certificates, FirstAdmin, Gateway, Parts, PolicyOrigin, Signals, exposure, loading};
use crate::output;

pub(super) fn run(global: &Global, arguments: &Serve) -> Result<(), Failure> {
    let flags: Vec<_> =
        arguments.workers.map(|workers| loading::flag("--workers", &["workers"], workers)).into_iter().collect();
    let loaded = loading::gateway_file(global, flags.clone())?;
    output::start_log(global.verbose);
    let signals = Signals::take()?;
    let mut warnings = exposure::find(&loaded.config);
    let first_admin = first_admin(arguments)?;
    if let Some(way @ FirstAdmin::Given(source @ SecretSource::File(path))) = &first_admin {
        warnings.extend(exposure::of_secret(&way.to_string(), path, source));
    }
    refuse_forgotten(first_admin.as_ref(), &loaded.config)?;
    let parts = parts(loaded, flags, first_admin)?;
    let named = global.config.as_deref();
    let wants_first_token = parts.config.tokens == TokenSource::Store;
    let steps = FirstSteps::of(&parts.policy.spec, &parts.policy.snapshot, named).filter(|_| wants_first_token);
    let is_tls = parts.certificates.listener().is_some();
    warnings.extend(parts.certificates.warnings());
    let gateway = Gateway::start(parts)?;
    if let Some(path) = &arguments.ready_file {
        gateway.write_ready_file(path)?;
    }
    let (data, admin) = (gateway.data_address(), gateway.admin());
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    tracing::info!(data = %data, ops = shown(admin.ops()), admin = shown(admin.admin()), "leastgate serves");
    warnings.iter().for_each(|line| tracing::warn!("{line}"));
    if let Some(steps) = steps.filter(|_| gateway.token_count() == 0) {
        output::note(format_args!(
            "There are no tokens yet. In another terminal, in this folder, three commands make the first one and try \
             it:\n\n{}",
            steps.commands(data, is_tls)
        ));
    }
    gateway.serve(&signals)
}

fn parts(loaded: LoadedGateway, flags: Vec<Override>, first_admin: Option<FirstAdmin>) -> Result<Parts, Failure> {
    let key = loading::environment_key(&loaded)?;
    let policy = loading::first_policy(&loaded)?;
    let certificates = Certificates::first(&loaded)?;
    let LoadedGateway { config, file, .. } = loaded;
    let file = GatewayFile { path: file, flags };
    let state_dir = config
        .state_dir
        .as_ref()
        .map(StateDir::open)
        .transpose()
        .map_err(|error: StateDirError| Failure::new(Exit::Failed, error))?;
    let store = open_store(&config, state_dir.as_ref(), &key)?;
    let socket = socket(state_dir.as_ref())?;
    Ok(Parts {
        config,
        key,
        policy,
        origin: PolicyOrigin::Files(file),
        store: Arc::new(store),
        state_dir,
        socket,
        certificates,
        first_admin,
    })
}

/// The first administrator, for a gateway whose admin API is used over TCP; the local socket needs none.
fn first_admin(arguments: &Serve) -> Result<Option<FirstAdmin>, Failure> {
    const VARIABLE: &str = "LEASTGATE_BOOTSTRAP_ADMIN";
    let write = arguments.bootstrap_admin.clone().map(FirstAdmin::Write);
    let file = arguments.bootstrap_admin_from.clone().map(|path| FirstAdmin::Given(SecretSource::File(path)));
    let variable = loading::variable(VARIABLE).map(|_| FirstAdmin::Given(SecretSource::Env(VARIABLE.to_owned())));
    let mut ways = write.into_iter().chain(file).chain(variable);
    match (ways.next(), ways.next()) {
        (Some(one), Some(other)) => {
            let message = format!("{one} and {other} both say who the first administrator is: leave one out");
            Err(Failure::new(Exit::Usage, message))
        }
        (way, _) => Ok(way),
    }
}

/// Without a state_dir an administrator ends with the process, and with it that it was revoked: the next start would
/// take a credential again that was given, and could not write over the file of one that was drawn.
fn refuse_forgotten(first_admin: Option<&FirstAdmin>, config: &GatewayConfig) -> Result<(), Failure> {
    match first_admin {
        Some(way) if config.state_dir.is_none() => {
            let message = format!(
                "{way} needs a state_dir: without one administrators are kept in memory, and the next start would not know \
                 that one was revoked; set state_dir, or use the local admin.sock, which needs no administrator"
            );
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

/// Without a state_dir (declared tokens) administrators are kept in memory: the local socket still works.
fn open_store(
    config: &GatewayConfig,
    state_dir: Option<&StateDir>,
    key: &EnvironmentKey,
) -> Result<SqliteStore, Failure> {
    let store = match state_dir {
        Some(dir) => SqliteStore::open(&dir.store_path(), &config.environment, key, SqliteOptions::default()),
        None => SqliteStore::in_memory(&config.environment, key),
    };
    store.map_err(|error| {
        let is_invalid = matches!(
            error,
            StoreError::WrongPepper { .. }
                | StoreError::OtherEnvironment { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Foreign { .. }
                | StoreError::UnknownObject { .. }
                | StoreError::NewerSchema { .. }
        );
        Failure::new(if is_invalid { Exit::Invalid } else { Exit::Failed }, error)
    })
}

/// `admin.sock`: in the state_dir, which is locked, so that two gateways of one user do not meet; else in the
/// user's runtime folder.
fn socket(state_dir: Option<&StateDir>) -> Result<Option<PathBuf>, Failure> {
    let dir = match state_dir {
        Some(dir) => dir.path().to_owned(),
        None => super::socket::runtime_dir_made()?,
    };
    Ok(Some(dir.join(super::socket::SOCKET)))
}
