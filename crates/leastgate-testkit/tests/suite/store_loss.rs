//! A disk without room under the store: what gives access is refused with one clear error, what takes it away is in force at
//! once and kept as soon as it can be, and tokens that are there go on working.

use std::fs;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::process::Ended;
use leastgate_testkit::small_disk::where_mounts_are_private;
use serde_json::json;

use crate::stored::Stored;

/// Ended with 1 and one line that says what is full.
fn assert_says_full(ended: &Ended) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(matches!(&lines[..], [line] if line.contains("no space left") && line.contains("store.db")), "{lines:?}");
    assert!(!ended.stdout.contains("lgt_"), "no secret of a token that is none: {}", ended.stdout);
}

#[test]
fn on_a_full_disk_no_token_is_made_and_those_there_are_work_on() {
    where_mounts_are_private(|| {
        let (stored, disk) = Stored::start_on_a_small_disk();
        let old = stored.create("old", &["--role", "reader"]);
        let root = stored.administrator("root-2", "admin");
        disk.fill();
        let secret_file = stored.gateway.path().join("new.secret").display().to_string();
        let create = ["token", "create", "--name", "new", "--role", "reader", "--owner", "t", "--ttl", "1h"];
        let wanted = json!({ "name": "new", "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
        let reply = stored.api("POST", "/v1/tokens", Some(&root), Some(wanted));
        assert_eq!((reply.status, reply.problem().as_deref()), (507, Some("insufficient-storage")), "{}", reply.text());
        assert!(reply.text().contains("no space left") && !reply.text().contains("lgt_"), "{}", reply.text());
        assert_says_full(&stored.gateway.cli(&create));
        assert_says_full(&stored.gateway.cli(&[&create[..], &["--secret-file", &secret_file]].concat()));
        assert!(!fs::exists(&secret_file).unwrap(), "no file for a secret that is none");
        assert_eq!(stored.ask(&old, "/v1/orders").status, 200);
        assert_eq!(stored.gateway.ops("/readyz").status, 200);

        disk.free();
        let new = stored.create("new", &["--role", "reader"]);
        assert_eq!((stored.ask(&new, "/v1/orders").status, stored.ask(&old, "/v1/orders").status), (200, 200));
    });
}

#[test]
fn on_a_full_disk_a_revocation_is_in_force_and_kept_when_there_is_room() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let secrets: Vec<_> =
            (0..3).map(|number| stored.create(&format!("gone-{number}"), &["--role", "reader"])).collect();
        let root = stored.administrator("root-2", "admin");
        disk.fill();
        let unsynced = |stored: &Stored| stored.gateway.metrics().sum("leastgate_store_unsynced_changes", &[]);
        for (number, secret) in secrets.iter().enumerate() {
            let path = format!("/v1/tokens/gone-{number}/revoke");
            let revoked = stored.api("POST", &path, Some(&root), Some(json!({ "reason": "leaked" })));
            assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{}", revoked.text());
            assert_eq!(stored.ask(secret, "/v1/orders").status, 401, "at once");
        }
        assert_eq!(unsynced(&stored), 3.0);
        let ended = stored.cli(&["token", "revoke", "gone-0", "--reason", "again", "--yes"]);
        assert!(ended.stderr.contains("in force, but not on disk yet"), "{}", ended.stderr);

        disk.free();
        until_true("every revocation in the store", PATIENCE, || unsynced(&stored) == 0.0);
        stored.gateway.kill();
        stored.gateway.restart();
        for secret in &secrets {
            assert_eq!(stored.ask(secret, "/v1/orders").status, 401);
        }
    });
}

#[test]
fn a_start_on_a_full_disk_says_so_and_leaves_the_store_whole() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let secret = stored.create("kept", &["--role", "reader"]);
        assert_eq!(stored.gateway.stop().code, Some(0));
        disk.fill();
        assert_says_full(&stored.gateway.restart_failing());
        disk.free();
        stored.gateway.restart();
        assert_eq!(stored.ask(&secret, "/v1/orders").status, 200);
    });
}
