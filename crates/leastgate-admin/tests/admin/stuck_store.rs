//! A store whose write lock somebody else holds, as a backup or a database browser does: what is taken away is in force
//! at once and stays taken away, whatever waits.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use leastgate_admin::api::Moment;
use leastgate_policy::{Timestamp, TokenState};
use leastgate_store::{AdminRole, MayGrant, SqliteOptions, SqliteStore, TokenStore};
use serde_json::{Value, json};

use crate::blocked_store::blocked;
use crate::fixture::{Plane, Setup, admin, ask, key, memory, raw, raw_unix, until};

fn on_disk(path: &Path) -> (Plane, Arc<dyn TokenStore>) {
    let store: Arc<dyn TokenStore> =
        Arc::new(SqliteStore::open(path, "test", &key(), SqliteOptions::default()).unwrap());
    (Setup { store: Arc::clone(&store), ..Setup::default() }.start(), store)
}

fn lock(path: &Path) -> rusqlite::Connection {
    let browser = rusqlite::Connection::open(path).unwrap();
    browser.execute_batch("BEGIN IMMEDIATE").unwrap();
    browser
}

fn reader(name: &str) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h"})
}

#[test]
fn a_disable_after_a_revocation_does_not_replace_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &reader("bot")).status, 201);
    let browser = lock(&path);

    let revoked = plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "leaked"}));
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
    let disabled = plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": "hygiene"}));
    disabled.refused(409, "conflict");
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["state"], "revoked");

    browser.execute_batch("ROLLBACK").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while plane.get(&plane.root, "/v1/status").json()["unsynced_changes"] != 0 {
        assert!(Instant::now() < until, "the store catches up");
    }
    let kept = store.find_token("bot").unwrap();
    assert_eq!((kept.state, kept.state_changed.unwrap().reason.as_str()), (TokenState::Revoked, "leaked"));
}

/// The second has read the token before the store knows what the first has taken from it.
#[test]
fn of_two_restrictions_at_a_time_neither_undoes_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    let bot = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    let (accessor, secret) = plane.make(&bot);
    let digest = key().digest(secret.as_bytes());
    let is_bound = || plane.authority.token(&digest).unwrap().terms.is_some();
    let browser = lock(&path);
    let until = Instant::now() + Duration::from_secs(30);
    std::thread::scope(|scope| {
        let restrict = |body: Value| {
            let (admin, root) = (plane.admin, plane.root.clone());
            scope.spawn(move || ask(admin, &root, "POST", "/v1/tokens/bot/restrict", "", Some(&body.to_string())))
        };
        let one = restrict(json!({"remove_roles": ["reader"], "reason": "too much"}));
        while plane.decide(&secret) == "scope_granted" {
            assert!(Instant::now() < until, "what is taken is gone at once");
            std::thread::yield_now();
        }
        let other = restrict(json!({"allow_cidr": ["127.0.0.0/8"], "limits": {"rate": 5}, "reason": "too wide"}));
        while !is_bound() {
            assert!(Instant::now() < until, "what is taken is gone at once");
            std::thread::yield_now();
        }
        assert_eq!(plane.decide(&secret), "insufficient_scope", "the second puts back what the first has taken");
        browser.execute_batch("ROLLBACK").unwrap();
        for answer in [one, other] {
            assert_eq!(answer.join().unwrap().status, 200);
        }
    });
    assert_eq!((plane.decide(&secret).as_str(), is_bound()), ("insufficient_scope", true));
    let kept = store.token(accessor.parse().unwrap()).unwrap();
    assert_eq!((kept.roles.len(), kept.restrictions.source_ip.len(), kept.limits.rate), (0, 1, Some(5)));
}

#[test]
fn what_was_taken_is_not_shown_as_held_while_the_store_still_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, _store) = on_disk(&path);
    let token = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &token).status, 201);
    let _browser = lock(&path);

    let less = json!({"remove_scopes": ["orders:refund"], "limits": {"rate": 5}, "reason": "leaked"});
    let restricted = plane.post(&plane.root, "/v1/tokens/bot/restrict", &less);
    assert_eq!((restricted.status, &restricted.json()["durable"]), (200, &json!(false)), "{restricted:?}");
    let shown = plane.get(&plane.root, "/v1/tokens/bot").json();
    let listed = plane.get(&plane.root, "/v1/tokens").json()["items"][0].clone();
    for token in [&restricted.json()["token"], &shown, &listed] {
        assert_eq!((&token["grants"], &token["limits"]["rate"]), (&json!([]), &json!(5)), "{token}");
    }
}

#[test]
fn what_the_store_owes_of_a_token_is_settled_before_it_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    let token = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &token).status, 201);
    let browser = lock(&path);
    let less = json!({"remove_scopes": ["orders:refund"], "reason": "leaked"});
    let restricted = plane.post(&plane.root, "/v1/tokens/bot/restrict", &less);
    assert_eq!(restricted.json()["durable"], false, "{restricted:?}");

    browser.execute_batch("ROLLBACK").unwrap();
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"reason": "monthly"}));
    assert_eq!(rotated.status, 201, "{rotated:?}");
    for which in ["token", "old"] {
        assert_eq!(rotated.json()[which]["grants"], json!([]), "{which}");
        let kept = store.token(rotated.json()[which]["accessor"].as_str().unwrap().parse().unwrap()).unwrap();
        assert!(kept.grants.is_empty(), "{which}: {kept:?}");
    }
}

#[test]
fn creates_that_wait_for_the_store_keep_neither_a_revocation_nor_the_metrics_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, _store) = on_disk(&path);
    let made = plane.post(&plane.root, "/v1/tokens", &reader("bot"));
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let _browser = lock(&path);

    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        // More than the plane has threads, from two addresses, each of which may have 64 connections.
        for n in 0..96 {
            let (tell, admin, socket) = (tell.clone(), plane.admin, plane.socket.clone());
            let body = reader(&format!("n{n}")).to_string();
            let request = format!(
                "POST /v1/tokens HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                plane.root,
                body.len()
            );
            scope.spawn(move || {
                let answer = if n % 2 == 0 { raw(admin, &request) } else { raw_unix(&socket, &request) };
                // The test may be over by the time the last ones are answered.
                let _ = tell.send(answer);
            });
        }
        let first = told.recv_timeout(Duration::from_secs(30)).unwrap();
        first.refused(503, "overloaded");
        assert_eq!(first.header("retry-after"), Some("1"));
        let on_record = || plane.events("token.create").iter().any(|event| event["change"]["result"] == "overloaded");
        assert!(on_record(), "who was refused a gift for a full lane is on record with it");
        let begun = Instant::now();
        assert_eq!(plane.ops("/metrics").status, 200);
        let revoked = plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "leaked"}));
        assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
        assert_eq!(plane.decide(&secret), "token_revoked");
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    });
}

/// The store can't say who a name means, and a dozen had it before.
#[test]
fn without_a_store_a_name_means_who_holds_it_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, _store) = on_disk(&path);
    let mut former = Vec::new();
    for _ in 0..12 {
        former.push(plane.make(&reader("bot")).0);
        assert_eq!(plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "former"})).status, 200);
    }
    let (_, in_grace) = plane.make(&reader("bot"));
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "30m", "reason": "due"})).json();
    let (holder, accessor) = (rotated["secret"].as_str().unwrap().to_owned(), rotated["token"]["accessor"].clone());
    let (_, of_accessor) = plane.make(&reader("other"));
    rusqlite::Connection::open(&path).unwrap().execute_batch("ALTER TABLE tokens RENAME TO gone").unwrap();

    let revoke = |target: &str| {
        let revoked = plane.post(&plane.root, &format!("/v1/tokens/{target}/revoke"), &json!({"reason": "leaked"}));
        assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
        revoked
    };
    let revoked = revoke("bot").json();
    assert_eq!([&holder, &in_grace].map(|secret| plane.decide(secret)), ["token_revoked"; 2]);
    assert_eq!(
        (&revoked["accessor"], revoked["also"].as_array().unwrap().len()),
        (&accessor, 1),
        "and none of the dead"
    );
    assert_eq!(plane.decide(&of_accessor), "scope_granted");
}

#[test]
fn an_export_hands_out_what_is_in_force_and_not_what_the_store_still_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    for name in ["kept", "gone", "off"] {
        plane.make(&reader(name));
    }
    let more = json!({"name": "less", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    plane.make(&more);
    plane.make(&json!({"name": "over", "owner": "team", "roles": ["reader"], "ttl": "20m"}));
    let exported = || {
        let page = plane.get(&plane.root, "/v1/exports").json();
        page["items"].as_array().unwrap().clone()
    };
    assert_eq!(exported().len(), 5);
    let browser = lock(&path);
    let taken = |name: &str, how: &str, body: &Value| {
        let answer = plane.post(&plane.root, &format!("/v1/tokens/{name}/{how}"), body);
        assert_eq!((answer.status, &answer.json()["durable"]), (200, &json!(false)), "{answer:?}");
    };
    taken("gone", "revoke", &json!({"reason": "leaked"}));
    taken("off", "disable", &json!({"reason": "a while"}));
    taken("over", "restrict", &json!({"expires": "2001-01-01T00:00:00Z", "reason": "over"}));
    let end = store.find_token("less").unwrap().expires.unwrap();
    let sooner = Moment(Timestamp(end.0 - 60)).to_string();
    let less = json!({
        "remove_scopes": ["orders:refund"], "allow_cidr": ["10.0.0.0/8"], "limits": {"rate": 3}, "expires": sooner,
        "reason": "less",
    });
    taken("less", "restrict", &less);

    let items = exported();
    let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kept", "less"]);
    let [_, less] = &items[..] else { panic!("{items:?}") };
    assert_eq!((&less["roles"], &less["grants"]), (&json!(["reader"]), &Value::Null), "{less}");
    assert_eq!((&less["restrictions"]["source_ip"], &less["limits"]["rate"]), (&json!(["10.0.0.0/8"]), &json!(3)));
    assert_eq!(less["expires"], json!(sooner), "{less}");
    browser.execute_batch("ROLLBACK").unwrap();
}

/// Neither the disk nor whoever keeps asking things of it has a say: the memory part needs neither of them.
#[test]
fn what_is_taken_away_is_in_force_while_every_read_of_the_store_hangs() {
    let (store, reads) = blocked(memory());
    let plane = Setup { store, ..Setup::default() }.start();
    let [by_name, by_accessor, off] = ["a", "b", "c"].map(|name| plane.make(&reader(name)));
    let viewer = admin(&*plane.store, "viewer", AdminRole::Viewer, MayGrant::everything());
    let paths = [
        ("/v1/tokens/a/revoke".to_owned(), &by_name.1),
        (format!("/v1/tokens/{}/revoke", by_accessor.0), &by_accessor.1),
        ("/v1/tokens/c/disable".to_owned(), &off.1),
    ];
    let admins = plane.get(&plane.root, "/v1/admins").json();
    let of_viewer = |admin: &&Value| admin["name"] == "viewer";
    let id = admins["items"].as_array().unwrap().iter().find(of_viewer).unwrap()["id"].as_str().unwrap().to_owned();
    reads.block();
    std::thread::scope(|scope| {
        // More than there are places for those who only look.
        for n in 0..40 {
            let (admin, viewer, n) = (plane.admin, viewer.clone(), format!("/v1/tokens/n{n}"));
            scope.spawn(move || ask(admin, &viewer, "GET", &n, "", None));
        }
        until("all that may look hang", || reads.hanging() >= 16);
        let mut answers = Vec::new();
        for (path, secret) in &paths {
            let (admin, root) = (plane.admin, plane.root.clone());
            let body = json!({"reason": "leaked"}).to_string();
            answers.push(scope.spawn(move || ask(admin, &root, "POST", path, "", Some(&body))));
            until("it is in force at once", || plane.decide(secret) != "scope_granted");
        }
        let gone = plane.post(&plane.root, &format!("/v1/admins/{id}/revoke"), &json!({"reason": "left"}));
        assert_eq!((gone.status, &gone.json()["durable"]), (200, &json!(true)), "{gone:?}");
        // Who has never called is not known without the store, and nobody is let in for that.
        let unknown = plane.post(&viewer.replace("lga_", "lga_x"), &paths[0].0, &json!({"reason": "mischief"}));
        assert!(matches!(unknown.status, 401 | 503), "{unknown:?}");
        reads.release();
        for answer in answers {
            let answer = answer.join().unwrap();
            assert_eq!((answer.status, &answer.json()["durable"]), (200, &json!(true)), "{answer:?}");
        }
    });
    let kept =
        [&by_name, &by_accessor, &off].map(|(accessor, _)| plane.store.token(accessor.parse().unwrap()).unwrap());
    assert_eq!(kept.map(|kept| kept.state), [TokenState::Revoked, TokenState::Revoked, TokenState::Disabled]);
    // 429: they have been refused too often.
    assert!(matches!(plane.get(&viewer, "/v1/tokens").status, 401 | 429));
}
