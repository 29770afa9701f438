//! A disk that hangs under the store: what is taken away is in force and answered all the same, however much of it comes, and
//! a gift whose caller was told that it was not made does not come alive at the next start.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::hung_disk::HungDisk;
use leastgate_testkit::raw::{RawClient, Reply};
use leastgate_testkit::token::{self, PEPPER, Token};
use serde_json::{Value, json};

use crate::stored::{Stored, api};

/// Longer than a call of the API may take.
const CALL: Duration = Duration::from_secs(40);

pub(crate) struct Hung {
    pub(crate) stored: Stored,
    pub(crate) disk: HungDisk,
    root: String,
}

impl Hung {
    pub(crate) fn start() -> Self {
        let mut disk = None;
        let stored = Stored::start_with(|setup| {
            let hung = disk.insert(HungDisk::new(setup.path()));
            let variables = hung.variables();
            variables.into_iter().fold(setup, |setup, (name, value)| setup.variable(name, &value))
        });
        let root = stored.administrator("root-2", "admin");
        Self { stored, disk: disk.unwrap(), root }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        let mut client = RawClient::connect(self.stored.gateway.addresses().admin);
        client.send(self.request(path, body));
        client.read_for("POST", CALL).unwrap()
    }

    fn patch(&self, path: &str, body: &Value) -> Reply {
        let mut client = RawClient::connect(self.stored.gateway.addresses().admin);
        client.send(self.request_of("PATCH", path, body));
        client.read_for("PATCH", CALL).unwrap()
    }

    fn request(&self, path: &str, body: &Value) -> String {
        self.request_of("POST", path, body)
    }

    fn request_of(&self, method: &str, path: &str, body: &Value) -> String {
        let (body, admin) = (body.to_string(), self.stored.gateway.addresses().admin);
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\nIf-Match: *\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.root,
            body.len()
        )
    }

    pub(crate) fn made(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
        reply.json()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        api(&self.stored.gateway, "GET", path, Some(&self.root), None)
    }

    /// A gift that the store is writing when its caller is told that it was not made. It is taken back once the disk answers
    /// again; then the gateway is killed and started again.
    fn refuse(&mut self, path: &str, body: &Value) {
        self.disk.hang();
        let reply = self.post(path, body);
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("is not in force, and is taken back"), "{}", reply.text());
        assert!(self.unsynced() > 0.0, "the alert stands");
        self.disk.go_on();
        until_true("what was refused, taken back", PATIENCE, || self.unsynced() == 0.0);
        let told = |event: &Value| event["change"]["operation"] == "store.undo";
        until_true("its event", PATIENCE, || self.stored.gateway.events().iter().any(told));
        let event = self.stored.gateway.events().into_iter().find(told).unwrap();
        let details = event["change"]["details"].to_string();
        assert!(details.contains(r#"{"name":"kept","value":"1"}"#), "{event}");
        self.stored.gateway.kill();
        self.stored.gateway.restart();
    }

    pub(crate) fn unsynced(&self) -> f64 {
        self.stored.gateway.metrics().sum("leastgate_store_unsynced_changes", &[])
    }

    pub(crate) fn status(&self, secret: &str) -> u16 {
        self.stored.ask(secret, "/v1/orders").status
    }
}

pub(crate) fn reader(name: &str) -> Value {
    json!({ "name": name, "owner": "t", "roles": ["reader"], "ttl": "1h" })
}

#[test]
fn an_import_that_was_refused_while_it_was_written_does_not_come_alive() {
    let mut hung = Hung::start();
    let known = std::iter::from_fn(|| Some(Token::new("imported", &["reader"])));
    let known = known.into_iter().find(|token| token.accessor.bytes().any(|byte| byte.is_ascii_uppercase())).unwrap();
    hung.made("/v1/tokens", &reader("first"));
    let pepper = hung.get("/v1/exports").json()["items"][0]["pepper_id"].clone();
    let now = clock::now();
    let exported = json!({
        "accessor": known.accessor, "name": known.name, "env": "test", "pepper_id": pepper, "owner": "t",
        "digest": token::digest(known.secret(), "test", PEPPER), "roles": ["reader"],
        "created": clock::rfc3339(now - 60), "expires": clock::rfc3339(now + 3600),
    });
    let import = json!({ "tokens": [exported], "reason": "moved" });
    hung.refuse("/v1/tokens/import", &import);
    assert_eq!((hung.status(known.secret()), hung.get("/v1/tokens/imported").status), (401, 404));
    assert_eq!(hung.made("/v1/tokens/import", &import)["imported"], 1, "it can be imported as if it had never been");
    assert_eq!(hung.status(known.secret()), 200);
}

#[test]
fn what_was_to_be_enabled_stays_disabled() {
    let mut hung = Hung::start();
    let secret = hung.made("/v1/tokens", &reader("bot"))["secret"].as_str().unwrap().to_owned();
    hung.made("/v1/tokens/bot/disable", &json!({ "reason": "on holiday" }));
    hung.disk.hang();
    let reply = hung.post("/v1/tokens/bot/enable", &json!({ "reason": "back" }));
    assert_eq!(reply.status, 503, "{}", reply.text());
    hung.disk.go_on();
    until_true("the token as it was", PATIENCE, || hung.unsynced() == 0.0);
    hung.stored.gateway.kill();
    hung.stored.gateway.restart();
    let shown = hung.get("/v1/tokens/bot").json();
    assert_eq!((hung.status(&secret), &shown["state"]), (401, &json!("disabled")), "{shown}");
    assert!(shown.to_string().contains("on holiday"), "{shown}");
}

#[test]
fn a_grant_that_was_refused_while_it_was_written_is_not_there_after_a_restart() {
    let mut hung = Hung::start();
    hung.made("/v1/tokens", &reader("bot"));
    hung.refuse("/v1/tokens/bot/grants", &json!({ "scope": "orders:refund", "ttl": "30m", "reason": "INC-1" }));
    let shown = hung.get("/v1/tokens/bot").json();
    assert_eq!(shown["grants"].as_array().map(Vec::len), Some(0), "{shown}");
}

/// It may have ended in the store: then it has here too, and neither comes back.
#[test]
fn an_edit_that_was_refused_while_it_was_written_gives_nothing_and_what_stood_in_for_the_token_has_ended_everywhere() {
    let mut hung = Hung::start();
    let made = hung.made("/v1/tokens", &json!({ "name": "bot", "owner": "t", "roles": ["misc"], "ttl": "1h" }));
    let own = made["secret"].as_str().unwrap().to_owned();
    let child = hung.made("/v1/tokens/bot/children", &json!({ "ttl": "30m", "reason": "a command" }));
    let (secret, accessor) = (child["secret"].as_str().unwrap(), child["token"]["accessor"].as_str().unwrap());
    let status = |hung: &Hung| [hung.status(&own), hung.status(secret)];
    assert_eq!(status(&hung), [403, 403]);
    hung.disk.hang();
    let reply = hung.patch("/v1/tokens/bot", &json!({ "roles": ["misc", "reader"], "reason": "more" }));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(status(&hung), [403, 401]);
    hung.disk.go_on();
    until_true("what was refused, taken back", PATIENCE, || hung.unsynced() == 0.0);
    hung.stored.gateway.kill();
    hung.stored.gateway.restart();
    assert_eq!(status(&hung), [403, 401]);
    assert_eq!(hung.get("/v1/tokens/bot").json()["roles"], json!(["misc"]));
    assert_eq!(hung.get(&format!("/v1/tokens/{accessor}")).json()["state"], "revoked");
}

#[test]
fn a_rotation_that_was_refused_while_it_was_written_leaves_the_name_where_it_was() {
    let mut hung = Hung::start();
    let made = hung.made("/v1/tokens", &reader("bot"));
    let secret = made["secret"].as_str().unwrap();
    hung.refuse("/v1/tokens/bot/rotate", &json!({ "grace": "1m", "reason": "r" }));
    let shown = hung.get("/v1/tokens/bot").json();
    assert_eq!((&shown["accessor"], &shown["state"]), (&made["token"]["accessor"], &json!("active")), "{shown}");
    assert_eq!((&shown["expires"], hung.status(secret)), (&made["token"]["expires"], 200));
    hung.made("/v1/tokens/bot/rotate", &json!({ "grace": "1m", "reason": "r" }));
}

#[test]
fn a_thousand_revocations_are_in_force_and_answered_while_the_store_hangs() {
    let mut hung = Hung::start();
    let bulk = hung.made("/v1/tokens/bulk", &json!({ "token": reader("bot"), "count": 1000 }));
    let items = bulk["items"].as_array().unwrap();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    hung.disk.hang();
    let admin = hung.stored.gateway.addresses().admin;
    thread::scope(|scope| {
        // As many connections as the listener has, from as many addresses as that takes.
        for (at, items) in items.chunks(4).enumerate() {
            let source = Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(at / 60).unwrap());
            let hung = &hung;
            scope.spawn(move || {
                let mut client = RawClient::connect_from(admin, source);
                for item in items {
                    let path = format!("/v1/tokens/{}/revoke", text(item, "accessor"));
                    client.send(hung.request(&path, &json!({ "reason": "leaked" })));
                    let reply = client.read_for("POST", CALL).unwrap();
                    assert_eq!((reply.status, &reply.json()["durable"]), (200, &json!(false)), "{}", reply.text());
                    assert_eq!(hung.status(&text(item, "secret")), 401);
                }
            });
        }
    });
    assert!(hung.unsynced() <= 1_000.0);
    hung.disk.go_on();
    until_true("all of them in the store", PATIENCE, || hung.unsynced() == 0.0);
    hung.stored.gateway.kill();
    hung.stored.gateway.restart();
    let alive = items.iter().filter(|item| hung.status(&text(item, "secret")) != 401).count();
    assert_eq!(alive, 0);
}

#[test]
fn what_stands_in_for_a_token_is_out_of_force_before_the_store_has_answered() {
    let taken = [
        ("revoke", json!({ "reason": "leaked" })),
        ("disable", json!({ "reason": "on holiday" })),
        ("restrict", json!({ "remove_roles": ["misc"], "reason": "too much" })),
        ("rotate", json!({ "now": true, "reason": "leaked" })),
    ];
    for (what, body) in taken {
        let mut hung = Hung::start();
        let parent = json!({ "name": "bot", "owner": "t", "roles": ["misc", "reader"], "ttl": "1h" });
        hung.made("/v1/tokens", &parent);
        let child = hung.made("/v1/tokens/bot/children", &json!({ "ttl": "30m", "reason": "a command" }));
        let secret = child["secret"].as_str().unwrap();
        // Who stands in for whom is known after a start too.
        hung.stored.gateway.kill();
        hung.stored.gateway.restart();
        assert_eq!(hung.status(secret), 200);
        hung.disk.hang();
        let mut client = RawClient::connect(hung.stored.gateway.addresses().admin);
        client.send(hung.request(&format!("/v1/tokens/bot/{what}"), &body));
        // The store keeps a call for ten seconds before it gives up.
        until_true("the end of what stands in", PATIENCE / 2, || hung.status(secret) == 401);
        hung.disk.go_on();
        let reply = client.read_for("POST", CALL).unwrap();
        assert!(matches!(reply.status, 200 | 201), "{what}: {}", reply.text());
        let accessor = child["token"]["accessor"].as_str().unwrap();
        assert_eq!(hung.get(&format!("/v1/tokens/{accessor}")).json()["state"], "revoked", "{what}");
        let of_child =
            |event: &Value| event["change"]["operation"] == "token.revoke" && event["change"]["target"] == accessor;
        until_true("its event", PATIENCE, || hung.stored.gateway.events().iter().any(of_child));
    }
}

#[test]
fn uses_that_were_written_after_nobody_waited_any_more_are_counted_once() {
    let hung = Hung::start();
    let secret = hung.made("/v1/tokens", &reader("bot"))["secret"].as_str().unwrap().to_owned();
    for _ in 0..5 {
        assert_eq!(hung.status(&secret), 200);
    }
    let usage = || hung.get("/v1/tokens/bot/usage").json();
    hung.disk.hang();
    let mut client = RawClient::connect(hung.stored.gateway.addresses().admin);
    client.send(
        hung.request("/v1/tokens/bot/usage", &json!({})).replace("POST", "GET").replace(": 2\r\n\r\n{}", ": 0\r\n\r\n"),
    );
    let told = client.read_for("GET", CALL).unwrap().json();
    assert_ne!(told["complete"], true, "{told}");
    assert_eq!(hung.status(&secret), 200);
    hung.disk.go_on();
    until_true("all uses in the store", PATIENCE, || usage()["complete"] == true);
    let told = usage();
    let counts: Vec<_> = told["rules"].as_array().unwrap().iter().map(|rule| rule["count"].clone()).collect();
    assert_eq!(counts, [6], "{told}");
}
