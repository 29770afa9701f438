//! One deployment's pepper, several environments: what is made in one is worth nothing in another.

use std::fs;

use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::Reply;
use leastgate_testkit::token::{PEPPER, Token, digest};

use crate::fixtures::{Orders, with_policy_and};
use crate::stored::{Stored, stored_setup};

/// Refused as any bad token is, and on record with the reason; answers the event.
fn refused(gateway: &TestGateway, reply: &Reply, reason: &str) -> serde_json::Value {
    assert_eq!((reply.status, reply.problem().as_deref()), (401, Some("invalid-token")), "{}", reply.text());
    let events = gateway.wait_decisions(reason, 1, |event| event["decision"]["reason"] == reason);
    let [event] = &events[..] else { panic!("{events:?}") };
    event.clone()
}

#[test]
fn a_copied_store_does_not_start_in_another_environment() {
    let mut ours = Stored::start();
    ours.create("bot", &["--role", "reader"]);
    assert_eq!(ours.gateway.stop().code, Some(0));
    let theirs = stored_setup().section("environment", "other").upstream("orders", &ours.upstream.url());
    fs::copy(ours.gateway.path().join("state/store.db"), theirs.path().join("state/store.db")).unwrap();
    let ended = theirs.start_failing();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let words = "belongs to environment `test`, this gateway serves `other`: give each environment a state_dir";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

#[test]
fn a_token_of_another_environment_is_refused_and_recorded_as_such() {
    let ours = Stored::start();
    let other = Stored::start_with(|setup| setup.section("environment", "other"));
    let secret = other.create("bot", &["--role", "wide"]);
    assert!(secret.starts_with("lgt_other_"));
    assert_eq!(other.ask(&secret, "/v1/orders").status, 200, "at home it is good");
    let gateway = &ours.gateway;
    let event = refused(gateway, &ours.ask(&secret, "/v1/orders"), "environment_mismatch");
    assert!(event["actor"]["subject"].is_null(), "nobody's name is taken from a text: {event}");
    assert_eq!(ours.upstream.count(), 0);
}

/// A digest from another environment's table is nobody's here, whatever the token's text says.
#[test]
fn a_digest_made_under_another_environments_key_matches_nothing() {
    let bot = Token::new("bot", &["wide"]);
    let [ours, theirs] = ["test", "other"].map(|env| digest(bot.secret(), env, PEPPER));
    let declared = |digest: &str| format!("{ORDERS}tokens:\n{}", bot.declaration().replace(&ours, digest));
    let start = |digest: &str| -> Orders { with_policy_and(&declared(digest), Setup::without_tokens) };
    let copied = start(&theirs);
    refused(&copied.gateway, &copied.gateway.get(&bot, "/v1/orders"), "token_unknown");
    assert_eq!(copied.upstream.count(), 0);
    assert_eq!(start(&ours).gateway.get(&bot, "/v1/orders").status, 200, "it is the digest alone");
}
