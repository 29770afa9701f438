//! How a gateway ends: asked to, or because a part of it has.

use leastgate_config::{GatewayConfig, TokenSource, parse_gateway, parse_policy};
use leastgate_policy::{EnvironmentKey, Pepper};
use leastgate_store::SqliteStore;

use super::*;
use crate::demo::{ENVIRONMENT, POLICY};

/// A gateway in memory, that watches no file.
fn start() -> Gateway {
    let text = format!(
        "environment: {ENVIRONMENT}\n\
         listeners: {{ data: {{ address: \"127.0.0.1:0\" }}, ops: {{ address: \"127.0.0.1:0\" }}, admin: {{ address: \"127.0.0.1:0\" }} }}\n\
         upstreams: {{ orders: {{ endpoints: [ \"http://127.0.0.1:9\" ] }} }}\n\
         pepper: {{ current: {{ env: NONE }} }}\n\
         tokens: {{ source: declared }}\n\
         policy: {{ files: [ built-in ] }}\n\
         audit: {{ sinks: {{}}, classes: {{ allow: drop, deny: drop, admin: drop, lifecycle: drop }} }}\n\
         limits: {{ drain_delay: 0s, drain_timeout: 2s }}\n"
    );
    let config = GatewayConfig { tokens: TokenSource::Store, ..parse_gateway("a test", &text).unwrap().config };
    let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), ENVIRONMENT);
    let policy = parse_policy(&[("the demo's policy", POLICY)]).unwrap();
    let policy = loading::compile(&policy, &config, loading::now()).unwrap();
    let store = Arc::new(SqliteStore::in_memory(ENVIRONMENT, &key).unwrap());
    let (origin, certificates) = (PolicyOrigin::BuiltIn, Certificates::default());
    let (state_dir, socket, first_admin) = (None, None, None);
    Gateway::start(Parts { config, key, policy, origin, store, state_dir, socket, certificates, first_admin }).unwrap()
}

#[test]
fn an_end_that_was_asked_for_is_a_success() {
    let gateway = start();
    assert_eq!(gateway.ended_part(), None);
    let (requests, signals) = signals::queue();
    requests.ask(signals::Signal::Terminate);
    gateway.serve(&signals).unwrap();
}

/// A supervisor that restarts what has failed must see it fail.
#[test]
fn a_part_that_ends_by_itself_ends_the_gateway_with_a_failure_that_names_it() {
    let mut gateway = start();
    gateway.upkeep.stop();
    assert_eq!(gateway.ended_part(), Some("the upkeep"));
    let (_requests, signals) = signals::queue();
    let failure = gateway.serve(&signals).unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(format!("{failure:?}").contains("the upkeep had ended by itself"), "{failure:?}");
}

#[test]
fn so_does_the_thread_that_takes_signals() {
    let gateway = start();
    let (requests, signals) = signals::queue();
    drop(requests);
    assert_eq!(gateway.serve(&signals).unwrap_err().exit(), Exit::Failed);
}
