//! `leastgate config`: the gateway's file as it is in force.

use crate::cli::{Config, Global};
use crate::exit::{Exit, Failure};
use crate::gateway::{Certificates, loading};
use crate::output::{self, Format};

pub(super) fn run(global: &Global, command: &Config) -> Result<(), Failure> {
    match command {
        Config::Show { origin } => show(global, *origin),
        Config::Validate => validate(global),
        Config::Schema => output::json(&leastgate_config::schema::gateway()),
    }
}

fn show(global: &Global, origin: bool) -> Result<(), Failure> {
    let is_json = global.output == Format::Json;
    if is_json && origin {
        return Err(Failure::new(
            Exit::Usage,
            "origins are comments, which JSON has not: leave -o json or --origin out",
        ));
    }
    let loaded = loading::gateway_file(global, Vec::new())?;
    if is_json {
        return output::json(&loaded.to_json());
    }
    output::data(loaded.render(origin).trim_end());
    Ok(())
}

fn validate(global: &Global) -> Result<(), Failure> {
    let loaded = loading::gateway_file(global, Vec::new())?;
    loading::environment_key(&loaded)?;
    let policy = loading::first_policy(&loaded)?;
    Certificates::first(&loaded)?.warnings().iter().for_each(output::warn);
    loading::warnings(&loaded.config, &policy.shadows).iter().for_each(output::warn);
    if global.output == Format::Json {
        return output::json(&serde_json::json!({
            "valid": true,
            "environment": loaded.config.environment,
            "apis": policy.snapshot.apis().len(),
            "rules": policy.snapshot.rules().len(),
            "policy_rev": policy.snapshot.revision(),
        }));
    }
    output::note(format_args!(
        "valid: environment {}, {} api(s), {} rule(s), policy {}",
        loaded.config.environment,
        policy.snapshot.apis().len(),
        policy.snapshot.rules().len(),
        policy.snapshot.revision()
    ));
    Ok(())
}
