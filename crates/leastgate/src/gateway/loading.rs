//! From files to what the planes are built from: the one path of start-up, reload and the commands that only look.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use leastgate_config::{
    Diagnostics, Fingerprint, GatewayConfig, GatewayInputs, LoadedGateway, Override, find_gateway_file, load_gateway,
    load_policy,
};
use leastgate_policy::{CompileContext, EnvironmentKey, Pepper, PolicySnapshot, Timestamp, UpstreamFacts};
use leastgate_telemetry::{Clock as _, SystemClock};

use crate::cli::Global;
use crate::exit::{Exit, Failure};

/// A policy that compiled, and the hash of the bytes it came from.
#[derive(Debug)]
pub struct Policy {
    /// The compiled policy.
    pub snapshot: PolicySnapshot,
    /// What [`fingerprint`] gives while the files are unchanged.
    pub fingerprint: Fingerprint,
}

/// Why a policy can't be put in force.
#[derive(Debug)]
pub enum PolicyFault {
    /// It is not a policy.
    Invalid(Diagnostics),
    /// It uses what the gateway can't serve yet.
    Unsupported(Vec<String>),
}

/// The gateway's file with everything laid over it.
///
/// # Errors
/// Everything wrong with it (3).
pub fn gateway_file(global: &Global, flags: Vec<Override>) -> Result<LoadedGateway, Failure> {
    let file = find_gateway_file(global.config.as_deref());
    let inputs = GatewayInputs { file, env: std::env::vars_os().collect(), flags };
    Ok(load_gateway(&inputs)?)
}

/// The key of this gateway's environment, from its pepper.
///
/// # Errors
/// The pepper can't be read or is too short (3).
pub fn environment_key(config: &GatewayConfig) -> Result<EnvironmentKey, Failure> {
    let source = &config.pepper.current;
    let read = source.read(&|name| std::env::var_os(name));
    let bytes = read.map_err(|error| Failure::new(Exit::Invalid, format!("pepper: {error}")))?;
    let pepper = Pepper::new(bytes.to_vec()).ok_or_else(|| {
        let message = format!(
            "pepper: {source} holds fewer than {} bytes; `openssl rand -hex 32` makes a good one",
            Pepper::MIN_LEN
        );
        Failure::new(Exit::Invalid, message)
    })?;
    Ok(EnvironmentKey::derive(&pepper, &config.environment))
}

/// Loads and compiles the policy's files.
///
/// # Errors
/// Everything wrong with them, or what can't be served yet.
pub fn policy(config: &GatewayConfig, now: Timestamp) -> Result<Policy, PolicyFault> {
    let loaded = load_policy(&config.policy.files).map_err(PolicyFault::Invalid)?;
    compile(&loaded, config, now)
}

pub(crate) fn compile(
    loaded: &leastgate_config::LoadedPolicy,
    config: &GatewayConfig,
    now: Timestamp,
) -> Result<Policy, PolicyFault> {
    let upstreams: Vec<UpstreamFacts<'_>> = config
        .upstreams
        .iter()
        .map(|upstream| UpstreamFacts { name: &upstream.name, allow_underscores: upstream.allow_underscores })
        .collect();
    let context = CompileContext {
        environment: &config.environment,
        revision: &loaded.revision,
        now,
        credential_header: config.credential_header.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        upstreams: Some(&upstreams),
    };
    let snapshot = PolicySnapshot::compile(&loaded.spec, &context)
        .map_err(|errors| PolicyFault::Invalid(loaded.diagnose(errors)))?;
    if !snapshot.unsupported().is_empty() {
        return Err(PolicyFault::Unsupported(snapshot.unsupported().to_vec()));
    }
    Ok(Policy { snapshot, fingerprint: loaded.fingerprint() })
}

/// The content hash of the policy's files as they are now.
#[must_use]
pub fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    leastgate_config::fingerprint(files)
}

/// This moment, for commands.
#[must_use]
pub fn now() -> Timestamp {
    SystemClock::new().now().timestamp()
}

/// A flag that sets a key of the gateway's file.
#[must_use]
pub fn flag(name: &str, path: &[&str], value: impl fmt::Display) -> Override {
    Override {
        name: name.to_owned(),
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        value: value.to_string(),
    }
}

/// Looks an environment variable up; empty is unset.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl PolicyFault {
    /// The first error in one line, for the reload log.
    #[must_use]
    pub fn summary_line(&self) -> String {
        match self {
            Self::Invalid(diagnostics) => diagnostics.summary_line(),
            Self::Unsupported(lines) => lines.join("; "),
        }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(diagnostics) => f.write_str(&diagnostics.render(crate::output::stderr_has_color())),
            Self::Unsupported(lines) => f.write_str(&lines.join("\n")),
        }
    }
}

impl std::error::Error for PolicyFault {}
