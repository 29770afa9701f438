//! Administrators who are revoked while a call of theirs is under way: its head has come, and they were known by then.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use leastgate_store::{AdminRole, MayGrant};
use serde_json::{Value, json};

use crate::fixture::{Plane, Reply, admin, read, start};

/// A call whose caller the plane has asked for and found; its body is still to come.
struct Begun {
    stream: TcpStream,
    body: String,
}

impl Begun {
    fn new(plane: &Plane, credential: &str, target: &str, body: &Value) -> Self {
        let (mut stream, body) = (TcpStream::connect(plane.admin).unwrap(), body.to_string());
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {credential}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            plane.admin,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut told = vec![0; asked.len()];
        stream.read_exact(&mut told).unwrap();
        assert_eq!(told, asked, "the body is asked for by who knows the caller");
        Self { stream, body }
    }

    fn end(mut self) -> Reply {
        self.stream.write_all(self.body.as_bytes()).unwrap();
        read(self.stream)
    }
}

#[test]
fn who_is_revoked_before_the_body_has_come_does_nothing_with_it() {
    let plane = start();
    let gone = admin(&*plane.store, "gone", AdminRole::Admin, MayGrant::everything());
    let (_, secret) = plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"}));
    let everything = json!({"environments": "*", "roles": "*", "scopes": "*", "max_ttl": null});
    let calls = [
        ("token.create", "/v1/tokens", json!({"name": "more", "owner": "team", "roles": ["reader"], "ttl": "1h"})),
        ("token.grant", "/v1/tokens/bot/grants", json!({"scope": "orders:refund", "ttl": "5m", "reason": "r"})),
        ("admin.create", "/v1/admins", json!({"name": "heir", "role": "admin", "may_grant": everything})),
        ("token.revoke", "/v1/tokens/bot/revoke", json!({"reason": "r"})),
        ("check", "/v1/check", json!({"method": "GET", "url": "/v1/orders"})),
    ];
    let begun: Vec<Begun> = calls.iter().map(|(_, path, body)| Begun::new(&plane, &gone, path, body)).collect();
    let revoked = plane.post(&plane.root, "/v1/admins/gone/revoke", &json!({"reason": "left"}));
    assert_eq!(revoked.status, 200, "{revoked:?}");
    for (call, (operation, ..)) in begun.into_iter().zip(&calls) {
        call.end().refused(401, "invalid-credential");
        let told = plane.events(operation);
        let refused = told.iter().filter(|event| event["change"]["result"] == "invalid-credential").count();
        assert_eq!(refused, 1, "{operation}: {told:?}");
    }
    assert_eq!(plane.decide(&secret), "scope_granted", "and it takes nothing either");
    plane.get(&plane.root, "/v1/tokens/more").refused(404, "not-found");
    let admins = plane.get(&plane.root, "/v1/admins").body;
    assert!(!admins.contains("heir"), "{admins}");
}
