//! `leastgate serve`: from the files to a gateway that runs until a signal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leastgate_config::{GatewayConfig, TokenSource};
use leastgate_policy::EnvironmentKey;
use leastgate_store::{SqliteOptions, SqliteStore, StateDir, StateDirError, StoreError, TokenStore as _};

use crate::cli::{Global, Serve};
use crate::exit::{Exit, Failure};
use crate::files::NewFile;
use crate::gateway::{Gateway, Parts, PolicyOrigin, Signals, loading};
use crate::output::{self, BOLD};
use crate::sandbox;

pub(super) fn run(global: &Global, arguments: &Serve) -> Result<(), Failure> {
    sandbox::forbid_core_dumps();
    let flags = arguments.workers.map(|workers| loading::flag("--workers", &["workers"], workers));
    let loaded = loading::gateway_file(global, flags.into_iter().collect())?;
    output::start_log(global.verbose);
    let signals = Signals::take()?;
    let parts = parts(loaded.config)?;
    if let Some(path) = &arguments.bootstrap_admin {
        bootstrap_admin(&parts, path)?;
    }
    let wants_first_token = parts.config.tokens == TokenSource::Store;
    let gateway = Gateway::start(parts)?;
    let (data, admin) = (gateway.data_address(), gateway.admin());
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    tracing::info!(data = %data, ops = shown(admin.ops()), admin = shown(admin.admin()), "leastgate serves");
    if wants_first_token && gateway.token_count() == 0 {
        say_first_steps(&data.to_string());
    }
    if let Some(path) = &arguments.ready_file {
        gateway.write_ready_file(path)?;
    }
    gateway.serve(&signals);
    Ok(())
}

fn parts(config: GatewayConfig) -> Result<Parts, Failure> {
    let key = loading::environment_key(&config)?;
    let policy = loading::policy(&config, loading::now()).map_err(|fault| Failure::new(Exit::Invalid, fault))?;
    let state_dir = config
        .state_dir
        .as_ref()
        .map(StateDir::open)
        .transpose()
        .map_err(|error: StateDirError| Failure::new(Exit::Failed, error))?;
    let store = open_store(&config, state_dir.as_ref(), &key)?;
    let socket = socket(state_dir.as_ref())?;
    Ok(Parts { config, key, policy, origin: PolicyOrigin::Files, store: Arc::new(store), state_dir, socket })
}

/// The first administrator, for a gateway whose admin API is used over TCP; the local socket needs none.
fn bootstrap_admin(parts: &Parts, path: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("--bootstrap-admin: {error}"));
    if parts.store.count_admins().map_err(|error| failed(&error))? > 0 {
        return Ok(());
    }
    let file = NewFile::create(path, 0o600).map_err(|error| failed(&format!("{}: {error}", path.display())))?;
    let environment = &parts.config.environment;
    let issued = leastgate_admin::bootstrap(&*parts.store, environment, &parts.key, "root", loading::now());
    match issued.map_err(|error| failed(&error))? {
        None => Ok(()),
        Some(issued) => file.fill(issued.secret.expose().as_bytes()).map_err(|error| failed(&error)),
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
        let exit = if matches!(error, StoreError::WrongPepper { .. }) { Exit::Invalid } else { Exit::Failed };
        Failure::new(exit, error)
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

fn say_first_steps(data: &str) {
    output::note(format_args!(
        "There are no tokens yet. Three commands make the first one and try it:\n\n  \
         {BOLD}leastgate token create --name me --role reader --owner me --ttl 1d --secret-file me.token{BOLD:#}\n  \
         {BOLD}leastgate check me GET http://{data}/{BOLD:#}\n  \
         {BOLD}curl -H \"Authorization: Bearer $(cat me.token)\" http://{data}/{BOLD:#}\n"
    ));
}
