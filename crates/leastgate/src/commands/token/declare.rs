//! `token create --declare`: no gateway is asked. The secret is drawn here and shown once; what goes into a policy
//! file's `tokens` is its digest.

use leastgate_admin::api::Moment;
use leastgate_policy::source::parse_network;
use leastgate_policy::{IssueRequest, Restrictions, Timestamp, TokenLimits};
use leastgate_store::draw::draw_token;
use leastgate_store::{NewToken, TokenGrant, TokenName, TokenRecord};
use serde_json::{Value, json};

use crate::cli::{Global, TokenCreate};
use crate::commands::client::{self, Handover};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output::{self, BOLD, Format};

pub(super) fn run(global: &Global, arguments: &TokenCreate) -> Result<(), Failure> {
    let loaded = loading::gateway_file(global, Vec::new())?;
    let key = loading::environment_key(&loaded)?;
    let policy = loading::first_policy(&loaded)?;
    let token = new_token(arguments)?;
    let handover =
        Handover::prepare(global, arguments.secret_file.as_deref(), "do not declare it, make another".to_owned())?;
    let roles: Vec<&str> = token.roles.iter().map(String::as_str).collect();
    let grants: Vec<_> = token.grants.iter().map(|grant| (grant.scope.as_str(), grant.expires)).collect();
    let request = IssueRequest {
        owner: token.owner.as_deref(),
        roles: &roles,
        grants: &grants,
        from: token.created,
        expires: token.expires,
    };
    let refusals: Vec<String> = policy.snapshot.refusals(&request).iter().map(ToString::to_string).collect();
    if !refusals.is_empty() {
        let rules = "--owner and --ttl give a token what token_rules require";
        return Err(Failure::new(Exit::No, refusals.join("; ")).help(rules));
    }
    let (record, secret) = draw_token(&loaded.config.environment, &key, token).map_err(anyhow::Error::from)?;
    let entry = entry(&record);
    handover.give(global, &entry.iter().cloned().collect::<serde_json::Map<_, _>>(), secret.expose())?;
    if global.output != Format::Json {
        output::note(format_args!("{BOLD}Put this under `tokens:` of a policy file:{BOLD:#}"));
        output::data(yaml(&entry));
    }
    Ok(())
}

fn new_token(arguments: &TokenCreate) -> Result<NewToken, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let created = loading::now();
    let nets = arguments
        .allow_cidrs
        .iter()
        .map(|text| parse_network(text).map_err(|error| usage(&format!("--allow-cidr {text}: {error}"))));
    let not_before = arguments.not_before.as_deref().map(client::moment).transpose()?;
    Ok(NewToken {
        name: TokenName::parse(&arguments.name).map_err(|error| usage(&error))?,
        owner: arguments.owner.clone(),
        roles: arguments.roles.clone(),
        grants: arguments
            .scopes
            .iter()
            .map(|scope| TokenGrant { scope: scope.clone(), expires: None, reason: None })
            .collect(),
        restrictions: Restrictions {
            source_ip: nets.collect::<Result<_, _>>()?,
            not_before: not_before.map(|moment| moment.0),
        },
        limits: super::limits(arguments).map(TokenLimits::from).unwrap_or_default(),
        created,
        created_by: "declared".into(),
        expires: arguments
            .ttl
            .as_deref()
            .map(|text| client::ttl("--ttl", text))
            .transpose()?
            .map(|ttl| Timestamp(created.0 + ttl.seconds())),
        parent: None,
        is_canary: false,
        note: None,
    })
}

/// The entry's keys in the order they are read best in.
fn entry(record: &TokenRecord) -> Vec<(String, Value)> {
    let mut entry = Vec::new();
    let mut add = |key: &str, value: Value| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            entry.push((key.to_owned(), value));
        }
    };
    add("accessor", record.accessor.to_string().into());
    add("name", record.name.to_string().into());
    add("digest", record.digest.to_string().into());
    add("env", record.env.clone().into());
    add("created", Moment(record.created).to_string().into());
    add("owner", record.owner.clone().into());
    add("expires", record.expires.map(|end| Moment(end).to_string()).into());
    add("roles", record.roles.clone().into());
    add("grants", record.grants.iter().map(|grant| json!({ "scope": grant.scope })).collect());
    add("restrictions", restrictions(&record.restrictions));
    add("limits", limits(record.limits));
    entry
}

fn restrictions(restrictions: &Restrictions) -> Value {
    let mut keys = serde_json::Map::new();
    if !restrictions.source_ip.is_empty() {
        keys.insert("source_ip".into(), restrictions.source_ip.iter().map(ToString::to_string).collect());
    }
    if let Some(start) = restrictions.not_before {
        keys.insert("not_before".into(), Moment(start).to_string().into());
    }
    if keys.is_empty() { Value::Null } else { keys.into() }
}

fn limits(limits: TokenLimits) -> Value {
    let all = [("rate", limits.rate), ("burst", limits.burst), ("concurrent", limits.concurrent)];
    let keys: serde_json::Map<_, _> =
        all.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect();
    if keys.is_empty() { Value::Null } else { keys.into() }
}

/// The entry as an item of a YAML list. JSON's values are YAML's, written on one line.
fn yaml(entry: &[(String, Value)]) -> String {
    let lines = entry.iter().enumerate().map(|(position, (key, value))| {
        let dash = if position == 0 { "-" } else { " " };
        format!("  {dash} {key}: {value}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
