//! A token's life through the API, as the data plane sees it, and what is told about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use leastgate_admin::{AdminState, Tokens};
use leastgate_policy::spec::{DeclaredToken, GrantSpec, RestrictionSpec};
use leastgate_policy::{Timestamp, TokenState};
use leastgate_store::{SqliteOptions, SqliteStore, TokenStore};
use serde_json::{Value, json};

use crate::fixture::{Setup, key, operator, policy, raw, start};

fn reader(name: &str) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h"})
}

#[test]
fn a_token_is_made_used_revoked_and_refused_on_the_next_request() {
    let plane = start();
    let made = plane.post(&plane.root, "/v1/tokens", &reader("bot"));
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let accessor = made.json()["token"]["accessor"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), Some(format!("/v1/tokens/{accessor}").as_str()));
    assert_eq!(plane.decide(&secret), "scope_granted");

    let revoked = plane.post(&plane.root, &format!("/v1/tokens/{accessor}/revoke"), &json!({"reason": "leaked"}));
    let told = json!({
        "accessor": accessor, "name": "bot", "state": "revoked", "durable": true, "also": [],
        "in_grace": [], "streams_cut": 0, "streams_cut_complete": true,
    });
    assert_eq!(revoked.json(), told);
    assert_eq!(plane.decide(&secret), "token_revoked");

    let event = &plane.events("token.revoke")[0];
    assert_eq!(event["actor"]["subject"], "root");
    let change = &event["change"];
    assert_eq!(
        (&change["reason"], &change["target"], &change["durable"]),
        (&json!("leaked"), &json!(accessor), &json!(true))
    );
    let details = change["details"].to_string();
    assert!(
        details.contains(r#"{"name":"state.before","value":"active"}"#) && details.contains(r#""value":"revoked""#),
        "{details}"
    );

    for (change, status) in [("revoke", 200), ("disable", 409), ("enable", 409)] {
        let again = plane.post(&plane.root, &format!("/v1/tokens/{accessor}/{change}"), &json!({"reason": "again"}));
        assert_eq!(again.status, status, "{again:?}");
    }
    assert_eq!(plane.decide(&secret), "token_revoked", "nothing leads back from there");
    let metrics = String::from_utf8(plane.telemetry.render_metrics()).unwrap();
    for line in [
        "leastgate_admin_requests_total{code=\"201\",operation=\"token.create\"} 1\n",
        "leastgate_admin_requests_total{code=\"409\",operation=\"token.enable\"} 1\n",
        "leastgate_revocation_duration_seconds_count 2\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[test]
fn a_secret_is_shown_once_and_in_no_later_answer() {
    let plane = start();
    let made = plane.post(&plane.root, "/v1/tokens", &reader("bot"));
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let random = secret.split('_').nth(3).unwrap();
    let accessor = made.json()["token"]["accessor"].as_str().unwrap().to_owned();
    let reason = json!({"reason": "test"});
    let mut answers = vec![
        plane.post(&plane.root, "/v1/tokens", &reader("bot")),
        plane.post(&plane.root, "/v1/tokens/bot/disable", &reason),
        plane.post(&plane.root, "/v1/tokens/bot/enable", &reason),
        plane.post(&plane.root, "/v1/check", &json!({"token": secret, "method": "GET", "url": "/v1/orders"})),
    ];
    for target in [
        "/v1/tokens",
        "/v1/tokens/bot",
        "/v1/tokens/bot/usage",
        "/v1/events?limit=1000",
        "/v1/status",
        "/v1/admins",
        "/v1/policy",
    ] {
        answers.push(plane.get(&plane.root, target));
    }
    answers.push(plane.get(&plane.root, &format!("/v1/tokens/{accessor}")));
    answers.push(plane.ops("/metrics"));
    for answer in answers {
        assert!(answer.status < 500 && !answer.body.contains(random) && !answer.head.contains(random), "{answer:?}");
    }
}

#[test]
fn a_repeated_call_makes_nothing_twice_and_tells_no_secret() {
    let plane = start();
    let post = |credential: &str, key: &str, body: &Value| {
        let body = body.to_string();
        let head =
            format!("POST /v1/tokens HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {credential}\r\n", plane.admin);
        let rest = format!(
            "Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(plane.admin, &format!("{head}Idempotency-Key: {key}\r\n{rest}"))
    };
    let first = post(&plane.root, "k1", &reader("bot")).json();
    let second = post(&plane.root, "k1", &reader("bot"));
    assert_eq!((second.status, second.json()["secret"].clone()), (201, Value::Null));
    assert_eq!(second.json()["token"]["accessor"], first["token"]["accessor"]);
    assert_eq!(plane.store.count_tokens(), Ok(1));
    post(&plane.root, "k1", &reader("other")).refused(409, "conflict");
    post(&plane.root, "k2", &reader("bot")).refused(409, "name-taken");
    post(&operator(&plane), "k1", &reader("bot")).refused(409, "name-taken");
    post(&plane.root, &"k".repeat(256), &reader("more")).refused(422, "invalid-value");
}

/// A name goes to somebody else after a revocation; what was done under it does not.
#[test]
fn a_repeated_call_of_a_namesake_is_another_call() {
    let plane = start();
    let ann = || {
        let ceiling = json!({"environments": "*", "roles": "*", "scopes": "*", "max_ttl": null});
        let made =
            plane.post(&plane.root, "/v1/admins", &json!({"name": "ann", "role": "admin", "may_grant": ceiling}));
        made.json()["secret"].as_str().unwrap().to_owned()
    };
    let post = |credential: &str| {
        let body = reader("bot").to_string();
        raw(
            plane.admin,
            &format!(
                "POST /v1/tokens HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {credential}\r\nIdempotency-Key: k1\r\n\
                 Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                plane.admin,
                body.len()
            ),
        )
    };
    let first = ann();
    assert_eq!((post(&first).status, post(&first).status), (201, 201));
    assert_eq!(plane.post(&plane.root, "/v1/admins/ann/revoke", &json!({"reason": "left"})).status, 200);
    post(&ann()).refused(409, "name-taken");
}

#[test]
fn disable_and_enable_take_and_give_back() {
    let plane = start();
    let made = plane.post(&plane.root, "/v1/tokens", &reader("bot"));
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let reason = json!({"reason": "holiday"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens/bot/disable", &reason).json()["state"], "disabled");
    assert_eq!(plane.decide(&secret), "token_disabled");
    let shown = plane.get(&plane.root, "/v1/tokens/bot");
    let tag = format!("\"{}.2\"", shown.json()["accessor"].as_str().unwrap());
    assert_eq!((&shown.json()["state"], shown.header("etag")), (&json!("disabled"), Some(tag.as_str())));
    assert_eq!(shown.json()["state_changed"]["reason"], "holiday");
    assert_eq!(plane.post(&plane.root, "/v1/tokens/bot/enable", &reason).json()["state"], "active");
    assert_eq!(plane.decide(&secret), "scope_granted");
    plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": " "})).refused(422, "invalid-value");
    plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({})).refused(422, "invalid-value");
    plane.post(&plane.root, "/v1/tokens/nobody/disable", &reason).refused(404, "not-found");
}

#[test]
fn the_policy_says_which_tokens_may_be_made() {
    let plane = start();
    let create = |body: Value| plane.post(&plane.root, "/v1/tokens", &body);
    let refused = |body: Value, named: &str| {
        let answer = create(body);
        answer.refused(422, "token-rules");
        assert!(answer.body.contains(named), "{named}: {answer:?}");
    };
    refused(json!({"name": "a", "owner": "t", "roles": ["writer"], "ttl": "1h"}), "writer");
    refused(
        json!({"name": "a", "owner": "t", "roles": ["writer"], "ttl": "1h"}),
        "the policy in force has the roles: reader",
    );
    refused(json!({"name": "a", "owner": "t", "scopes": ["orders:all"], "ttl": "1h"}), "orders:refund");
    refused(json!({"name": "a", "owner": "t", "roles": ["reader"]}), "at most 1d");
    refused(json!({"name": "a", "roles": ["reader"], "ttl": "1h"}), "owner");
    let all = "there is no role `writer`\",\"hint\":\"give an `owner`; give a `ttl` of at most 1d, which `token_rules` \
               sets; the policy in force has the roles: reader\"";
    refused(json!({"name": "a", "roles": ["writer"]}), all);
    refused(
        json!({"name": "a", "owner": "t", "roles": ["reader"], "ttl": "2d"}),
        "longer than the 1d that token_rules",
    );
    refused(
        json!({"name": "a", "owner": "t", "scopes": ["orders:refund"], "ttl": "1h"}),
        "at most 30m, which `orders:refund` sets",
    );
    for body in [
        json!({"name": "A", "owner": "t", "ttl": "1h"}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "env": "prod"}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "expires": "2099-01-01T00:00:00Z"}),
        json!({"name": "a", "owner": "t", "expires": "2001-01-01T00:00:00Z"}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "allow_cidr": ["10.0.0.0/33"]}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "allow_cidr": ["10.0.0.1/8"]}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "allow_cidr": ["::ffff:10.0.0.0/104"]}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "allow_cidr": ["::ffff:10.0.0.1"]}),
        json!({"name": "a", "owner": "t", "ttl": "1h", "roles": ["reader", "reader"]}),
        json!({"name": "a", "owner": "t\n", "ttl": "1h"}),
    ] {
        create(body).refused(422, "invalid-value");
    }
    let full = json!({"name": "a", "env": "test", "owner": "t", "roles": ["reader"], "scopes": ["orders:read"], "ttl": "1h",
                      "allow_cidr": ["10.0.0.0/8", "192.0.2.7"], "not_before": "2026-01-01T00:00:00Z", "note": "for the demo"});
    let made = create(full);
    assert_eq!(made.status, 201, "{made:?}");
    let token = &made.json()["token"];
    assert_eq!(
        token["restrictions"],
        json!({"source_ip": ["10.0.0.0/8", "192.0.2.7/32"], "not_before": "2026-01-01T00:00:00Z"})
    );
    create(reader("a")).refused(409, "name-taken");
}

#[test]
fn tokens_are_listed_by_page_and_filter() {
    let plane = start();
    for name in ["c", "a", "b"] {
        assert_eq!(plane.post(&plane.root, "/v1/tokens", &reader(name)).status, 201);
    }
    assert_eq!(plane.post(&plane.root, "/v1/tokens/b/revoke", &json!({"reason": "x"})).status, 200);
    let names = |target: &str| -> Vec<String> {
        let items = plane.get(&plane.root, target).json()["items"].clone();
        items.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("/v1/tokens"), ["a", "b", "c"]);
    assert_eq!(names("/v1/tokens?state=revoked"), ["b"]);
    assert_eq!(names("/v1/tokens?owner=team&state=active&sort=created").len(), 2);
    assert_eq!(names("/v1/tokens?owner=nobody"), [""; 0]);
    let first = plane.get(&plane.root, "/v1/tokens?limit=2").json();
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(names(&format!("/v1/tokens?limit=2&cursor={cursor}")), ["c"]);
    plane.get(&plane.root, "/v1/tokens?cursor=x").refused(422, "invalid-value");
}

#[test]
fn declared_tokens_are_shown_and_not_changed_here() {
    let mut spec = policy();
    spec.tokens = vec![DeclaredToken {
        accessor: "0aZ9000001".to_owned().into(),
        name: "ci".to_owned().into(),
        owner: Some("team".into()),
        digest: key().digest(b"x").to_string().into(),
        env: "test".to_owned().into(),
        roles: vec!["reader".to_owned().into()],
        grants: Vec::<leastgate_policy::spec::Located<GrantSpec>>::new(),
        restrictions: RestrictionSpec::default(),
        limits: Default::default(),
        created: Timestamp(4_000_000_000).into(),
        expires: Some(Timestamp(4_000_003_600).into()),
        state: TokenState::Active,
    }];
    let files = vec![PathBuf::from("/etc/leastgate/policy.yaml")];
    let plane = Setup { policy: Some(spec), tokens: Tokens::Declared { files }, ..Setup::default() }.start();
    assert_eq!(plane.get(&plane.root, "/v1/tokens/ci").json()["accessor"], "0aZ9000001");
    assert_eq!(plane.get(&plane.root, "/v1/tokens").json()["items"][0]["name"], "ci");
    assert_eq!(plane.get(&plane.root, "/v1/status").json()["tokens"]["active"], 1);
    let checked = plane.post(&plane.root, "/v1/check", &json!({"token": "ci", "method": "GET", "url": "/v1/orders"}));
    assert_eq!(checked.json()["effect"], "allow");
    for (target, body) in [("/v1/tokens", reader("bot")), ("/v1/tokens/ci/revoke", json!({"reason": "x"}))] {
        let refused = plane.post(&plane.root, target, &body);
        refused.refused(409, "tokens-declared");
        assert!(refused.body.contains("/etc/leastgate/policy.yaml"), "{refused:?}");
    }
    let disable = plane.post(&plane.root, "/v1/tokens/ci/disable", &json!({"reason": "x"}));
    let line = "set `state: disabled` on the token with `accessor: 0aZ9000001`";
    assert!(disable.body.contains(line), "{disable:?}");
}

/// A disk that takes no more: the file may not grow, so a change that needs a page fails with "full".
#[test]
fn a_revocation_holds_though_the_disk_is_full_and_creating_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    drop(SqliteStore::open(&path, "test", &key(), SqliteOptions::default()).unwrap());
    let pages = |path: &PathBuf| u32::try_from(std::fs::metadata(path).unwrap().len() / 4096).unwrap();
    let options = SqliteOptions { max_pages: Some(pages(&path) + 2), ..SqliteOptions::default() };
    let store: Arc<dyn TokenStore> = Arc::new(SqliteStore::open(&path, "test", &key(), options).unwrap());
    let plane = Setup { store, ..Setup::default() }.start();
    let long = "x".repeat(400);
    let mut secrets = vec![];
    let refused = (0..200).find_map(|n| {
        let mut body = reader(&format!("bot-{n}"));
        body["note"] = json!(long);
        let answer = plane.post(&plane.root, "/v1/tokens", &body);
        if answer.status == 201 {
            secrets.push((n, answer.json()["secret"].as_str().unwrap().to_owned()));
            return None;
        }
        Some(answer)
    });
    refused.expect("the store fills up").refused(507, "insufficient-storage");
    // A revocation writes a long reason into its row, which needs room too.
    let mut undurable = 0;
    for (n, secret) in &secrets {
        let answer =
            plane.post(&plane.root, &format!("/v1/tokens/bot-{n}/revoke"), &json!({"reason": "y".repeat(499)}));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(plane.decide(secret), "token_revoked");
        undurable += u32::from(answer.json()["durable"] == false);
    }
    assert!(undurable > 0, "the disk was full for some");
    assert!(plane.get(&plane.root, "/v1/status").json()["unsynced_changes"].as_u64().unwrap() > 0);
    assert!(
        !String::from_utf8(plane.telemetry.render_metrics()).unwrap().contains("leastgate_store_unsynced_changes 0\n")
    );
}

/// Somebody holds the store's write lock, as a backup or a database browser does.
#[test]
fn a_revocation_that_the_store_misses_is_kept_there_as_soon_as_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store: Arc<dyn TokenStore> =
        Arc::new(SqliteStore::open(&path, "test", &key(), SqliteOptions::default()).unwrap());
    let plane = Setup { store: Arc::clone(&store), ..Setup::default() }.start();
    let secret = plane.post(&plane.root, "/v1/tokens", &reader("bot")).json()["secret"].as_str().unwrap().to_owned();
    let browser = rusqlite::Connection::open(&path).unwrap();
    browser.execute_batch("BEGIN IMMEDIATE").unwrap();

    let reason = json!({"reason": "leaked"});
    let revoked = plane.post(&plane.root, "/v1/tokens/bot/revoke", &reason);
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
    assert_eq!(plane.decide(&secret), "token_revoked");
    assert_eq!(store.find_token("bot").unwrap().state, TokenState::Active);
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["state"], "revoked", "what is in force is shown");
    plane.post(&plane.root, "/v1/tokens/bot/enable", &reason).refused(409, "conflict");

    browser.execute_batch("ROLLBACK").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while plane.get(&plane.root, "/v1/status").json()["unsynced_changes"] != 0 {
        assert!(Instant::now() < until, "the store catches up");
    }
    assert_eq!(store.find_token("bot").unwrap().state, TokenState::Revoked);
}

#[test]
fn a_recorded_event_is_found_by_filter_and_id() {
    let plane = start();
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &reader("bot")).status, 201);
    let until = Instant::now() + Duration::from_secs(20);
    let event = loop {
        let events = plane.get(&plane.root, "/v1/events?kind=admin").json();
        match events["items"].as_array().and_then(|items| items.first().cloned()) {
            Some(event) => break event,
            None => assert!(Instant::now() < until, "the event turns up"),
        }
    };
    let id = event["id"].as_str().unwrap();
    assert_eq!(plane.get(&plane.root, &format!("/v1/decisions/{id}")).json(), event);
    assert_eq!(plane.get(&plane.root, "/v1/events?effect=deny&token=bot").json(), json!({"items": []}));
    plane.get(&plane.root, "/v1/decisions/7b0e").refused(422, "invalid-value");
    plane.get(&plane.root, "/v1/decisions/01890a5d-ac96-774b-bcce-b302099a8057").refused(404, "not-found");
}

#[test]
fn usage_says_whether_it_is_whole() {
    let plane = start();
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &reader("bot")).status, 201);
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot/usage").json()["complete"], true);
    plane.is_usage_behind.store(true, Ordering::Relaxed);
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot/usage").json()["complete"], false);
}

#[test]
fn the_status_shows_the_listeners_as_they_are_bound() {
    let plane = start();
    let expected = json!([
        {"name": "data", "address": "127.0.0.1:1"},
        {"name": "ops", "address": plane.ops.to_string()},
        {"name": "admin", "address": plane.admin.to_string()},
        {"name": "admin", "address": format!("unix:{}", plane.socket.display())},
    ]);
    assert_eq!(plane.get(&plane.root, "/v1/status").json()["listeners"], expected);
    assert!(plane.handle.as_ref().unwrap().is_running());
}

#[test]
fn without_a_policy_nothing_is_given() {
    let plane = Setup { policy: None, ..Setup::default() }.start();
    plane.post(&plane.root, "/v1/tokens", &reader("bot")).refused(503, "authorization-unavailable");
    plane.get(&plane.root, "/v1/policy").refused(503, "authorization-unavailable");
    assert_eq!(plane.get(&plane.root, "/v1/status").json()["ready"], false);
}

/// The state is plain values and closures: it can be built without a gateway.
#[test]
fn the_state_can_be_shown_without_a_secret() {
    fn is_debug<T: std::fmt::Debug>() {}
    is_debug::<AdminState>();
}
