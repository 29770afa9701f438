//! Each use of a bait is counted and told, whatever became of the request, and a flood of them is not.

use std::time::Duration;

use leastgate_policy::Reason;
use leastgate_telemetry::{BaitShown, EVENT_SCHEMA, ManualClock, Telemetry};
use serde_json::{Value, json};

use crate::support::{Captured, DEADLINE, Verified, World, telemetry, verify};

fn stream(act: impl FnOnce(&World, &Telemetry, &ManualClock)) -> (Verified, String) {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, clock) = telemetry(|config| config.sinks.push(captured.sink("main")));
    telemetry.policy_loaded(&world.snapshot);
    act(&world, &telemetry, &clock);
    let metrics = String::from_utf8(telemetry.render_metrics()).unwrap();
    assert!(telemetry.shut_down(DEADLINE));
    (verify(&captured.bytes()), metrics)
}

fn detail<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    let details = event["change"]["details"].as_array().unwrap();
    details.iter().find(|detail| detail["name"] == name).and_then(|detail| detail["value"].as_str())
}

#[test]
fn a_use_says_who_came_from_where_and_for_what() {
    let (verified, metrics) = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        let head = world.head("GET", "/clinic/4711/file?key=sekret", Some(&world.bait));
        let decided = world.decide(&head, worker.clock().timestamp());
        let recorder = worker.begin("192.0.2.7:4711".parse().unwrap(), worker.clock().now());
        recorder.request(&head.method, Some(b"orders.internal"), &head.uri, head.version);
        let path = decided.0.as_ref().unwrap().path();
        recorder.decoded_path(path.segments(), path.has_trailing_slash());
        recorder.user_agent(format!("curl {}", world.bait).as_bytes());
        recorder.client("203.0.113.9".parse().unwrap());
        let leastgate_policy::Decision::Deny(denial) = &decided.1 else { panic!("{:?}", decided.1) };
        recorder.denied(denial, Duration::ZERO);
        // The same request, refused for something else by the gateway: it is one use.
        recorder.denied(&denial.clone().with_reason(Reason::Overloaded), Duration::ZERO);
        recorder.finish();
        world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
    });
    let [event] = verified.of_kind("lifecycle")[..] else { panic!("{:?}", verified.events) };
    assert_eq!(event["change"]["operation"], "token.canary_used");
    assert_eq!((&event["change"]["result"], &event["change"]["target"]), (&json!("critical"), &json!("0000000003")));
    assert_eq!(event["actor"], json!({ "type": "token", "accessor": "0000000003", "subject": "deploy-key" }));
    assert_eq!(event["source"]["ip"], "203.0.113.9");
    let request = &event["request"];
    assert_eq!((&request["method"], &request["template"]), (&json!("GET"), &json!("/clinic/{patient}/file")));
    assert!(!request["path"].as_str().unwrap().contains("4711"), "a marked segment is masked: {request}");
    assert!(!event.to_string().contains("sekret"), "{event}");
    assert_eq!(detail(event, "reason"), Some("insufficient_scope"));
    assert_eq!((detail(event, "name"), detail(event, "uses")), (Some("deploy-key"), Some("1")));
    let decision =
        verified.of_kind("decision").into_iter().find(|decision| decision["actor"]["subject"] == "deploy-key");
    assert_eq!(detail(event, "decision"), decision.unwrap()["id"].as_str());
    assert!(metrics.contains("leastgate_canary_uses_total 1\n"), "{metrics}");
    let validator = jsonschema::validator_for(&serde_json::from_str(EVENT_SCHEMA).unwrap()).unwrap();
    validator.validate(event).unwrap_or_else(|error| panic!("{error}: {event}"));
}

#[test]
fn it_is_told_wherever_the_request_ends() {
    let (verified, metrics) = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        for path in ["/v1/healthz", "/v1/orders", "/v1/none", "/elsewhere", "/v1/%2e%2e/orders"] {
            world.record(&worker, "GET", path, Some(&world.bait)).finish();
        }
        world.record(&worker, "GET", "/v1/healthz", None).finish();
        world.record(&worker, "GET", "/v1/healthz", Some(&world.reader)).finish();
    });
    let reasons: Vec<_> =
        verified.of_kind("lifecycle").into_iter().filter_map(|event| detail(event, "reason")).collect();
    let expect = ["public_rule", "insufficient_scope", "no_matching_scope", "host_unknown", "path_ambiguous"];
    assert_eq!(reasons, expect);
    assert!(metrics.contains("leastgate_canary_uses_total 5\n"), "{metrics}");
}

#[test]
fn a_flood_of_them_is_counted_and_told_once_a_minute() {
    let (verified, metrics) = stream(|world, telemetry, clock| {
        let worker = telemetry.worker();
        for _ in 0..500 {
            world.record(&worker, "GET", "/v1/orders", Some(&world.bait)).finish();
        }
        clock.advance(Duration::from_secs(60));
        assert!(telemetry.flush(DEADLINE));
        world.record(&worker, "GET", "/v1/orders", Some(&world.bait)).finish();
    });
    let uses: Vec<_> = verified.of_kind("lifecycle").into_iter().filter_map(|event| detail(event, "uses")).collect();
    assert_eq!(uses, [vec!["1"; 10], vec!["490"], vec!["1"]].concat());
    let repeated = verified.of_kind("lifecycle")[10];
    assert_eq!((&repeated["change"]["target"], detail(repeated, "name")), (&json!("0000000003"), Some("deploy-key")));
    assert!(metrics.contains("leastgate_canary_uses_total 501\n"), "{metrics}");
    let validator = jsonschema::validator_for(&serde_json::from_str(EVENT_SCHEMA).unwrap()).unwrap();
    validator.validate(repeated).unwrap_or_else(|error| panic!("{error}: {repeated}"));
}

#[test]
fn one_that_is_shown_to_the_admin_api_or_in_no_request_at_all_is_told_too() {
    let (verified, metrics) = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        let head = world.head("GET", "/v1/orders", Some(&world.bait));
        let decided = world.decide(&head, worker.clock().timestamp());
        let leastgate_policy::Decision::Deny(denial) = &decided.1 else { panic!("{:?}", decided.1) };
        let [bait] = denial.case().baits() else { panic!("{denial:?}") };
        let source = Some(("192.0.2.7".parse().unwrap(), 4711));
        telemetry.bait_shown(&BaitShown { bait, source, policy_rev: Some("b3:00") });
        telemetry.bait_shown(&BaitShown { bait, source: None, policy_rev: None });
        let peer = "192.0.2.8:1".parse().unwrap();
        let baits = std::slice::from_ref(bait);
        worker.connection_error(peer, worker.clock().now(), Reason::RequestMalformed, Some(400), baits);
    });
    let mut events = verified.of_kind("lifecycle");
    events.sort_by_key(|event| event["source"]["ip"].to_string());
    let validator = jsonschema::validator_for(&serde_json::from_str(EVENT_SCHEMA).unwrap()).unwrap();
    for event in &events {
        assert_eq!(event["actor"], json!({ "type": "token", "accessor": "0000000003", "subject": "deploy-key" }));
        validator.validate(event).unwrap_or_else(|error| panic!("{error}: {event}"));
    }
    let told: Vec<_> = events
        .iter()
        .map(|event| (&event["source"]["ip"], detail(event, "listener"), detail(event, "reason")))
        .collect();
    let (shown, refused) = (json!("192.0.2.7"), json!("192.0.2.8"));
    let expected = [
        (&shown, Some("admin"), None),
        (&refused, Some("data"), Some("request_malformed")),
        (&Value::Null, Some("admin"), None),
    ];
    assert_eq!(told, expected);
    assert!(metrics.contains("leastgate_canary_uses_total 3\n"), "{metrics}");
}
