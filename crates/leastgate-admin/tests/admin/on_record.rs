//! What stands on record of a change: why, what was there before and what is there after, whichever call it was.

use serde_json::{Value, json};

use crate::fixture::{Plane, start};

/// What the last event of an operation says.
fn last(plane: &Plane, operation: &str) -> Value {
    plane.events(operation).pop().unwrap_or_else(|| panic!("no event of {operation}"))["change"].clone()
}

/// One of its details.
#[track_caller]
fn detail(change: &Value, name: &str) -> String {
    let details = change["details"].as_array().unwrap();
    let found = details.iter().find(|detail| detail["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {change}"))["value"].as_str().unwrap().to_owned()
}

fn bot(name: &str) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "scopes": ["orders:read"], "ttl": "1h", "note": "of the nightly build",
           "allow_cidr": ["10.0.0.0/8"], "not_before": "2026-01-01T00:00:00Z", "limits": {"rate": 5}})
}

const HOLDINGS: [(&str, &str); 7] = [
    ("owner", "team"),
    ("roles", "reader"),
    ("scopes", "orders:read"),
    ("not_before", "2026-01-01T00:00:00Z"),
    ("source_ip", "10.0.0.0/8"),
    ("limits", "rate 5"),
    ("note", "of the nightly build"),
];

#[track_caller]
fn tells_all(change: &Value) {
    for (name, value) in HOLDINGS {
        assert_eq!(detail(change, name), value, "{name} in {change}");
    }
    assert!(detail(change, "expires").ends_with('Z'));
}

#[test]
fn a_new_token_is_told_whole_and_with_a_reason_of_its_own() {
    let plane = start();
    plane.make(&bot("noted"));
    let change = last(&plane, "token.create");
    tells_all(&change);
    assert_eq!(change["reason"], "of the nightly build", "for want of a better one");
    let because = |name: &str| {
        let mut token = bot(name);
        token["reason"] = json!("TICKET-7");
        token
    };
    plane.make(&because("bot"));
    assert_eq!(last(&plane, "token.create")["reason"], "TICKET-7");
    let many = json!({"token": because("many"), "count": 2});
    assert_eq!(plane.post(&plane.root, "/v1/tokens/bulk", &many).status, 201);
    let change = last(&plane, "token.bulk");
    tells_all(&change);
    assert_eq!((&change["reason"], &last(&plane, "token.create")["reason"]), (&json!("TICKET-7"), &json!("TICKET-7")));
    let mut secret = because("secret");
    secret["reason"] = json!("was lgt_test_0aZ9000001_verysecretverysecretverysecretverysecret_abcdef");
    plane.post(&plane.root, "/v1/tokens", &secret).refused(422, "invalid-value");
    let again = || {
        let body = because("once").to_string();
        plane.call_with(&plane.root, "POST", "/v1/tokens", "Idempotency-Key: k\r\n", Some(&body)).status
    };
    assert_eq!([again(), again()], [201, 201]);
    assert_eq!(last(&plane, "token.create")["reason"], "TICKET-7", "of the repetition");
}

#[test]
fn a_rotation_tells_what_the_old_one_was_and_the_new_one_is() {
    let plane = start();
    plane.make(&bot("bot"));
    let rotate = |key: &str, body: Value| {
        let fields = format!("Idempotency-Key: {key}\r\n");
        plane.call_with(&plane.root, "POST", "/v1/tokens/bot/rotate", &fields, Some(&body.to_string())).status
    };
    assert_eq!(rotate("one", json!({"grace": "10m", "reason": "monthly"})), 201);
    let change = last(&plane, "token.rotate");
    tells_all(&change);
    let states = ["old.state.before", "old.state.after"].map(|name| detail(&change, name));
    assert_eq!(states, ["active", "rotating"]);
    assert!(detail(&change, "old.expires.before") > detail(&change, "old.expires.after"));
    assert_eq!(rotate("one", json!({"grace": "10m", "reason": "monthly"})), 200);
    assert_eq!(last(&plane, "token.rotate")["reason"], "monthly", "of the repetition");
    assert_eq!(rotate("two", json!({"now": true, "reason": "leaked"})), 201);
    let change = last(&plane, "token.rotate");
    let states = ["old.state.before", "old.state.after"].map(|name| detail(&change, name));
    assert_eq!(states, ["active", "revoked"]);
}

#[test]
fn an_import_tells_of_each_token_what_it_holds() {
    let plane = start();
    plane.make(&bot("bot"));
    let mut token = plane.get(&plane.root, "/v1/exports").json()["items"][0].clone();
    token["accessor"] = json!("AAAAAAAAA1");
    token["name"] = json!("foreign");
    token["owner"] = json!("team\", \"roles\": \"none");
    token["digest"] = json!(format!("blake3:{}", "0a".repeat(32)));
    let imported = plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": [token], "reason": "moved"}));
    assert_eq!(imported.status, 200, "{imported:?}");
    let events = plane.events("token.import");
    let told = events.iter().map(|event| &event["change"]).find(|change| change.to_string().contains("AAAAAAAAA1"));
    let told: Value = serde_json::from_str(&detail(told.unwrap(), "AAAAAAAAA1")).unwrap();
    for (name, value) in HOLDINGS.into_iter().filter(|(name, _)| *name != "owner").chain([("name", "foreign")]) {
        assert_eq!(told[name], value, "{name} in {told}");
    }
    assert_eq!((&told["owner"], &told["expires"]), (&token["owner"], &token["expires"]));
}

/// A token that has as much of everything as one may.
fn large(name: &str) -> Value {
    let network = |number: u32| json!(format!("2001:db8:1111:2222:3333:4444:5555:{number:x}/128"));
    let mut token = bot(name);
    token["note"] = json!("n".repeat(500));
    token["allow_cidr"] = (0..256).map(network).collect();
    token
}

/// Whoever keeps events or reads them bounds them by their number.
#[track_caller]
fn events_of_bounded_size(plane: &Plane, operation: &str) -> Vec<Value> {
    let events = plane.events(operation);
    for event in &events {
        let bytes = event.to_string().len();
        assert!(bytes < 128 * 1024, "{bytes}");
    }
    events.into_iter().map(|event| event["change"].clone()).collect()
}

#[test]
fn no_event_of_many_that_are_alike_is_large_and_each_tells_what_they_hold() {
    let plane = start();
    let made = plane.post(&plane.root, "/v1/tokens/bulk", &json!({"token": large("many"), "count": 600}));
    assert_eq!(made.status, 201, "{made:?}");
    let mut told = Vec::new();
    for change in events_of_bounded_size(&plane, "token.create") {
        let [accessors, names, networks] = ["accessors", "names", "source_ip"].map(|name| detail(&change, name));
        told.extend(accessors.split(' ').zip(names.split(' ')).map(|(accessor, name)| format!("{accessor} {name}")));
        assert_eq!((networks.split(' ').count(), detail(&change, "state.after").as_str()), (256, "active"));
    }
    let made = made.json();
    let items = made["items"].as_array().unwrap().iter();
    let expected: Vec<_> = items
        .map(|item| format!("{} {}", item["accessor"].as_str().unwrap(), item["name"].as_str().unwrap()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn no_event_of_an_import_is_large() {
    let plane = start();
    plane.make(&large("bot"));
    let model = plane.get(&plane.root, "/v1/exports").json()["items"][0].clone();
    let token = |number: u32| {
        let mut token = model.clone();
        token["accessor"] = json!(format!("AAAAAA{number:04}"));
        token["name"] = json!(format!("foreign-{number}"));
        token["digest"] = json!(format!("blake3:{number:016x}{}", "0a".repeat(24)));
        token
    };
    let tokens: Vec<Value> = (0..60).map(token).collect();
    let imported = plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": tokens, "reason": "moved"}));
    assert_eq!(imported.status, 200, "{imported:?}");
    let mut told = 0;
    for change in
        events_of_bounded_size(&plane, "token.import").iter().filter(|change| change.to_string().contains("AAAAAA"))
    {
        for accessor in detail(change, "accessors").split(' ') {
            let token: Value = serde_json::from_str(&detail(change, accessor)).unwrap();
            assert_eq!(
                (token["name"].as_str(), accessor),
                (Some(&*format!("foreign-{told}")), &*format!("AAAAAA{told:04}"))
            );
            told += 1;
        }
    }
    assert_eq!(told, 60);
}

#[test]
fn the_end_of_an_administrator_tells_who_it_was_and_whether_it_was_the_first() {
    let plane = start();
    let ceiling = json!({"environments": ["test"], "roles": ["reader"], "scopes": [], "max_ttl": 3600});
    let ann = json!({"name": "ann", "role": "operator", "may_grant": ceiling, "reason": "on call"});
    let made = plane.post(&plane.root, "/v1/admins", &ann);
    assert_eq!((made.status, &last(&plane, "admin.create")["reason"]), (201, &json!("on call")), "{made:?}");
    let id = made.json()["admin"]["id"].as_str().unwrap().to_owned();
    for before in ["active", "revoked"] {
        let revoked = plane.post(&plane.root, &format!("/v1/admins/{id}/revoke"), &json!({"reason": "left"}));
        assert_eq!(revoked.status, 200, "{revoked:?}");
        let change = last(&plane, "admin.revoke");
        let told = ["name", "role", "state.before", "state.after"].map(|name| detail(&change, name));
        assert_eq!(told, ["ann", "operator", before, "revoked"]);
        assert_eq!(serde_json::from_str::<Value>(&detail(&change, "may_grant")).unwrap(), ceiling);
    }
    plane.post(&plane.root, "/v1/admins/AAAAAAAAA1/revoke", &json!({"reason": "x"})).refused(404, "not-found");
}
