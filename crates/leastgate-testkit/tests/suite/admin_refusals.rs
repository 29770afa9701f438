//! What reaches the admin listener without being meant for it: a name that was bound to the loopback address, a page in an
//! administrator's browser. And two administrators who both mean the same version of one token.

use std::thread;

use leastgate_testkit::raw::{Reply, exchange};
use serde_json::json;

use crate::stored::Stored;

/// A call that makes a token, with these field lines in place of its own `Host`.
fn create(stored: &Stored, root: &str, fields: &str) -> Reply {
    let body = json!({ "name": "new", "owner": "t", "roles": ["reader"], "ttl": "1h" }).to_string();
    let head = format!("POST /v1/tokens HTTP/1.1\r\n{fields}Authorization: Bearer {root}\r\nConnection: close\r\n");
    exchange(stored.gateway.addresses().admin, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn neither_a_rebound_name_nor_a_web_page_changes_anything() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let admin = stored.gateway.addresses().admin;
    let (host, json) = (format!("Host: {admin}\r\n"), "Content-Type: application/json\r\n");
    for (fields, status, problem) in [
        (format!("Host: rebound.example\r\n{json}"), 421, "unknown-host"),
        (format!("Host: rebound.example:{}\r\n{json}", admin.port()), 421, "unknown-host"),
        (format!("{host}{json}Origin: https://page.example\r\n"), 403, "browser-request"),
        (format!("{host}{json}Origin: http://{admin}\r\n"), 403, "browser-request"),
        (format!("{host}{json}Origin: null\r\n"), 403, "browser-request"),
        (format!("{host}{json}Sec-Fetch-Site: cross-site\r\n"), 403, "browser-request"),
        (format!("{host}Content-Type: text/plain\r\n"), 415, "unsupported-media-type"),
        (format!("{host}Content-Type: application/x-www-form-urlencoded\r\n"), 415, "unsupported-media-type"),
    ] {
        let reply = create(&stored, &root, &fields);
        assert_eq!((reply.status, reply.problem().as_deref()), (status, Some(problem)), "{fields}{}", reply.text());
        assert!(reply.head.all("access-control-allow-origin").next().is_none());
    }
    assert_eq!(stored.cli(&["token", "list", "-o", "name"]).stdout.trim(), "");
    assert_eq!(create(&stored, &root, &format!("{host}{json}")).status, 201, "it was refused for nothing else");
}

#[test]
fn of_two_administrators_who_mean_the_same_version_one_is_told_to_look_again() {
    let stored = Stored::start();
    let admins = ["root-2", "root-3"].map(|name| stored.administrator(name, "admin"));
    stored.create("shared", &["--role", "reader"]);
    let admin = stored.gateway.addresses().admin;
    let shown = stored.api("GET", "/v1/tokens/shared", Some(&admins[0]), None).json();
    let accessor = shown["accessor"].as_str().unwrap();
    for version in 1..=20 {
        let patch = |credential: &str, note: &str| {
            let body = json!({ "note": note, "reason": "r" }).to_string();
            exchange(
                admin,
                format!(
                    "PATCH /v1/tokens/shared HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {credential}\r\nIf-Match: \"{accessor}.{version}\"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
            )
        };
        let notes = [0, 1].map(|at| format!("note {version} of {at}"));
        let replies: Vec<Reply> = thread::scope(|scope| {
            let both: Vec<_> = [0, 1]
                .into_iter()
                .map(|at| {
                    scope.spawn({
                        let (admins, notes, patch) = (&admins, &notes, &patch);
                        move || patch(&admins[at], &notes[at])
                    })
                })
                .collect();
            both.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = replies.iter().position(|reply| reply.status == 200).expect("one of them");
        let lost = &replies[1 - won];
        assert_eq!((lost.status, lost.problem().as_deref()), (412, Some("precondition-failed")), "{}", lost.text());
        let shown = stored.api("GET", "/v1/tokens/shared", Some(&admins[0]), None).json();
        assert_eq!((&shown["note"], &shown["version"]), (&json!(notes[won]), &json!(version + 1)));
    }
}
