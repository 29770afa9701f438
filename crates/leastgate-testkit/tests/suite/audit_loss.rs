//! A sink that takes nothing: a full disk, a reader that has stopped. What may be dropped is, counted and on record; what
//! may not is refused before it is forwarded; and when there is room again, everything is as before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{PipeReader, Read, pipe};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::audit;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway, request};
use leastgate_testkit::metrics::Metrics;
use leastgate_testkit::raw::Reply;
use leastgate_testkit::small_disk::{SmallDisk, where_mounts_are_private};
use leastgate_testkit::token::Token;
use serde_json::{Value, json};

use crate::fixtures::Orders;
use crate::stored::{Stored, administrator, api};

const BLOCK: &str = "{ allow: block, deny: block, admin: drop, lifecycle: drop }";
const DROP: &str = "{ allow: drop, deny: drop, admin: drop, lifecycle: drop }";
/// Requests written at once on each connection.
const PIPELINED: usize = 64;

/// The orders gateway with its audit file on a disk of its own.
fn on_a_small_disk(classes: &str) -> (Orders, SmallDisk) {
    let mut disk = None;
    let orders = Orders::start_with(|setup| {
        let mounted = disk.insert(SmallDisk::mount(setup.path().join("disk"), 64));
        let file = mounted.path().join("audit.ndjson").display().to_string();
        setup.section("audit", &audit_section(&format!("kind: file, path: {file}"), classes))
    });
    (orders, disk.unwrap())
}

fn audit_section(sink: &str, classes: &str) -> String {
    format!("\n  sinks: {{ main: {{ {sink} }} }}\n  classes: {classes}\n  unauthenticated_per_source: 1000000/s")
}

/// Statuses of many requests at once, by how often they came.
fn flood(gateway: &TestGateway, request: &str) -> BTreeMap<u16, usize> {
    let mut seen = BTreeMap::new();
    let text = request.repeat(PIPELINED);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    let mut statuses = Vec::new();
                    for _ in 0..4 {
                        client.send(&text);
                        statuses.extend((0..PIPELINED).map(|_| client.read().unwrap().status));
                    }
                    statuses
                })
            })
            .collect();
        for status in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            *seen.entry(status).or_default() += 1;
        }
    });
    seen
}

/// One that is on record and never forwarded.
fn refused_request(token: &Token) -> String {
    request("GET", "/v1/none", Some(token))
}

fn dropped(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("leastgate_audit_dropped_total", &["sink=\"main\"", &format!("reason=\"{reason}\"")])
}

/// How many decisions were answered so. Looks at bytes: thousands of events are slow to parse.
fn decisions(bytes: &[u8], status: u16) -> usize {
    let status = format!("\"response\":{{\"status\":{status},");
    let lines = std::str::from_utf8(bytes).unwrap().lines();
    lines.filter(|line| line.contains("\"kind\":\"decision\"") && line.contains(&status)).count()
}

#[test]
fn on_a_full_disk_what_may_be_dropped_stops_no_request_and_every_loss_is_on_record() {
    where_mounts_are_private(|| {
        let (mut orders, disk) = on_a_small_disk(DROP);
        let file = disk.path().join("audit.ndjson");
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
        until_true("the first event", PATIENCE, || decisions(&fs::read(&file).unwrap(), 200) == 1);
        let viewer = administrator(&orders.gateway, "viewer-1", "viewer");
        let sink = || {
            let status = api(&orders.gateway, "GET", "/v1/status", Some(&viewer), None).json();
            status["audit"][0]["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(sink(), "ok");
        disk.fill();
        let mut refused = 0;
        until_true("drops", PATIENCE, || {
            let seen = flood(&orders.gateway, &refused_request(orders.reader()));
            assert_eq!(seen.keys().collect::<Vec<_>>(), [&403], "{seen:?}");
            refused += seen[&403];
            dropped(&orders.gateway.metrics(), "disk_full") > 0.0
        });
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
        assert_eq!(orders.gateway.ops("/livez").status, 200);
        assert_eq!(orders.gateway.ops("/readyz").status, 200);
        assert!(sink().starts_with("disk full since 20"), "{}", sink());

        disk.free();
        until_true("the record of the loss", PATIENCE, || {
            String::from_utf8(fs::read(&file).unwrap()).unwrap().contains("\"kind\":\"gap\"")
        });
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
        assert_eq!(sink(), "ok");
        let metrics = orders.gateway.metrics();
        assert_eq!(orders.gateway.stop().code, Some(0));
        let bytes = fs::read(&file).unwrap();
        let told = gaps(&bytes);
        let ranges: Vec<_> = told.iter().map(range_of).collect();
        let holes = audit::holes(&bytes).unwrap();
        for hole in &holes {
            let is_told = ranges.iter().any(|range| range.contains(hole.start()) && range.contains(hole.end()));
            assert!(is_told, "{hole:?} is missing, and told are {ranges:?}");
        }
        let lost: u64 = told.iter().map(|event| event["gap"]["count"].as_u64().unwrap()).sum();
        assert_eq!(holes.iter().map(|hole| hole.end() - hole.start() + 1).sum::<u64>(), lost, "{told:?}");
        assert_eq!(dropped(&metrics, "disk_full").to_string(), lost.to_string());
        assert!(decisions(&bytes, 403) < refused);
        assert!(decisions(&bytes, 200) >= 2, "before and after");
        assert!(orders.gateway.stderr().contains("the audit sink writes again"), "{}", orders.gateway.stderr());
    });
}

fn gaps(bytes: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(bytes).unwrap().lines().filter(|line| line.contains("\"kind\":\"gap\""));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn range_of(event: &Value) -> RangeInclusive<u64> {
    assert_eq!(event["gap"]["cause"], "disk_full", "{event}");
    let number = |key: &str| event["gap"][key].as_u64().unwrap();
    number("first_seq")..=number("last_seq")
}

#[test]
fn on_a_full_disk_what_must_be_kept_is_refused_and_nothing_is_lost() {
    where_mounts_are_private(|| {
        let (mut orders, disk) = on_a_small_disk(BLOCK);
        let file = disk.path().join("audit.ndjson");
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
        until_true("the first event", PATIENCE, || decisions(&fs::read(&file).unwrap(), 200) == 1);
        disk.fill();
        let refused = refuse_all(&orders);
        disk.free();
        until_true("room again", PATIENCE, || orders.gateway.get(orders.reader(), "/v1/orders").status == 200);
        assert_eq!(orders.gateway.stop().code, Some(0));
        let bytes = fs::read(&file).unwrap();
        audit::verify(&bytes).unwrap();
        assert_eq!((decisions(&bytes, 403), decisions(&bytes, 200)), (refused, orders.upstream.count()));
    });
}

#[test]
fn without_a_reader_of_stdout_what_must_be_kept_is_refused_until_it_reads_again() {
    let (reader, writer) = pipe().unwrap();
    let mut orders = Orders::start_by(|setup| on_stdout(setup).start_into(writer));
    let refused = refuse_all(&orders);
    let metrics = orders.gateway.metrics();
    assert!(metrics.sum("leastgate_audit_queue_depth", &[]) <= metrics.sum("leastgate_audit_queue_capacity", &[]));

    let reading = thread::spawn(move || read_all(reader));
    until_true("places again", PATIENCE, || orders.gateway.get(orders.reader(), "/v1/orders").status == 200);
    assert_eq!(orders.gateway.stop().code, Some(0));
    let bytes = reading.join().unwrap();
    audit::verify(&bytes).unwrap();
    assert_eq!((decisions(&bytes, 403), decisions(&bytes, 200)), (refused, orders.upstream.count()));
}

#[test]
fn a_refusal_for_want_of_a_place_does_not_blame_the_policy() {
    let (reader, writer) = pipe().unwrap();
    let orders = Orders::start_by(|setup| on_stdout(setup).start_into(writer));
    refuse_all(&orders);
    let refusals = ["/v1/orders", "/v1/none"].map(|path| orders.gateway.get(orders.reader(), path).text());
    drop(reader);
    assert!(refusals.iter().all(|text| !text.contains("no policy in force")), "{refusals:?}");
}

#[test]
fn without_a_place_for_its_event_access_is_taken_and_not_given() {
    let (reader, writer) = pipe().unwrap();
    let classes = "{ allow: block, deny: drop, admin: block, lifecycle: block }";
    let stored =
        Stored::start_by(|setup| setup.section("audit", &audit_section("kind: stdout", classes)).start_into(writer));
    let secret = stored.create("gone", &["--role", "reader"]);
    let root = stored.administrator("root-2", "admin");
    let allowed = format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n");
    until_true("the last place taken", PATIENCE, || flood(&stored.gateway, &allowed).contains_key(&503));
    let give = |name: &str| {
        let wanted = json!({ "name": name, "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
        stored.api("POST", "/v1/tokens", Some(&root), Some(wanted))
    };
    let refused = give("never");
    assert_eq!((refused.status, refused.problem().as_deref()), (503, Some("audit-unavailable")), "{}", refused.text());
    let export = stored.api("GET", "/v1/exports", Some(&root), None);
    let answer = (export.status, export.problem());
    assert_eq!(answer, (503, Some("audit-unavailable".to_owned())), "no digest leaves unseen: {}", export.text());
    let revoked = stored.api("POST", "/v1/tokens/gone/revoke", Some(&root), Some(json!({ "reason": "leaked" })));
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(true)), "{}", revoked.text());
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);

    let reading = thread::spawn(move || read_all(reader));
    until_true("places again", PATIENCE, || give("later").status == 201);
    let Stored { mut gateway, .. } = stored;
    assert_eq!(gateway.stop().code, Some(0));
    let bytes = reading.join().unwrap();
    audit::verify(&bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let changes: Vec<_> = text.lines().filter(|line| line.contains("\"kind\":\"admin\"")).collect();
    assert!(changes.iter().any(|line| line.contains("token.revoke")), "the revocation is on record: {changes:?}");
}

#[test]
fn a_reader_that_never_reads_does_not_keep_the_gateway_from_ending() {
    let (reader, writer) = pipe().unwrap();
    let mut orders = Orders::start_by(|setup| on_stdout(setup).start_into(writer));
    until_true("a full pipe", PATIENCE, || {
        flood(&orders.gateway, &refused_request(orders.reader()));
        orders.gateway.metrics().sum("leastgate_audit_queue_depth", &[]) > 0.0
    });
    let start = Instant::now();
    assert_eq!(orders.gateway.stop().code, Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(orders.gateway.stderr().contains("audit events were still unwritten"), "{}", orders.gateway.stderr());
    drop(reader);
}

fn on_stdout(setup: Setup) -> Setup {
    setup.section("audit", &audit_section("kind: stdout", BLOCK))
}

fn read_all(mut reader: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Sends requests that have to be on record until there is no place left, and answers how many were decided before. From
/// then on every one is answered 503, and what never has to be on record as before.
fn refuse_all(orders: &Orders) -> usize {
    let (mut decided, mut refused) = (0, 0);
    until_true("the last place taken", PATIENCE, || {
        let seen = flood(&orders.gateway, &refused_request(orders.reader()));
        assert!(seen.keys().all(|status| [403, 503].contains(status)), "{seen:?}");
        decided += seen.get(&403).unwrap_or(&0);
        refused += seen.get(&503).unwrap_or(&0);
        refused > 0
    });
    let forwarded = orders.upstream.count();
    for path in ["/v1/orders", "/v1/none"] {
        assert_unavailable(path, &orders.gateway.get(orders.reader(), path));
    }
    assert_unavailable("public", &orders.gateway.exchange(request("GET", "/healthz", None)));
    assert_eq!(orders.gateway.get(orders.token("UNKNOWN"), "/v1/orders").status, 401, "is always droppable");
    assert_eq!(orders.upstream.count(), forwarded, "nothing is forwarded");
    assert_eq!(orders.gateway.ops("/livez").status, 200);
    decided
}

/// The row of the table of reasons.
fn assert_unavailable(what: &str, reply: &Reply) {
    let got = (reply.status, reply.problem());
    assert_eq!(got, (503, Some("authorization-unavailable".to_owned())), "{what}: {}", reply.text());
    assert!(reply.head.has("retry-after"), "{what}");
    assert_eq!(reply.head.one("proxy-status"), Some("leastgate; error=proxy_internal_error"), "{what}");
}
