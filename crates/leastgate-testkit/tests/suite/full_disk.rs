//! Every call of the admin API that changes something, on a disk without room under the store: what gives access is refused
//! with 507 and changes nothing, what takes it away is in force at once and kept when there is room.

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::raw::{Reply, exchange};
use leastgate_testkit::small_disk::where_mounts_are_private;
use leastgate_testkit::token::{PEPPER, Token, digest};
use serde_json::{Value, json};

use crate::stored::Stored;

/// A call about a token whose version the caller has seen.
fn call(stored: &Stored, root: &str, method: &str, path: &str, body: Value) -> Reply {
    let (admin, body) = (stored.gateway.addresses().admin, body.to_string());
    exchange(
        admin,
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\nIf-Match: *\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// Makes a token over the API; its secret.
fn make(stored: &Stored, root: &str, name: &str, role: &str, owner: &str) -> String {
    let wanted = json!({ "name": name, "owner": owner, "roles": [role], "ttl": "1h" });
    let reply = call(stored, root, "POST", "/v1/tokens", wanted);
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()["secret"].as_str().unwrap().to_owned()
}

/// Makes what stands in for a token; its secret.
fn make_child(stored: &Stored, root: &str, parent: &str) -> (String, String) {
    let path = format!("/v1/tokens/{parent}/children");
    let reply = call(stored, root, "POST", &path, json!({ "ttl": "30m", "reason": "r" }));
    assert_eq!(reply.status, 201, "{}", reply.text());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&reply.json()["token"]["accessor"]), text(&reply.json()["secret"]))
}

/// All that the API lists.
fn listed(stored: &Stored, root: &str) -> [Value; 2] {
    ["/v1/tokens", "/v1/admins"].map(|path| stored.api("GET", path, Some(root), None).json())
}

fn status(stored: &Stored, secret: &str) -> u16 {
    stored.ask(secret, "/v1/orders").status
}

fn unsynced(stored: &Stored) -> f64 {
    stored.gateway.metrics().sum("leastgate_store_unsynced_changes", &[])
}

/// Whatever gives access, as a call each.
fn gifts(pepper_id: &Value, child: &str) -> Vec<(&'static str, String, Value)> {
    let token = json!({ "name": "new", "owner": "t", "roles": ["reader"], "ttl": "1h" });
    let foreign = std::iter::repeat_with(|| Token::new("foreign", &["reader"]))
        .find(|token| token.accessor.bytes().any(|byte| byte.is_ascii_uppercase()))
        .unwrap();
    let imported = json!({
        "accessor": foreign.accessor, "name": "foreign", "env": "test", "pepper_id": pepper_id, "owner": "t",
        "digest": digest(foreign.secret(), "test", PEPPER), "roles": ["reader"],
        "created": clock::rfc3339(clock::now() - 60), "expires": clock::rfc3339(clock::now() + 3600),
    });
    let on = |token: &str, what: &str, body: Value| ("POST", format!("/v1/tokens/{token}/{what}"), body);
    vec![
        ("POST", "/v1/tokens".to_owned(), token.clone()),
        ("POST", "/v1/tokens/bulk".to_owned(), json!({ "token": token, "count": 3 })),
        ("POST", "/v1/tokens/import".to_owned(), json!({ "tokens": [imported], "reason": "r" })),
        on("mover", "rotate", json!({ "grace": "1h", "reason": "r" })),
        on("edited", "grants", json!({ "scope": "orders:refund", "ttl": "15m", "reason": "r" })),
        on("edited", "children", json!({ "ttl": "15m", "reason": "r" })),
        on(child, "renew", json!({ "ttl": "45m", "reason": "r" })),
        ("PATCH", "/v1/tokens/edited".to_owned(), json!({ "roles": ["wide"], "reason": "r" })),
        on("off", "enable", json!({ "reason": "r" })),
        ("POST", "/v1/admins".to_owned(), json!({ "name": "third", "role": "viewer" })),
    ]
}

#[test]
fn on_a_full_disk_whatever_gives_access_is_refused_and_changes_nothing() {
    where_mounts_are_private(|| {
        let (stored, disk) = Stored::start_on_a_small_disk();
        let root = stored.administrator("root-2", "admin");
        let [mover, edited, off] = ["mover", "edited", "off"].map(|name| make(&stored, &root, name, "reader", "t"));
        let (child, _) = make_child(&stored, &root, "edited");
        assert_eq!(call(&stored, &root, "POST", "/v1/tokens/off/disable", json!({ "reason": "r" })).status, 200);
        let exported = stored.api("GET", "/v1/exports", Some(&root), None).json();
        let gifts = gifts(&exported["items"][0]["pepper_id"], &child);
        let before = listed(&stored, &root);
        disk.fill();
        for (method, path, body) in &gifts {
            let reply = call(&stored, &root, method, path, body.clone());
            let problem = reply.problem();
            assert_eq!(
                (reply.status, problem.as_deref()),
                (507, Some("insufficient-storage")),
                "{path} {}",
                reply.text()
            );
            assert!(
                reply.text().contains("no space left") && !reply.text().contains("lgt_"),
                "{path} {}",
                reply.text()
            );
        }
        assert_eq!(listed(&stored, &root), before);
        assert_eq!([&mover, &edited, &off].map(|secret| status(&stored, secret)), [200, 200, 401]);
        assert_eq!(unsynced(&stored), 0.0, "what is refused is not owed");

        disk.free();
        for (method, path, body) in &gifts {
            let reply = call(&stored, &root, method, path, body.clone());
            assert!(matches!(reply.status, 200 | 201), "{path} was refused for nothing else: {}", reply.text());
        }
    });
}

#[test]
fn on_a_full_disk_whatever_takes_access_away_is_in_force_and_kept_when_there_is_room() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let [root, second] = ["root-2", "second"].map(|name| stored.administrator(name, "admin"));
        let [gone, paused, narrow, parent] =
            ["gone", "paused", "narrow", "parent"].map(|name| make(&stored, &root, name, "reader", "t"));
        let swept = ["swept-1", "swept-2"].map(|name| make(&stored, &root, name, "reader", "sweep"));
        // More than are written into their rows at once.
        let crowd = json!({ "name": "crowd", "owner": "crowd", "roles": ["reader"], "ttl": "1h" });
        let made = call(&stored, &root, "POST", "/v1/tokens/bulk", json!({ "token": crowd, "count": 300 })).json();
        let crowd =
            ["0", "299"].map(|at| made.pointer(&format!("/items/{at}/secret")).unwrap().as_str().unwrap().to_owned());
        let (_, child) = make_child(&stored, &root, "parent");
        disk.fill();
        for (path, body) in [
            ("/v1/tokens/gone/revoke", json!({ "reason": "r" })),
            ("/v1/tokens/paused/disable", json!({ "reason": "r" })),
            ("/v1/tokens/narrow/restrict", json!({ "remove_roles": ["reader"], "reason": "r" })),
            ("/v1/tokens/parent/revoke", json!({ "reason": "r" })),
            ("/v1/revocations", json!({ "owner": "sweep", "reason": "r" })),
            ("/v1/revocations", json!({ "owner": "crowd", "reason": "r" })),
            ("/v1/admins/second/revoke", json!({ "reason": "r" })),
        ] {
            let reply = call(&stored, &root, "POST", path, body);
            assert_eq!((reply.status, &reply.json()["durable"]), (200, &json!(false)), "{path} {}", reply.text());
        }
        let in_force = |stored: &Stored| {
            let taken = [&gone, &paused, &parent, &child, &swept[0], &swept[1], &crowd[0], &crowd[1]];
            assert_eq!(taken.map(|secret| status(stored, secret)), [401; 8]);
            assert_eq!(status(stored, &narrow), 403, "it is a token still, and holds nothing");
            assert_eq!(stored.api("GET", "/v1/tokens", Some(&second), None).status, 401);
        };
        in_force(&stored);
        assert_eq!(
            unsynced(&stored),
            308.0,
            "six tokens, one of them restricted, a child, an administrator, and a crowd"
        );
        let enabled = call(&stored, &root, "POST", "/v1/tokens/paused/enable", json!({ "reason": "r" }));
        assert_eq!(
            enabled.problem().as_deref(),
            Some("store-unavailable"),
            "not before the store knows: {}",
            enabled.text()
        );

        disk.free();
        until_true("every change in the store", PATIENCE, || unsynced(&stored) == 0.0);
        stored.gateway.kill();
        stored.gateway.restart();
        in_force(&stored);
        let enabled = call(&stored, &root, "POST", "/v1/tokens/paused/enable", json!({ "reason": "r" }));
        assert_eq!((enabled.status, status(&stored, &paused)), (200, 200), "{}", enabled.text());
        let changes = stored.gateway.events().into_iter().filter(|event| event["kind"] == "admin");
        let late = changes.filter(|event| event["change"]["durable"] == false).count();
        assert_eq!(late, 10, "the record says that they were not in the store when they were answered");
    });
}

#[test]
fn on_a_full_disk_a_leaked_token_dies_even_where_it_can_have_no_successor() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let root = stored.administrator("root-2", "admin");
        let leaked = make(&stored, &root, "leaked", "reader", "t");
        disk.fill();
        let rotate = json!({ "now": true, "reason": "leaked" });
        let reply = call(&stored, &root, "POST", "/v1/tokens/leaked/rotate", rotate);
        assert_eq!((reply.status, reply.problem().as_deref()), (507, Some("insufficient-storage")), "{}", reply.text());
        assert!(reply.text().contains("the old token is revoked all the same"), "{}", reply.text());
        assert_eq!((status(&stored, &leaked), unsynced(&stored)), (401, 1.0));

        disk.free();
        until_true("the revocation in the store", PATIENCE, || unsynced(&stored) == 0.0);
        stored.gateway.kill();
        stored.gateway.restart();
        assert_eq!(status(&stored, &leaked), 401);
        let shown = stored.api("GET", "/v1/tokens/leaked", Some(&root), None).json();
        assert_eq!((&shown["state"], &shown["successor"]), (&json!("revoked"), &Value::Null));
        let again = make(&stored, &root, "leaked", "reader", "t");
        assert_eq!(status(&stored, &again), 200, "the name is free for another one");
    });
}
