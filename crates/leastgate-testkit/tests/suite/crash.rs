//! `kill -9` under load: whatever was acknowledged is there after the restart, and the audit file says what is not.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::audit;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::raw::RawClient;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fixtures::Orders;
use crate::stored::Stored;

/// What a kill may cost: the events of this last while.
const BUFFERED: Duration = Duration::from_secs(1);

/// A token that the API said it had made, and whether it also said that it was revoked.
struct Acknowledged {
    secret: String,
    revoked: bool,
}

#[test]
fn what_the_admin_api_acknowledged_under_load_survives_a_kill() {
    let mut stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let old = stored.create("old", &["--role", "reader"]);
    let made = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for lane in 0..2 {
            let (admin, root, made) = (stored.gateway.addresses().admin, &root, &made);
            scope.spawn(move || change_until_killed(admin, root, lane, made));
        }
        let asking = format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {old}\r\n\r\n");
        scope.spawn(|| ask_until_killed(stored.gateway.client(), asking));
        until_true("some changes", PATIENCE, || made.lock().unwrap().len() >= 40);
        stored.gateway.signal(Signal::KILL);
    });
    stored.gateway.kill();
    stored.gateway.restart();
    assert_eq!(stored.ask(&old, "/v1/orders").status, 200);
    let made = made.into_inner().unwrap();
    assert!(made.iter().any(|token| token.revoked) && made.iter().any(|token| !token.revoked));
    for token in made {
        let wanted = if token.revoked { 401 } else { 200 };
        assert_eq!(stored.ask(&token.secret, "/v1/orders").status, wanted);
    }
    let new = stored.create("new", &["--role", "reader"]);
    assert_eq!(stored.ask(&new, "/v1/orders").status, 200, "the store takes changes as before");
}

/// Makes tokens and revokes every second one, and keeps what was acknowledged.
fn change_until_killed(admin: SocketAddr, root: &str, lane: usize, made: &Mutex<Vec<Acknowledged>>) {
    let call = |path: &str, body: Value| -> Option<Value> {
        let mut client = RawClient::try_connect_from(admin, Ipv4Addr::LOCALHOST).ok()?;
        let body = body.to_string();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let reply = client.read().ok()?;
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        Some(reply.json())
    };
    for number in 0.. {
        let name = format!("made-{lane}-{number}");
        let wanted = json!({ "name": name, "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
        let Some(answer) = call("/v1/tokens", wanted) else { return };
        let secret = answer["secret"].as_str().unwrap().to_owned();
        if number % 2 == 0 {
            made.lock().unwrap().push(Acknowledged { secret, revoked: false });
        } else if let Some(answer) = call(&format!("/v1/tokens/{name}/revoke"), json!({ "reason": "r" })) {
            assert_eq!(answer["durable"], true);
            made.lock().unwrap().push(Acknowledged { secret, revoked: true });
        }
    }
}

/// When each answer came, until there was none.
fn ask_until_killed(mut client: RawClient, request: String) -> Vec<Instant> {
    let mut answered = Vec::new();
    while client.try_send(&request).is_ok() {
        let Ok(reply) = client.read() else { break };
        assert_eq!(reply.status, 200);
        answered.push(Instant::now());
    }
    answered
}

#[test]
fn after_a_kill_the_audit_file_verifies_up_to_the_torn_end_and_from_there_on() {
    let mut orders = Orders::start();
    let file = orders.gateway.path().join("audit.ndjson");
    let asking = request("GET", "/v1/orders", Some(orders.reader()));
    let start = Instant::now();
    let (killed, answered) = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (client, asking) = (orders.gateway.client(), asking.clone());
                scope.spawn(move || ask_until_killed(client, asking))
            })
            .collect();
        until_true("load for longer than events may wait", PATIENCE, || start.elapsed() > BUFFERED * 3 / 2);
        let killed = Instant::now();
        orders.gateway.signal(Signal::KILL);
        (killed, threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    orders.gateway.kill();

    // Whether a write was cut in two is the kernel's choice; here it always was.
    OpenOptions::new().append(true).open(&file).unwrap().write_all(TORN).unwrap();
    let before = fs::read(&file).unwrap();
    let closed = audit::closed(&before);
    assert!(audit::verify(closed).unwrap() > 1);
    let kept = audit::read(&file).iter().filter(|event| event["kind"] == "decision").count();
    let due = answered.iter().filter(|at| **at + BUFFERED < killed).count();
    assert!(due > 0 && kept >= due, "{kept} are on record of {due} that were answered long before the kill");

    orders.gateway.restart();
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    assert_eq!(orders.gateway.stop().code, Some(0));
    let bytes = fs::read(&file).unwrap();
    let after = bytes.strip_prefix(before.as_slice()).expect("what was there is left as it was");
    let after = after.strip_prefix(b"\n").expect("the torn line is ended, not gone on in");
    let first: Value = serde_json::from_slice(after.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((&first["kind"], &first["gap"]["cause"]), (&json!("gap"), &json!("crash")));
    let holes = audit::holes(&[closed, after].concat()).unwrap();
    let last = u64::try_from(closed.iter().filter(|byte| **byte == b'\n').count()).unwrap();
    assert!(holes.len() <= 1 && holes.iter().all(|hole| *hole.start() == last + 1), "{holes:?} after {last}");
}

/// As a write that was cut short leaves it.
const TORN: &[u8] = b"{\"schema\":\"leastgate.audit.v1\",\"seq\":99";
