//! Limits of a token through the API: what may be asked for, what is shown, what stands on record.

use leastgate_policy::TokenLimits;
use leastgate_store::{UsageBatch, UsageDelta};
use serde_json::{Value, json};

use crate::fixture::{operator, start};

fn bot(name: &str, limits: &Value) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h", "limits": limits})
}

#[test]
fn the_limits_of_a_new_token_are_in_force_shown_and_on_record() {
    let plane = start();
    let all = json!({"rate": 50, "burst": 100, "concurrent": 10});
    let made = plane.post(&plane.root, "/v1/tokens", &bot("bot", &all));
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["token"]["limits"], all);
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["limits"], all);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let token = plane.authority.tokens().get(&plane.authority.key().digest(secret.as_bytes())).unwrap();
    let limits = TokenLimits { rate: Some(50), burst: Some(100), concurrent: Some(10) };
    assert_eq!(token.terms.unwrap().limits, limits);
    let details = plane.events("token.create")[0]["change"]["details"].to_string();
    let told = r#"{"name":"limits","value":"rate 50, burst 100, concurrent 10"}"#;
    assert!(details.contains(told), "{told} in {details}");
    let one = plane.post(&plane.root, "/v1/tokens", &bot("one", &json!({"concurrent": 1})));
    assert_eq!(one.json()["token"]["limits"], json!({"rate": null, "burst": null, "concurrent": 1}));
}

#[test]
fn limits_that_can_t_be_are_refused_in_words() {
    let plane = start();
    for (limits, words) in [
        (json!({"rate": 0}), "`rate` of a token's limits must be at least 1"),
        (json!({"rate": 1, "burst": 0}), "`burst` of a token's limits must be at least 1"),
        (json!({"concurrent": 0}), "`concurrent` of a token's limits must be at least 1"),
        (json!({"burst": 5}), "give the `rate` too"),
        (json!({"burst": 5, "concurrent": 1}), "give the `rate` too"),
        (json!({"rate": 1_000_001}), "must be at most 1000000 a second"),
        (json!({"rate": 1, "burst": 86_401}), "at most what the rate gives in a day, 86400 for each request a second"),
    ] {
        let refused = plane.post(&plane.root, "/v1/tokens", &bot("bot", &limits));
        refused.refused(422, "invalid-value");
        assert!(refused.body.contains(words), "{words} in {refused:?}");
    }
    for limits in [json!({"rate": -1}), json!({"rate": 1.5}), json!({"rate": "50/s"}), json!({"rte": 1}), json!(5)] {
        let refused = plane.post(&plane.root, "/v1/tokens", &bot("bot", &limits));
        assert!((400..=422).contains(&refused.status), "{refused:?}");
    }
    assert_eq!(plane.get(&plane.root, "/v1/tokens").json()["items"], json!([]));
}

#[test]
fn an_edit_refuses_a_limit_that_it_does_not_know_and_keeps_the_others() {
    let plane = start();
    plane.make(&bot("bot", &json!({"rate": 50})));
    for limits in [json!({"rte": 5}), json!({"burst": 5}), json!({"rate": 0})] {
        let body = json!({"limits": limits, "reason": "r"});
        let patched = plane.patch(&plane.root, "/v1/tokens/bot", "*", &body);
        let restricted = plane.post(&plane.root, "/v1/tokens/bot/restrict", &body);
        for refused in [patched, restricted] {
            assert!((400..=422).contains(&refused.status), "{limits}: {refused:?}");
        }
    }
    let token = plane.get(&plane.root, "/v1/tokens/bot").json();
    assert_eq!(token["limits"], json!({"rate": 50, "burst": null, "concurrent": null}));
}

#[test]
fn a_restriction_never_lets_more_through_at_once() {
    let plane = start();
    plane.make(&bot("bot", &json!({"rate": 50})));
    let wider = json!({"limits": {"rate": 50, "burst": 1000}, "reason": "r"});
    let answer = plane.post(&plane.root, "/v1/tokens/bot/restrict", &wider).json();
    assert_eq!(answer["token"]["limits"], json!({"rate": 50, "burst": null, "concurrent": null}));
}

#[test]
fn more_at_once_is_more_and_takes_a_ceiling_that_covers_the_token() {
    let plane = start();
    let own = json!({"name": "refunder", "owner": "team", "scopes": ["orders:refund"], "ttl": "20m",
        "limits": {"rate": 50}});
    plane.make(&own);
    let operator = operator(&plane);
    let patch = |limits: Value| {
        plane.patch(&operator, "/v1/tokens/refunder", "*", &json!({"limits": limits, "reason": "r"})).status
    };
    assert_eq!(patch(json!({"rate": 50, "burst": 100})), 403);
    assert_eq!(patch(json!({"rate": 50, "burst": 10})), 200);
}

/// What it has together with another one is not its own to be restricted.
#[test]
fn limits_that_are_shared_are_restricted_where_the_name_is() {
    let plane = start();
    let (old, _) = plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "12h",
        "limits": {"rate": 50}}));
    let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "5m", "reason": "x"}));
    let child = child.json()["token"]["accessor"].as_str().unwrap().to_owned();
    plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "1m", "reason": "x"}));
    let restrict = |token: &str, body: &Value| plane.post(&plane.root, &format!("/v1/tokens/{token}/restrict"), body);
    let limits = json!({"limits": {"rate": 5}, "allow_cidr": ["127.0.0.0/8"], "reason": "x"});
    for (token, whom) in [(old.as_str(), "its successor"), (child.as_str(), "the one it stands in for")] {
        let refused = restrict(token, &limits);
        refused.refused(409, "conflict");
        assert!(refused.body.contains(whom), "{refused:?}");
        let record = plane.store.token(token.parse().unwrap()).unwrap();
        assert_eq!((record.limits.rate, record.restrictions.source_ip.len()), (Some(50), 0), "nothing is changed");
        assert_eq!(restrict(token, &json!({"allow_cidr": ["127.0.0.0/8"], "reason": "x"})).status, 200);
    }
    assert_eq!(restrict("bot", &limits).json()["token"]["limits"]["rate"], 5);
}

/// A token that is stood in for is in use, and comes from nowhere for that.
#[test]
fn what_stands_in_for_a_token_leaves_where_it_was_last_used_from() {
    let plane = start();
    let source = || Some("192.0.2.7".parse().unwrap());
    for (name, is_stored) in [("memory", false), ("store", true)] {
        let (accessor, _) = plane.make(&bot(name, &json!({})));
        let accessor = accessor.parse().unwrap();
        let now = plane.telemetry.clock().timestamp();
        if is_stored {
            let use_of = UsageDelta { accessor, rule: None, count: 1, last_used: now, last_source: source() };
            plane.store.record_usage(UsageBatch::draw(vec![use_of]).unwrap()).unwrap();
        } else {
            plane.telemetry.usage().record(accessor, None, now, source());
        }
        let child = json!({"ttl": "5m", "reason": "x"});
        assert_eq!(plane.post(&plane.root, &format!("/v1/tokens/{name}/children"), &child).status, 201);
        let last = &plane.get(&plane.root, &format!("/v1/tokens/{name}")).json()["last_used"];
        assert_eq!(last["source"], "192.0.2.7", "{name}: {last}");
    }
}
