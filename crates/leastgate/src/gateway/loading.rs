//! From files to what the planes are built from: the one path of start-up, reload and the commands that only look.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use leastgate_config::{
    Diagnostics, Fingerprint, GatewayConfig, GatewayInputs, LoadedGateway, Override, PepperConfig, SecretSource,
    TokenSource, find_gateway_file, load_gateway, load_policy,
};
use leastgate_policy::{CompileContext, EnvironmentKey, Pepper, PolicySnapshot, PolicySpec, Timestamp, UpstreamFacts};
use leastgate_telemetry::{Clock as _, SystemClock};

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::gateway::exposure;
use crate::gateway::standing::Shadow;

/// A policy that compiled, and the hash of the bytes it came from.
#[derive(Debug)]
pub struct Policy {
    /// The compiled policy.
    pub snapshot: PolicySnapshot,
    /// What it was compiled from.
    pub spec: PolicySpec,
    /// Apis that only record until a moment.
    pub shadows: Vec<Shadow>,
    /// What [`fingerprint`] gives while the files are unchanged.
    pub fingerprint: Fingerprint,
}

/// Why a policy can't be put in force.
#[derive(Debug)]
pub struct PolicyFault(Diagnostics);

/// The gateway's file with everything laid over it.
///
/// # Errors
/// Everything wrong with it (3).
pub fn gateway_file(global: &Global, flags: Vec<Override>) -> Result<LoadedGateway, Failure> {
    Ok(GatewayFile { path: find_gateway_file(global.config.as_deref()), flags }.load()?)
}

/// The gateway's file and the flags laid over it, to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayFile {
    /// Where it is; none is a gateway configured by its environment alone.
    pub path: Option<PathBuf>,
    /// What flags set.
    pub flags: Vec<Override>,
}

impl GatewayFile {
    /// Reads it, with everything laid over it.
    ///
    /// # Errors
    /// Everything wrong with it.
    pub fn load(&self) -> Result<LoadedGateway, Diagnostics> {
        let env = std::env::vars_os().collect();
        load_gateway(&GatewayInputs { file: self.path.clone(), env, flags: self.flags.clone() })
    }
}

impl fmt::Display for GatewayFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => path.display().fmt(f),
            None => f.write_str("the environment"),
        }
    }
}

/// The key of this gateway's environment, from its pepper, and from the one before it while it is being replaced.
///
/// # Errors
/// A pepper can't be read or is too short, or both are the same (3).
pub fn environment_key(loaded: &LoadedGateway) -> Result<EnvironmentKey, Failure> {
    const MAKE: &str =
        "`openssl rand -hex 32` makes a good one; the tokens of a store need the one they were made with";
    let PepperConfig { current, previous } = &loaded.config.pepper;
    let key = key_of(loaded, "current", current, MAKE)?;
    let Some(previous) = previous else { return Ok(key) };
    let previous = key_of(loaded, "previous", previous, "leave pepper.previous out once no token needs it")?;
    if key.check_value() == previous.check_value() {
        let hint = "name the pepper that tokens were made with until now, or leave pepper.previous out";
        let message = "pepper: current and previous are one and the same";
        return Err(loaded.fault(&["pepper", "previous"], message, hint).into());
    }
    Ok(key.replacing(&previous))
}

fn key_of(loaded: &LoadedGateway, which: &str, source: &SecretSource, hint: &str) -> Result<EnvironmentKey, Failure> {
    let fault = |message: String| loaded.fault(&["pepper", which], &message, hint);
    let bytes = source.read(&|name| std::env::var_os(name)).map_err(|error| fault(format!("pepper: {error}")))?;
    let pepper = Pepper::new(bytes.to_vec())
        .ok_or_else(|| fault(format!("pepper: {source} holds fewer than {} bytes", Pepper::MIN_LEN)))?;
    Ok(EnvironmentKey::derive(&pepper, &loaded.config.environment))
}

/// The first policy: as [`policy`], and a file that is not there is an error of the file that names it.
///
/// # Errors
/// Everything wrong with it (3).
pub fn first_policy(loaded: &LoadedGateway) -> Result<Policy, Failure> {
    for (number, file) in loaded.config.policy.files.iter().enumerate() {
        if let Err(error) = std::fs::File::open(file) {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let message = format!("the policy file {} can't be opened: {error}", file.display());
            let hint = "paths are relative to the file that names them";
            return Err(loaded.fault(&["policy", "files", &number.to_string()], &message, hint).into());
        }
    }
    policy(&loaded.config, now()).map_err(|fault| Failure::new(Exit::Invalid, fault))
}

/// Loads and compiles the policy's files.
///
/// # Errors
/// Everything wrong with them, or what can't be served yet.
pub fn policy(config: &GatewayConfig, now: Timestamp) -> Result<Policy, PolicyFault> {
    let loaded = load_policy(&config.policy.files).map_err(PolicyFault)?;
    compile(&loaded, config, now)
}

pub(crate) fn compile(
    loaded: &leastgate_config::LoadedPolicy,
    config: &GatewayConfig,
    now: Timestamp,
) -> Result<Policy, PolicyFault> {
    if let (TokenSource::Store, Some(token)) = (config.tokens, loaded.spec.tokens.first()) {
        let hint = "say tokens: { source: declared } in the gateway's file, or take the tokens out of this one";
        let message = "tokens are declared here, but tokens.source is store";
        return Err(PolicyFault(loaded.fault(token.accessor.origin, message, hint)));
    }
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
        well_known: config.listeners.data.well_known,
        upstreams: Some(&upstreams),
    };
    let snapshot =
        PolicySnapshot::compile(&loaded.spec, &context).map_err(|errors| PolicyFault(loaded.diagnose(errors)))?;
    let shadows = Shadow::all_of(&loaded.spec);
    Ok(Policy { snapshot, spec: loaded.spec.clone(), shadows, fingerprint: loaded.fingerprint() })
}

/// What is valid and hardly meant: shadows that are over, and what stands open to others.
pub(crate) fn warnings(config: &GatewayConfig, shadows: &[Shadow]) -> Vec<String> {
    let mut lines = ended(shadows);
    lines.extend(exposure::find(config));
    lines
}

/// Shadows that are over, one line each.
pub(crate) fn ended(shadows: &[Shadow]) -> Vec<String> {
    let now = now();
    shadows.iter().filter(|shadow| shadow.has_ended(now)).map(|shadow| shadow.tell(now)).collect()
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
        self.0.summary_line()
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.render(crate::output::stderr_has_color()))
    }
}

impl std::error::Error for PolicyFault {}

#[cfg(test)]
mod tests {
    use leastgate_config::{parse_gateway, parse_policy};

    use super::*;

    const GATEWAY: &str = "environment: prod\nstate_dir: s\nupstreams: { a: { endpoints: [ \"http://h\" ] } }\n\
                           pepper: { current: { env: P } }\npolicy: { files: [ p ] }\n";

    #[test]
    fn tokens_that_would_be_ignored_are_an_error_with_its_place() {
        let policy = "version: 1\nenvironments: [ prod ]\ntokens:\n  - { accessor: AAAAAAAAAA, name: b, env: prod, \
                      created: 2026-11-01, expires: 2026-12-01, digest: \"blake3:0000000000000000000000000000000000000000000000000000000000000000\" }\n";
        let loaded = parse_policy(&[("policy.yaml", policy)]).unwrap();
        let outcome = |tokens: &str| {
            let config = parse_gateway("leastgate.yaml", &format!("{GATEWAY}{tokens}")).unwrap().config;
            compile(&loaded, &config, Timestamp(1_790_000_000)).map(drop).map_err(|fault| fault.summary_line())
        };
        let said = outcome("").unwrap_err();
        assert_eq!(said, "policy.yaml:4:17: tokens are declared here, but tokens.source is store");
        assert_eq!(outcome("tokens: { source: declared }\n"), Ok(()));
    }
}
