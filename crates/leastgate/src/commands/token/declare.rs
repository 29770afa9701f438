//! `token create --declare`: no gateway is asked. The secret is drawn here and shown once; what goes into a policy
//! file's `tokens` is its digest.

use leastgate_policy::{IssueRequest, Restrictions, Timestamp};
use leastgate_store::draw::draw_token;
use leastgate_store::{NewToken, TokenGrant, TokenLimits, TokenName, TokenRecord};

use crate::cli::{Global, TokenCreate};
use crate::commands::client;
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output::{self, BOLD};

pub(super) fn run(global: &Global, arguments: &TokenCreate) -> Result<(), Failure> {
    let config = loading::gateway_file(global, Vec::new())?.config;
    let key = loading::environment_key(&config)?;
    let policy = loading::policy(&config, loading::now()).map_err(|fault| Failure::new(Exit::Invalid, fault))?;
    let token = new_token(arguments)?;
    let roles: Vec<&str> = token.roles.iter().map(String::as_str).collect();
    let grants: Vec<_> = token.grants.iter().map(|grant| (grant.scope.as_str(), grant.expires)).collect();
    let request = IssueRequest {
        owner: token.owner.as_deref(),
        roles: &roles,
        grants: &grants,
        from: token.created,
        expires: token.expires,
    };
    policy.snapshot.check_issue(&request).map_err(|refusal| Failure::new(Exit::No, refusal))?;
    let (record, secret) = draw_token(&config.environment, &key, token).map_err(anyhow::Error::from)?;
    match &arguments.secret_file {
        Some(path) => client::write_secret(path, secret.expose())?,
        None => {
            output::note(format_args!("{BOLD}The secret, shown this once:{BOLD:#}"));
            output::data(secret.expose());
        }
    }
    output::note(format_args!("{BOLD}Put this under `tokens:` of a policy file:{BOLD:#}"));
    output::data(entry(&record));
    Ok(())
}

fn new_token(arguments: &TokenCreate) -> Result<NewToken, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let created = loading::now();
    let nets =
        arguments.allow_cidrs.iter().map(|text| text.parse().map_err(|_| usage(&format!("`{text}` is not a network"))));
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
        limits: TokenLimits::default(),
        created,
        created_by: "declared".into(),
        expires: arguments.ttl.as_deref().map(client::ttl).transpose()?.map(|ttl| Timestamp(created.0 + ttl.seconds())),
        note: None,
    })
}

/// The entry as YAML. All values are of alphabets that need no quoting but what is quoted here.
fn entry(record: &TokenRecord) -> String {
    use leastgate_admin::api::Moment;
    let quoted =
        |texts: &mut dyn Iterator<Item = String>| texts.map(|text| json_string(&text)).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!("  - accessor: \"{}\"", record.accessor),
        format!("    name: {}", record.name),
        format!("    digest: \"{}\"", record.digest),
        format!("    env: {}", record.env),
        format!("    created: {}", Moment(record.created)),
    ];
    if let Some(owner) = &record.owner {
        lines.push(format!("    owner: {}", json_string(owner)));
    }
    if let Some(end) = record.expires {
        lines.push(format!("    expires: {}", Moment(end)));
    }
    if !record.roles.is_empty() {
        lines.push(format!("    roles: [ {} ]", quoted(&mut record.roles.iter().cloned())));
    }
    if !record.grants.is_empty() {
        let grants = record.grants.iter().map(|grant| format!("{{ scope: {} }}", json_string(&grant.scope)));
        lines.push(format!("    grants: [ {} ]", grants.collect::<Vec<_>>().join(", ")));
    }
    let nets = &record.restrictions.source_ip;
    let mut restrictions = Vec::new();
    if !nets.is_empty() {
        restrictions.push(format!("source_ip: [ {} ]", quoted(&mut nets.iter().map(ToString::to_string))));
    }
    if let Some(start) = record.restrictions.not_before {
        restrictions.push(format!("not_before: {}", Moment(start)));
    }
    if !restrictions.is_empty() {
        lines.push(format!("    restrictions: {{ {} }}", restrictions.join(", ")));
    }
    lines.join("\n")
}

/// JSON's strings are YAML's double-quoted ones.
fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
