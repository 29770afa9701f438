//! `leastgate config`: the gateway's file as it is in force.

use crate::cli::{Config, Global};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output;

pub(super) fn run(global: &Global, command: &Config) -> Result<(), Failure> {
    match command {
        Config::Show { origin } => {
            let loaded = loading::gateway_file(global, Vec::new())?;
            output::data(loaded.render(*origin).trim_end());
            Ok(())
        }
        Config::Validate => validate(global),
        Config::Schema => output::json(&leastgate_config::schema::gateway()),
    }
}

fn validate(global: &Global) -> Result<(), Failure> {
    let loaded = loading::gateway_file(global, Vec::new())?;
    loading::environment_key(&loaded.config)?;
    let policy = loading::policy(&loaded.config, loading::now()).map_err(|fault| Failure::new(Exit::Invalid, fault))?;
    output::note(format_args!(
        "valid: environment {}, {} api(s), {} rule(s), policy {}",
        loaded.config.environment,
        policy.snapshot.apis().len(),
        policy.snapshot.rules().len(),
        policy.snapshot.revision()
    ));
    Ok(())
}
