//! `leastgate policy`: what can be said of policy files without a gateway.

use std::path::PathBuf;

use leastgate_config::LoadedPolicy;
use leastgate_policy::{CompileContext, PolicySnapshot};

use crate::cli::{Global, Policy};
use crate::exit::Failure;
use crate::gateway::loading;
use crate::gateway::standing::Shadow;
use crate::output::{self, Format};

pub(super) fn run(global: &Global, command: Policy) -> Result<(), Failure> {
    match command {
        Policy::Lint { files, environment } => lint(global, &files, environment.as_deref()),
        Policy::Schema => output::json(&leastgate_config::schema::policy()),
    }
}

fn lint(global: &Global, files: &[PathBuf], environment: Option<&str>) -> Result<(), Failure> {
    let (snapshot, shadows) = if files.is_empty() {
        let policy = loading::first_policy(&loading::gateway_file(global, Vec::new())?)?;
        (policy.snapshot, policy.shadows)
    } else {
        let loaded = leastgate_config::load_policy(files)?;
        (lint_files(&loaded, environment)?, Shadow::all_of(&loaded.spec))
    };
    let warnings = loading::ended(&shadows);
    warnings.iter().for_each(output::warn);
    tell(global, &snapshot, &warnings)
}

fn tell(global: &Global, snapshot: &PolicySnapshot, warnings: &[String]) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&serde_json::json!({
            "apis": snapshot.apis().len(),
            "scopes": snapshot.scope_names().count(),
            "roles": snapshot.role_names().count(),
            "rules": snapshot.rules().len(),
            "policy_rev": snapshot.revision(),
            "warnings": warnings,
        }));
    }
    output::note(format_args!(
        "{} api(s), {} scope(s), {} role(s), {} rule(s); policy {}",
        snapshot.apis().len(),
        snapshot.scope_names().count(),
        snapshot.role_names().count(),
        snapshot.rules().len(),
        snapshot.revision()
    ));
    Ok(())
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
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(&policy.spec, &context).map_err(|errors| policy.diagnose(errors).into())
}
