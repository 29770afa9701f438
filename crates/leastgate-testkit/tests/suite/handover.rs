//! Tokens handed from gateway to gateway: what leaves is what is in force, and what was taken away here never comes back.

use std::fs;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::small_disk::where_mounts_are_private;
use serde_json::{Value, json};

use crate::stored::Stored;

fn exported(stored: &Stored) -> Vec<Value> {
    serde_json::from_str(&stored.cli(&["token", "export", "-o", "json"]).stdout).unwrap()
}

#[test]
fn an_import_of_what_was_revoked_and_purged_here_is_refused_by_name() {
    let mut stored = Stored::start_with(|setup| setup.section("retention", "1s"));
    let secret = stored.create("leaked", &["--role", "reader"]);
    let file = stored.gateway.path().join("tokens.json");
    fs::write(&file, stored.cli(&["token", "export", "-o", "json"]).stdout).unwrap();
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    until_true("the purge", 3 * PATIENCE, || stored.cli(&["token", "list", "-o", "name"]).stdout.trim().is_empty());
    let import = ["token", "import", file.to_str().unwrap(), "--reason", "from the other one"];
    let refused = stored.gateway.cli(&import);
    assert_ne!(refused.code, Some(0));
    let accessor = secret.split('_').nth(2).unwrap();
    for word in ["tokens[0] (leaked)", accessor, "was revoked here at", "purged since"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);
    // Nor does a backup from before bring it back: the tombstone is carried over.
    let checked: Value = serde_json::from_str(&stored.cli(&["store", "check", "-o", "json"]).stdout).unwrap();
    assert_eq!((&checked["tombstones"], &checked["tokens"]), (&json!(1), &json!(0)), "{checked}");
}

#[test]
fn a_backup_from_before_does_not_bring_back_what_was_purged_since() {
    let mut stored = Stored::start_with(|setup| setup.section("retention", "1s"));
    let secret = stored.create("leaked", &["--role", "reader"]);
    let backup = stored.gateway.path().join("backup.db").display().to_string();
    stored.cli(&["store", "backup", &backup]);
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    until_true("the purge", 3 * PATIENCE, || stored.cli(&["token", "list", "-o", "name"]).stdout.trim().is_empty());
    assert_eq!(stored.gateway.stop().code, Some(0));
    let said: Value =
        serde_json::from_str(&stored.cli(&["store", "restore", &backup, "--yes", "-o", "json"]).stdout).unwrap();
    assert_eq!((&said["since"]["revoked"], &said["since"]["unknown"]), (&json!(1), &json!(0)), "{said}");
    stored.gateway.restart();
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);
}

#[test]
fn an_export_beside_a_full_disk_hands_out_nothing_that_was_taken_away() {
    where_mounts_are_private(|| {
        let (stored, disk) = Stored::start_on_a_small_disk();
        let root = stored.administrator("root-2", "admin");
        for name in ["kept", "gone", "less"] {
            stored.create(name, &["--role", "reader"]);
        }
        assert_eq!(exported(&stored).len(), 3);
        disk.fill();
        for (path, body) in [
            ("/v1/tokens/gone/revoke", json!({ "reason": "leaked" })),
            ("/v1/tokens/less/restrict", json!({ "remove_roles": ["reader"], "reason": "too much" })),
        ] {
            let taken = stored.api("POST", path, Some(&root), Some(body));
            assert_eq!((taken.status, &taken.json()["durable"]), (200, &json!(false)), "{}", taken.text());
        }
        let left = exported(&stored);
        let names: Vec<&str> = left.iter().map(|token| token["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["kept", "less"]);
        assert_eq!(left[1]["roles"], Value::Null, "{}", left[1]);
        until_true("both exports on record", PATIENCE, || {
            let events = stored.gateway.events();
            let exports = events.iter().filter(|event| event["change"]["operation"] == "token.export");
            exports.map(|event| &event["change"]["details"][0]["value"]).eq([&json!("3"), &json!("2")])
        });
        disk.free();
    });
}
