//! A disk that writes and can't sync: a commit that failed so lies in the store's log all the same, mark and all, and must not
//! count for whoever opens the store next.

use leastgate_testkit::deadline::{PATIENCE, until_true};
use serde_json::{Value, json};

use crate::hung_store::{Hung, reader};

fn disabled(hung: &Hung) -> String {
    let secret = hung.made("/v1/tokens", &reader("bot"))["secret"].as_str().unwrap().to_owned();
    hung.made("/v1/tokens/bot/disable", &json!({ "reason": "leaked" }));
    assert_eq!(hung.status(&secret), 401);
    secret
}

fn refused(hung: &Hung, path: &str, body: &Value) {
    let reply = hung.post(path, body);
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(hung.disk.has_failed());
}

#[test]
fn a_gift_whose_sync_failed_is_not_made_for_the_next_start_whichever_way_the_gateway_ended() {
    for is_killed in [true, false] {
        let mut hung = Hung::start();
        let secret = disabled(&hung);
        hung.disk.fail();
        refused(&hung, "/v1/tokens/bot/enable", &json!({ "reason": "back" }));
        if is_killed {
            hung.stored.gateway.kill();
        } else {
            // With what result is no matter here: its store can't be closed in order.
            let _ = hung.stored.gateway.stop();
        }
        hung.disk.go_on();
        hung.stored.gateway.restart();
        assert_eq!((hung.status(&secret), is_killed), (401, is_killed));
    }
}

#[test]
fn nothing_is_given_while_the_log_may_hold_what_was_refused_and_all_is_well_once_it_is_synced() {
    let hung = Hung::start();
    let secret = disabled(&hung);
    hung.disk.fail();
    refused(&hung, "/v1/tokens/bot/enable", &json!({ "reason": "back" }));
    assert!(hung.unsynced() > 0.0, "the alert stands");
    hung.disk.go_on();
    until_true("what was refused, overwritten", PATIENCE, || hung.unsynced() == 0.0);
    assert_eq!(hung.status(&secret), 401);
    hung.made("/v1/tokens/bot/enable", &json!({ "reason": "back" }));
    assert_eq!(hung.status(&secret), 200);
}

#[test]
fn what_took_too_long_and_then_failed_is_overwritten_before_its_debt_is_settled() {
    let mut hung = Hung::start();
    hung.made("/v1/tokens", &reader("bot"));
    hung.disk.hang();
    let reply =
        hung.post("/v1/tokens/bot/grants", &json!({ "scope": "orders:refund", "ttl": "30m", "reason": "INC-1" }));
    assert_eq!(reply.status, 503, "{}", reply.text());
    hung.disk.fail();
    until_true("a sync that failed", PATIENCE, || hung.disk.has_failed());
    hung.disk.go_on();
    until_true("what was refused, taken back", PATIENCE, || hung.unsynced() == 0.0);
    hung.stored.gateway.kill();
    hung.stored.gateway.restart();
    let shown = hung.get("/v1/tokens/bot").json();
    assert_eq!(shown["grants"].as_array().map(Vec::len), Some(0), "{shown}");
}

#[test]
fn what_is_taken_away_is_in_force_and_in_the_store_once_it_syncs_again() {
    let mut hung = Hung::start();
    let secret = hung.made("/v1/tokens", &reader("bot"))["secret"].as_str().unwrap().to_owned();
    hung.disk.fail();
    let revoked = hung.made("/v1/tokens/bot/revoke", &json!({ "reason": "leaked" }));
    assert_eq!((&revoked["durable"], hung.status(&secret)), (&json!(false), 401));
    hung.disk.go_on();
    until_true("the revocation, in the store", PATIENCE, || hung.unsynced() == 0.0);
    hung.stored.gateway.kill();
    hung.stored.gateway.restart();
    assert_eq!(hung.status(&secret), 401);
}
