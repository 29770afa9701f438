//! `leastgate demo`: a whole gateway in one process, in memory, on loopback, with an API behind it and tokens to try.

use std::sync::Arc;

use anyhow::Context as _;
use leastgate_config::{GatewayConfig, TokenSource, parse_gateway, parse_policy};
use leastgate_policy::{EnvironmentKey, Pepper, Secret, Timestamp};
use leastgate_store::{NewToken, SqliteStore, TokenName, issue_token};

use crate::cli::{Demo, Global};
use crate::demo::{ENVIRONMENT, OrdersApi, POLICY, TOKENS, Traffic};
use crate::exit::{Exit, Failure};
use crate::gateway::{Certificates, Gateway, Parts, PolicyOrigin, Signals, loading};
use crate::output::{self, BOLD, DIM};

/// A demo's token lives for a day.
const TTL: u64 = 24 * 3600;

pub(super) fn run(global: &Global, arguments: &Demo) -> Result<(), Failure> {
    output::start_log(global.verbose);
    let signals = Signals::take()?;
    let upstream = OrdersApi::start()?;
    let config = config(arguments, &upstream)?;
    let key = key()?;
    let loaded = parse_policy(&[("the demo's policy", POLICY)])?;
    let policy =
        loading::compile(&loaded, &config, loading::now()).map_err(|fault| Failure::new(Exit::Invalid, fault))?;
    let store = Arc::new(SqliteStore::in_memory(ENVIRONMENT, &key).map_err(anyhow::Error::from)?);
    let secrets = issue(&store, &key)?;
    let socket = Some(super::socket::runtime_dir_made()?.join(super::socket::SOCKET));
    let gateway = Gateway::start(Parts {
        config,
        key,
        policy,
        origin: PolicyOrigin::BuiltIn,
        store,
        state_dir: None,
        socket,
        certificates: Certificates::default(),
        first_admin: None,
    })?;
    say_what_to_try(&gateway, &secrets);
    if !arguments.no_traffic {
        start_traffic(&gateway, &secrets).context("the demo's traffic can't be started")?;
    }
    if let Some(path) = &arguments.ready_file {
        gateway.write_ready_file(path)?;
    }
    gateway.serve(&signals)
}

/// The gateway's file, were there one.
fn config(arguments: &Demo, upstream: &OrdersApi) -> Result<GatewayConfig, Failure> {
    let Demo { address, ops, admin, .. } = arguments;
    let text = format!(
        "environment: {ENVIRONMENT}\n\
         listeners: {{ data: {{ address: \"{address}\" }}, ops: {{ address: \"{ops}\" }}, admin: {{ address: \"{admin}\" }} }}\n\
         upstreams: {{ orders: {{ endpoints: [ \"http://{}\" ], probe: {{ live: /healthz, ready: /healthz }} }} }}\n\
         pepper: {{ current: {{ env: NONE }} }}\n\
         tokens: {{ source: declared }}\n\
         policy: {{ files: [ built-in ] }}\n\
         audit: {{ sinks: {{}}, classes: {{ allow: drop, deny: drop, admin: drop, lifecycle: drop }} }}\n\
         limits: {{ drain_delay: 0s, drain_timeout: 2s }}\n",
        upstream.address
    );
    let config = parse_gateway("the demo's configuration", &text)?.config;
    // A store in memory needs no state_dir, which the file's rules would ask for.
    Ok(GatewayConfig { tokens: TokenSource::Store, ..config })
}

/// A pepper of this process alone: the demo's tokens are worth nothing anywhere else.
fn key() -> Result<EnvironmentKey, Failure> {
    let mut random = vec![0; 32];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    let pepper = Pepper::new(random).context("32 bytes are enough for a pepper")?;
    Ok(EnvironmentKey::derive(&pepper, ENVIRONMENT))
}

fn issue(store: &SqliteStore, key: &EnvironmentKey) -> Result<Vec<Secret>, Failure> {
    let now = loading::now();
    let issue_one = |token: &crate::demo::DemoToken| {
        let new = NewToken {
            name: TokenName::parse(token.name).map_err(anyhow::Error::from)?,
            owner: Some("demo".into()),
            roles: vec![token.role.into()],
            grants: Vec::new(),
            restrictions: leastgate_policy::Restrictions::default(),
            limits: leastgate_policy::TokenLimits::default(),
            created: now,
            created_by: "demo".into(),
            expires: Some(Timestamp(now.0 + TTL)),
            parent: None,
            is_canary: false,
            note: None,
        };
        let issued = issue_token(store, ENVIRONMENT, key, &new).map_err(anyhow::Error::from)?;
        Ok(issued.secret)
    };
    TOKENS.iter().map(issue_one).collect()
}

fn start_traffic(gateway: &Gateway, secrets: &[Secret]) -> std::io::Result<()> {
    let secret =
        |name: &str| TOKENS.iter().zip(secrets).find(|(token, _)| token.name == name).map(|(_, secret)| secret.clone());
    match (secret("bot"), secret("reader")) {
        (Some(bot), Some(reader)) => Traffic { gateway: gateway.data_address(), bot, reader }.start(),
        _ => Ok(()),
    }
}

fn say_what_to_try(gateway: &Gateway, secrets: &[Secret]) {
    let data = gateway.data_address();
    output::data(format_args!(
        "{BOLD}Leastgate{BOLD:#} stands in front of a small orders API. It forgets everything when it ends (Ctrl-C).\n"
    ));
    for token in TOKENS {
        output::data(format_args!("  {:<8}{DIM}{}{DIM:#}", token.name, token.about));
    }
    output::data("\nTheir tokens; paste these lines into another terminal:\n");
    for (token, secret) in TOKENS.iter().zip(secrets) {
        output::data(format_args!("{}={}", token.variable, secret.expose()));
    }
    output::data("\nThen try there:\n");
    let curl = "curl -s";
    let bearer = "-H \"Authorization: Bearer $READER\"";
    for (line, about) in [
        (format!("{curl} http://{data}/v1/orders"), "401, with what to send"),
        (format!("{curl} {bearer} http://{data}/v1/orders"), "200"),
        (format!("{curl} -X POST {bearer} http://{data}/v1/orders/7b0e/refunds"), "403, with what is missing"),
        (format!("leastgate check reader POST http://{data}/v1/orders/7b0e/refunds"), "why, and what would fix it"),
        ("leastgate token list".to_owned(), "who holds what"),
        ("leastgate token revoke reader --reason leaked --yes".to_owned(), "its next request is refused"),
    ] {
        tell(&line, about);
    }
    if let Some(ops) = gateway.admin().ops() {
        tell(&format!("{curl} http://{ops}/metrics"), "what Prometheus sees");
    }
}

/// A command and, on a line of its own, what comes of it: behind it, some shells would take it for arguments.
fn tell(line: &str, about: &str) {
    output::data(format_args!("  {DIM}{about}{DIM:#}\n    {line}"));
}
