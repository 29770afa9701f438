//! `leastgate policy`: what can be said of policy files without a gateway.

use std::path::PathBuf;

use leastgate_config::LoadedPolicy;
use leastgate_policy::{CompileContext, PolicySnapshot};

use crate::cli::{Global, Policy};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output;

pub(super) fn run(global: &Global, command: Policy) -> Result<(), Failure> {
    match command {
        Policy::Lint { files, environment } => lint(global, &files, environment.as_deref()),
        Policy::Schema => output::json(&leastgate_config::schema::policy()),
    }
}

fn lint(global: &Global, files: &[PathBuf], environment: Option<&str>) -> Result<(), Failure> {
    let snapshot = if files.is_empty() {
        let config = loading::gateway_file(global, Vec::new())?.config;
        loading::policy(&config, loading::now()).map_err(|fault| Failure::new(Exit::Invalid, fault))?.snapshot
    } else {
        lint_files(&leastgate_config::load_policy(files)?, environment)?
    };
    for line in snapshot.unsupported() {
        output::note(format_args!("{WARN}warning{WARN:#}: {line}", WARN = output::WARN));
    }
    output::note(format_args!(
        "{} api(s), {} scope(s), {} role(s), {} rule(s); policy {}",
        snapshot.apis().len(),
        snapshot.scope_names().count(),
        snapshot.role_names().count(),
        snapshot.rules().len(),
        snapshot.revision()
    ));
    if snapshot.unsupported().is_empty() { Ok(()) } else { Err(Failure::silent(Exit::No)) }
}

/// Without a gateway's file there are no upstreams to know, and any environment of the policy will do.
fn lint_files(policy: &LoadedPolicy, environment: Option<&str>) -> Result<PolicySnapshot, Failure> {
    let first = policy.spec.environments.first().map(|name| name.value.as_str());
    let context = CompileContext {
        environment: environment.or(first).unwrap_or_default(),
        revision: &policy.revision,
        now: loading::now(),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: Vec::new(),
        upstreams: None,
    };
    PolicySnapshot::compile(&policy.spec, &context).map_err(|errors| policy.diagnose(errors).into())
}
