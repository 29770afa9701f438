//! The audit stream as a stranger verifies it: one event a request, no gap in `seq`, a chain that holds, the schema kept.

use std::fs;
use std::thread;

use leastgate_testkit::audit::verify;
use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::gateway::request;
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::paths;
use serde_json::Value;

use crate::fixtures::Orders;

const THREADS: u8 = 8;
const EACH: u8 = 100;

/// A mix of allowed, refused and unauthenticated requests from several connections at once.
fn traffic(orders: &Orders) {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut client = orders.gateway.client();
                for number in 0..EACH {
                    let (path, token) = match number % 4 {
                        0 => ("/v1/orders", Some(orders.reader())),
                        1 => ("/v1/none", Some(orders.reader())),
                        2 => ("/v1/orders", None),
                        _ => ("/healthz", None),
                    };
                    client.send(request("GET", path, token));
                    client.read().unwrap();
                }
            });
        }
    });
}

#[test]
fn every_request_has_one_event_and_the_chain_verifies() {
    let mut orders = Orders::start();
    traffic(&orders);
    let ended = orders.gateway.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let bytes = fs::read(orders.gateway.path().join("audit.ndjson")).unwrap();
    let checkpoints = verify(&bytes).unwrap();
    assert!(checkpoints >= 1 && bytes.ends_with(b"\n"), "{checkpoints} checkpoints");
    let events = orders.gateway.events();
    assert_eq!(events.last().unwrap()["kind"], "checkpoint", "nothing is left outside the chain");
    let decisions: Vec<&Value> = events.iter().filter(|event| event["kind"] == "decision").collect();
    assert_eq!(decisions.len(), usize::from(THREADS) * usize::from(EACH));
    for reason in ["scope_granted", "insufficient_scope", "credential_missing", "public_rule"] {
        let count = decisions.iter().filter(|event| event["decision"]["reason"] == reason).count();
        assert_eq!(count, decisions.len() / 4, "{reason}");
    }
    let mut ids: Vec<&str> = decisions.iter().map(|event| event["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), decisions.len(), "every decision has an id of its own");
    assert!(!events.iter().any(|event| event["kind"] == "gap"), "nothing was lost");
}

#[test]
fn every_line_keeps_to_the_schema() {
    let mut orders = Orders::start();
    traffic(&orders);
    orders.gateway.get(orders.token("EXPIRED"), "/v1/orders");
    orders.gateway.get(orders.token("WIDE"), "/internal/x");
    orders.gateway.exchange("BROKEN\r\n\r\n");
    assert_eq!(orders.gateway.stop().code, Some(0));
    let path = paths::workspace().join("crates/leastgate-telemetry/schema/audit-event-v1.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for event in orders.gateway.events() {
        if let Err(error) = validator.validate(&event) {
            panic!("{error} at {}: {event}", error.instance_path());
        }
    }
}

#[test]
fn an_event_says_who_what_and_why() {
    let orders = Orders::start();
    let reply = orders.gateway.exchange(format!(
        "GET /v1/orders/7b0e?page=2&secret=hunter2 HTTP/1.1\r\nHost: ORDERS.test:80\r\nUser-Agent: suite/1\r\n{}\r\n\r\n",
        orders.reader().header()
    ));
    assert_eq!(reply.status, 200);
    let refused = orders.gateway.exchange(request("POST", "/v1/orders", Some(orders.reader())));
    let mut events = orders.gateway.wait_decisions("both", 2, |_| true);
    // Two workers may have decided them; each hands its lines over on its own.
    events.sort_by_key(|event| event["time"].to_string());
    let (allowed, denied) = (&events[0], &events[1]);
    assert_eq!(allowed["schema"], "leastgate.audit.v1");
    assert_eq!(
        (&allowed["actor"]["subject"], &allowed["actor"]["owner"]),
        (&Value::from("reader"), &Value::from("team-test"))
    );
    assert_eq!(allowed["actor"]["accessor"], orders.reader().accessor.as_str());
    assert_eq!(
        (&allowed["request"]["method"], &allowed["request"]["api"]),
        (&Value::from("GET"), &Value::from("orders"))
    );
    assert_eq!(allowed["request"]["path"], "/v1/orders/7b0e");
    assert_eq!(allowed["request"]["template"], "/v1/orders/{order_id:hex}");
    assert_eq!(allowed["request"]["query_keys"], serde_json::json!(["page", "secret"]));
    assert_eq!(allowed["source"]["user_agent"], "suite/1");
    assert_eq!(allowed["decision"]["effect"], "allow");
    assert_eq!(allowed["decision"]["rule"], "orders:read/allow/GET /v1/orders/{order_id:hex}");
    assert_eq!(allowed["decision"]["granted_by"], serde_json::json!(["orders:read"]));
    assert_eq!(
        (&allowed["response"]["status"], &allowed["response"]["origin"]),
        (&Value::from(200), &Value::from("upstream"))
    );
    assert!(!allowed.to_string().contains("hunter2"), "no query value");
    assert_eq!(
        (&denied["decision"]["effect"], &denied["decision"]["reason"]),
        (&Value::from("deny"), &Value::from("insufficient_scope"))
    );
    assert_eq!(denied["decision"]["required_any_of"], serde_json::json!(["orders:wide", "orders:write"]));
    assert_eq!(
        (&denied["response"]["status"], &denied["response"]["origin"]),
        (&Value::from(403), &Value::from("gateway"))
    );
    assert_eq!(denied["id"], refused.json()["decision_id"], "the refusal names its event");
    assert!(!allowed["gateway"]["policy_rev"].as_str().unwrap().is_empty());
}

#[test]
fn what_a_client_writes_is_redacted_and_escaped() {
    let orders = Orders::start();
    let reader = orders.reader();
    for path in [format!("/files/{}", reader.secret()), format!("/v1/orders?t={}", reader.secret())] {
        orders.gateway.exchange(request("GET", &path, Some(reader)));
    }
    let cut = &reader.secret()[..40];
    orders.gateway.exchange(format!(
        "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nUser-Agent: {cut}\r\nReferer: {cut}\r\n{}\r\n\r\n",
        reader.header()
    ));
    let events = orders.gateway.wait_decisions("all three", 3, |_| true);
    let search = LeakSearch::new([reader]);
    for (place, bytes) in orders.gateway.written() {
        search.assert_clean(&place, &bytes);
    }
    assert!(events.iter().any(|event| event.to_string().contains("_REDACTED")), "{events:?}");
}

#[test]
fn numbering_goes_on_over_a_restart() {
    let mut orders = Orders::start();
    orders.gateway.get(orders.reader(), "/v1/orders");
    assert_eq!(orders.gateway.stop().code, Some(0));
    let last = orders.gateway.events().last().unwrap()["seq"].as_u64().unwrap();
    orders.gateway.restart();
    orders.gateway.get(orders.reader(), "/v1/orders");
    let next = until("the first event after the restart", PATIENCE, || {
        orders.gateway.events().into_iter().find(|event| event["seq"].as_u64() > Some(last))
    });
    assert_eq!(next["seq"], last + 1);
    assert_eq!(orders.gateway.stop().code, Some(0));
    verify(&fs::read(orders.gateway.path().join("audit.ndjson")).unwrap()).unwrap();
}

#[test]
fn a_kill_loses_no_numbering_and_leaves_a_gap_on_record() {
    let mut orders = Orders::start();
    orders.gateway.get(orders.reader(), "/v1/orders");
    let _ = orders.gateway.wait_decisions("the request", 1, |_| true);
    orders.gateway.kill();
    orders.gateway.restart();
    let gap = until("the gap", PATIENCE, || orders.gateway.events().into_iter().find(|event| event["kind"] == "gap"));
    assert_eq!((&gap["gap"]["cause"], &gap["gap"]["count"]), (&Value::from("crash"), &Value::Null));
}

#[test]
fn a_flood_of_strangers_becomes_a_summary() {
    let orders = Orders::start_with(|setup| {
        let audit = format!(
            "\n  sinks: {{ main: {{ kind: file, path: {}/audit.ndjson }} }}\n  unauthenticated_per_source: 5/s",
            setup.path().display()
        );
        setup.section("audit", &audit)
    });
    let mut client = orders.gateway.client();
    for _ in 0..200 {
        client.send(request("GET", "/v1/orders", None));
        assert_eq!(client.read().unwrap().status, 401);
    }
    let summary =
        until("the summary", PATIENCE, || orders.gateway.events().into_iter().find(|event| event["kind"] == "summary"));
    assert_eq!(summary["source"]["ip"], "127.0.0.1");
    let single = orders.gateway.decisions().len() as u64;
    assert!(single < 100 && summary["summary"]["count"].as_u64().unwrap() <= 200 - single, "{summary}");
    assert_eq!(
        orders.gateway.metrics().sum("leastgate_decisions_total", &["reason=\"credential_missing\""]),
        200.0,
        "metrics count every one"
    );
}

#[test]
fn a_file_that_was_moved_away_is_noticed_and_written_anew() {
    let orders = Orders::start();
    let file = orders.gateway.path().join("audit.ndjson");
    orders.gateway.get(orders.reader(), "/v1/orders");
    let _ = orders.gateway.wait_decisions("the first request", 1, |_| true);
    fs::rename(&file, file.with_extension("old")).unwrap();
    until("events in a new file", PATIENCE, || {
        orders.gateway.get(orders.reader(), "/v1/orders/7b0e");
        (!orders.gateway.decisions().is_empty()).then_some(())
    });
}

#[test]
fn a_full_disk_stops_no_request_of_a_class_that_may_be_dropped() {
    let orders = Orders::start_with(|setup| {
        setup.section("audit", "\n  sinks: { main: { kind: file, path: /dev/full } }\n  classes: { allow: drop, deny: drop, admin: drop, lifecycle: drop }")
    });
    for _ in 0..50 {
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    }
    until("a sign of the full disk", PATIENCE, || {
        let metrics = orders.gateway.metrics();
        let lost = metrics.sum("leastgate_audit_dropped_total", &[]);
        let waiting = metrics.sum("leastgate_audit_queue_depth", &[]);
        (lost + waiting > 0.0).then_some(())
    });
    assert_eq!(orders.gateway.ops("/livez").status, 200);
}
