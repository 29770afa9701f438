//! `kill -9` amid a revocation of many, and while the rows of the one before follow: the store has all of it or nothing.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::raw::RawClient;
use rustix::process::Signal;
use serde_json::json;

use crate::mutations::Random;
use crate::stored::Stored;

/// Tokens of one call: their rows take many commits.
const TOKENS: u64 = 10_100;
const KILLS: u64 = 5;

#[test]
fn a_revocation_of_many_is_kept_whole_or_not_at_all() {
    let mut stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let mut random = Random(0x5EED);
    // The first is left alone: how long it takes says when to kill the others.
    let mut usual = None;
    for round in 0..=KILLS {
        let owner = format!("team-{round}");
        for part in [10_000, TOKENS - 10_000] {
            let token =
                json!({ "name": format!("bulk-{round}-{part}"), "owner": owner, "roles": ["reader"], "ttl": "1h" });
            let made =
                stored.api("POST", "/v1/tokens/bulk", Some(&root), Some(json!({ "token": token, "count": part })));
            assert_eq!(made.status, 201, "{}", made.text());
        }
        let start = Instant::now();
        let delay = usual.map(|usual: Duration| usual * u32::try_from(random.below(100)).unwrap() / 100);
        let is_answered = revoke_all(&stored, &root, &owner, delay);
        usual.get_or_insert_with(|| start.elapsed());
        if delay.is_some() {
            stored.gateway.kill();
            stored.gateway.restart();
        }
        let left = living(&stored, &root, &owner);
        assert!([0, TOKENS].contains(&left), "{left} of {TOKENS} live, round {round}");
        assert!(!is_answered || left == 0, "{left} live on after an answer, round {round}");
        for earlier in 0..round {
            assert_eq!(living(&stored, &root, &format!("team-{earlier}")), 0, "round {earlier}, after round {round}");
        }
        assert!(revoke_all(&stored, &root, &owner, None), "it is asked again");
        assert_eq!(living(&stored, &root, &owner), 0);
    }
}

/// Whether an answer came that says it is durable. `kill`: when to.
fn revoke_all(stored: &Stored, root: &str, owner: &str, kill: Option<Duration>) -> bool {
    let admin = stored.gateway.addresses().admin;
    let body = json!({ "owner": owner, "reason": "r" }).to_string();
    let mut client = RawClient::connect(admin);
    thread::scope(|scope| {
        let sent = Instant::now();
        client.send(format!(
            "POST /v1/revocations HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        if let Some(delay) = kill {
            scope.spawn(move || {
                while sent.elapsed() < delay {
                    thread::yield_now();
                }
                stored.gateway.signal(Signal::KILL);
            });
        }
        client.read().is_ok_and(|reply| reply.status == 200 && reply.json()["durable"] == true)
    })
}

/// How many of them are not revoked.
fn living(stored: &Stored, root: &str, owner: &str) -> u64 {
    let asked = json!({ "owner": owner, "dry_run": true, "reason": "r" });
    stored.api("POST", "/v1/revocations", Some(root), Some(asked)).json()["matched"].as_u64().unwrap()
}
