//! What each kind of event says, and that the schema in the repository describes exactly that.

use std::time::Duration;

use leastgate_policy::{Decision, Denial, Reason};
use leastgate_telemetry::{
    AdminActor, AdminEvent, EVENT_SCHEMA, LifecycleEvent, ManualClock, Origin, RecentFilter, Telemetry,
};
use serde_json::{Value, json};

use crate::support::{Captured, DEADLINE, START, UUID, Verified, World, compile, spec, telemetry, verify};

/// Runs requests of every sort through one worker and returns the stream.
fn stream(act: impl FnOnce(&World, &Telemetry, &ManualClock)) -> Verified {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, clock) = telemetry(|config| config.sinks.push(captured.sink("main")));
    telemetry.policy_loaded(&world.snapshot);
    act(&world, &telemetry, &clock);
    assert!(telemetry.shut_down(DEADLINE));
    verify(&captured.bytes())
}

#[test]
fn an_allowed_request_says_who_what_and_under_which_rule() {
    let verified = stream(|world, telemetry, clock| {
        let worker = telemetry.worker();
        let recorder = world.record(
            &worker,
            "GET",
            &format!("/v1/orders/{UUID}?currency=eur&x=secret&=&flag"),
            Some(&world.reader),
        );
        recorder.user_agent("curl/8 \u{202e}".as_bytes());
        recorder.trace(Some("4bf92f3577b34da6a3ce929d0e0e4736"), Some("00f067aa0ba902b7"), Some("req-1"));
        recorder.client("203.0.113.9".parse().unwrap());
        recorder.peer_san(["spiffe://example.org/\u{7}proxy", "urn:lgt_prod_x"].into_iter());
        recorder.reserve().unwrap();
        recorder.upstream("orders");
        clock.advance(Duration::from_millis(12));
        recorder.upstream_answered(200);
        recorder.response(200, Origin::Upstream);
        recorder.add_request_bytes(3);
        recorder.handle().add_response_bytes(1024);
        recorder.finish();
    });
    let [event] = verified.of_kind("decision")[..] else { panic!() };
    let expect = json!({
        "schema": "leastgate.audit.v1", "seq": 1, "kind": "decision", "id": event["id"],
        "time": "2026-11-21T22:06:27.000000Z", "decided": "2026-11-21T22:06:27.000000Z",
        "gateway": { "instance": event["gateway"]["instance"], "version": "0.1.0", "listener": "data", "pod": "pod-1", "policy_rev": "rev-1" },
        "actor": { "type": "token", "accessor": "0000000001", "subject": "reader-bot", "owner": "team-orders", "env": "prod", "roles": ["reader"], "grants": [] },
        "source": { "ip": "203.0.113.9", "via": ["192.0.2.7"], "peer_san": ["spiffe://example.org/\u{7}proxy", "urn:lgt_REDACTED"], "user_agent": "curl/8 \u{202e}" },
        "request": {
            "method": "GET", "host": "orders.internal", "protocol": "HTTP/1.1", "query_keys": ["currency", "x", "", "flag"],
            "path": format!("/v1/orders/{UUID}"), "template": "/v1/orders/{order_id:uuid}", "api": "orders", "bytes": 3
        },
        "decision": {
            "effect": "allow", "reason": "scope_granted", "mode": "enforce", "enforced": true,
            "rule": "orders:read/allow/GET /v1/orders/{order_id:uuid}", "rules": ["orders:read/allow/GET /v1/orders/{order_id:uuid}"],
            "granted_by": ["orders:read"], "required_any_of": [], "conditions": [], "duration_ns": 250
        },
        "response": { "status": 200, "origin": "upstream", "bytes": 1024, "duration_ms": 12, "upstream": "orders" },
        "trace": { "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "request_id": "req-1" }
    });
    assert_eq!(*event, expect);
}

#[test]
fn a_shadowed_request_passes_with_its_denial_recorded() {
    let verified = stream(|world, telemetry, _| {
        world.record(&telemetry.worker(), "GET", "/trial/x", Some(&world.reader)).finish();
    });
    let decision = &verified.of_kind("decision")[0]["decision"];
    assert_eq!(decision["effect"], "deny");
    assert_eq!(decision["reason"], "insufficient_scope");
    assert_eq!((&decision["mode"], &decision["enforced"]), (&json!("shadow"), &json!(false)));
    assert_eq!(decision["required_any_of"], json!(["trial:read"]));
}

#[test]
fn a_request_that_hyper_refused_has_neither_method_nor_path() {
    let verified = stream(|_, telemetry, _| {
        let peer = "[2001:db8::1]:99".parse().unwrap();
        telemetry.worker().connection_error(peer, START, Reason::HeadTooLarge, Some(431), &[]);
    });
    let event = verified.of_kind("decision")[0];
    assert!(event.get("request").is_none());
    assert_eq!(event["decision"]["reason"], "head_too_large");
    assert_eq!(event["source"], json!({ "ip": "2001:db8::1", "port": 99 }));
    assert_eq!(event["response"]["status"], 431);
}

#[test]
fn a_long_request_says_so_at_once_and_a_cut_names_its_own_revision() {
    let verified = stream(|world, telemetry, clock| {
        let recorder = world.record(&telemetry.worker(), "GET", "/v1/orders", Some(&world.reader));
        let handle = recorder.handle();
        clock.advance(Duration::from_secs(10));
        handle.stream_open();
        handle.stream_open();
        let later = compile(&spec(), "rev-2").into();
        handle.recut(&Denial::outside_policy(Reason::TokenRevoked, None, &later, START.timestamp()));
        drop(recorder);
        handle.stream_open();
        handle.add_response_bytes(1);
    });
    assert_eq!(verified.count()["stream"], 1);
    let (open, end) = (verified.of_kind("stream")[0], verified.of_kind("decision")[0]);
    assert_eq!((&open["state"], &open["id"]), (&json!("open"), &end["id"]));
    assert_eq!(end["gateway"]["policy_rev"], "rev-1");
    assert_eq!(end["decision"]["reason"], "scope_granted");
    let cut = &end["decision"]["cut"];
    assert_eq!((&cut["reason"], &cut["policy_rev"]), (&json!("token_revoked"), &json!("rev-2")));
    assert_eq!(end["response"]["error"], "cut");
}

#[test]
fn every_request_has_exactly_one_event_however_it_ends() {
    let verified = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
        drop(world.record(&worker, "GET", "/v1/orders", Some(&world.reader)));
        drop(worker.begin("192.0.2.1:1".parse().unwrap(), START));
        let recorder = world.record(&worker, "GET", "/v1/orders", Some(&world.reader));
        let handle = recorder.handle();
        recorder.finish();
        handle.failed("too late");
        drop(handle);
    });
    let ends = verified.of_kind("decision").into_iter().map(|event| event["response"]["error"].as_str());
    // The one that was never decided is nobody's, and so comes from the queue of floods.
    assert_eq!(ends.collect::<Vec<_>>(), [None, Some("broken_off"), None, Some("broken_off")]);
    let mut ids: Vec<_> = verified.events.iter().map(|event| event["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), verified.events.len());
}

#[test]
fn a_marked_parameter_is_recorded_as_type_and_hash() {
    let verified = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        for path in ["/clinic/alice/file", "/clinic/alice/file", "/clinic/bob/file", "/clinic/alice/other"] {
            world.record(&worker, "GET", path, Some(&world.reader)).finish();
        }
    });
    let paths: Vec<_> = verified
        .of_kind("decision")
        .iter()
        .map(|event| event["request"]["path"].as_str().unwrap().to_owned())
        .collect();
    assert!(paths[0].starts_with("/clinic/{any:") && paths[0].ends_with("}/file"), "{paths:?}");
    assert_eq!(paths[0], paths[1]);
    assert_ne!(paths[0], paths[2]);
    assert!(!paths.join("").contains("alice"), "also where no rule matched: {paths:?}");
}

/// The policy marks the second segment: nothing from there on is recorded of a path that no api judged, nor what a reader
/// could take for a later segment.
#[test]
fn where_no_api_was_found_nothing_is_recorded_that_a_marked_parameter_could_hold() {
    let paths = [
        ("/clinic/alice//file", "/clinic/{rest:#}"),
        ("//clinic/alice/file", "/{rest:#}"),
        ("/clinic/alice%2Ffile", "/clinic/{rest:#}"),
        ("/clinic/./alice/", "/clinic/{rest:#}"),
        ("/../clinic/alice", "/{rest:#}"),
        ("/x/../clinic/alice", "/x/{rest:#}"),
        ("/clinic%2Falice", "/{rest:#}"),
        ("/clinic%252falice/file", "/{rest:#}"),
        ("/clinic;x/alice", "/{rest:#}"),
        ("/clinic\\alice", "/{rest:#}"),
        ("/clinic%c0%afalice", "/{rest:#}"),
        ("/other/alice", "/other/{rest:#}"),
        ("/nowhere", "/nowhere"),
        ("/nowhere/", "/nowhere/"),
        ("/", "/"),
        ("*", "{rest:#}"),
    ];
    let verified = stream(|world, telemetry, clock| record_all(world, telemetry, clock, &paths.map(|(path, _)| path)));
    assert_eq!(
        paths_of(&verified).iter().map(|path| without_hash(path)).collect::<Vec<_>>(),
        paths.map(|(_, path)| path)
    );
}

#[test]
fn the_hash_of_a_single_segment_is_the_same_with_an_api_and_without_one() {
    let verified =
        stream(|world, telemetry, clock| record_all(world, telemetry, clock, &["/clinic/alice/file", "/other/alice"]));
    let paths = paths_of(&verified);
    let hash = |path: &str| path.split_once(':').unwrap().1.split('}').next().unwrap().to_owned();
    assert_eq!(hash(&paths[0]), hash(&paths[1]), "{paths:?}");
}

#[test]
fn where_no_api_marks_a_parameter_paths_are_recorded_as_they_came() {
    let paths = ["/clinic/alice//file", "/other/alice", "/clinic%2Falice", "*"];
    let verified = stream(|world, telemetry, clock| {
        let mut spec = spec();
        spec.apis.iter_mut().for_each(|api| api.redact.clear());
        let snapshot = world.authority.replace(compile(&spec, "rev-2"));
        telemetry.policy_loaded(&snapshot);
        record_all(&World { snapshot, ..World::new() }, telemetry, clock, &paths);
    });
    assert_eq!(paths_of(&verified), paths);
}

/// A limit that is found after the decision refuses the request a second time.
#[test]
fn a_path_is_masked_once_whatever_comes_after_its_decision() {
    let verified = stream(|world, telemetry, _| {
        let worker = telemetry.worker();
        let head = world.head("GET", "/clinic/alice/file", Some(&world.reader));
        let decided = world.decide(&head, START.timestamp());
        world.record_head(&worker, &head, &decided).finish();
        let twice = world.record_head(&worker, &head, &decided);
        let Decision::Allow(permit) = &decided.1 else { panic!("{:?}", decided.1) };
        twice.denied(&Denial::of_permit(permit, Reason::BodyTooLarge, None), Duration::ZERO);
        twice.refused(Reason::AuthorizationUnavailable);
        twice.finish();
    });
    let paths = paths_of(&verified);
    assert_eq!((paths.len(), &paths[0]), (2, &paths[1]));
}

#[test]
fn a_request_that_is_refused_undecided_is_masked_too() {
    let verified = stream(|world, telemetry, _| {
        let head = world.head("GET", "/clinic/alice/file", None);
        let recorder = telemetry.worker().begin("192.0.2.7:1".parse().unwrap(), START);
        recorder.request(&head.method, None, &head.uri, head.version);
        recorder.refused(Reason::AuthorizationUnavailable);
        recorder.finish();
    });
    assert_eq!(without_hash(&paths_of(&verified)[0]), "/clinic/{rest:#}");
}

/// One a second, so that none is left out as a flood.
fn record_all(world: &World, telemetry: &Telemetry, clock: &ManualClock, paths: &[&str]) {
    let worker = telemetry.worker();
    for path in paths {
        world.record(&worker, "GET", path, Some(&world.reader)).finish();
        clock.advance(Duration::from_secs(1));
    }
}

fn paths_of(verified: &Verified) -> Vec<String> {
    let decisions = verified.of_kind("decision").into_iter();
    decisions.map(|event| event["request"]["path"].as_str().unwrap().to_owned()).collect()
}

/// A path with `#` in the place of the hash.
fn without_hash(path: &str) -> String {
    let Some((before, hash)) = path.split_once("{rest:") else { return path.to_owned() };
    let hash = hash.strip_suffix('}').unwrap();
    assert!(hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "{path}");
    format!("{before}{{rest:#}}")
}

#[test]
fn recent_events_are_found_by_id_and_filter() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| config.sinks.push(captured.sink("main")));
    telemetry.policy_loaded(&world.snapshot);
    let worker = telemetry.worker();
    world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
    let refused = world.record(&worker, "GET", "/v1/orders", Some(&world.refunder));
    let id = refused.id();
    refused.finish();
    let found: Value = serde_json::from_slice(&telemetry.find(id).unwrap()).unwrap();
    assert_eq!(found["id"], id.to_string());
    assert_eq!(found["decision"]["reason"], "insufficient_scope");
    let filter = RecentFilter { subject: Some("reader-bot".into()), ..RecentFilter::default() };
    assert_eq!(telemetry.recent(&filter).len(), 1);
}

#[test]
fn the_schema_describes_every_kind_of_event() {
    let mut verified = stream(|world, telemetry, clock| {
        let worker = telemetry.worker();
        for (method, path, token) in [
            ("GET", "/v1/orders", Some(&*world.reader)),
            ("GET", "/v1/orders/x/payment-details", Some(&*world.reader)),
            ("POST", "/v1/orders/7b0e6c5a-0000-4000-8000-00000000beef/refunds", Some(&*world.reader)),
            ("GET", "/v1/orders", Some(&*world.refunder)),
            ("GET", "/v1/healthz", None),
            ("GET", "/v1/orders", None),
            ("GET", "/v1/a%2Fb", None),
            ("TRACE", "/v1/orders", None),
            ("GET", "/nowhere", None),
            ("GET", "/trial/x", Some(&*world.reader)),
        ] {
            let recorder = world.record(&worker, method, path, token);
            recorder.user_agent(b"\xff\x00 odd");
            recorder.stream_open();
            recorder.refused(if token.is_none() { Reason::SourceFailuresLimited } else { continue });
        }
        for _ in 0..50 {
            worker.connection_error(
                "192.0.2.7:1".parse().unwrap(),
                clock_now(clock),
                Reason::RequestMalformed,
                Some(400),
                &[],
            );
        }
        let full = AdminEvent {
            operation: "token.create".into(),
            actor: AdminActor {
                accessor: Some("abcdefghij".into()),
                subject: "alice".into(),
                role: Some("operator".into()),
            },
            source: Some(("127.0.0.1".parse().unwrap(), 5)),
            peer_san: vec!["spiffe://example.org/alice".into()],
            target: Some("reader-bot".into()),
            reason: Some("because".into()),
            result: "ok".into(),
            durable: Some(true),
            details: vec![("roles".into(), "reader".into())],
            request_id: Some("r".into()),
            policy_rev: Some("rev-1".into()),
        };
        telemetry.admin(&full, Some(telemetry.reserve_admin().unwrap()));
        telemetry.admin(&AdminEvent::default(), None);
        telemetry.lifecycle(&LifecycleEvent {
            operation: "start".into(),
            result: "ok".into(),
            ..LifecycleEvent::default()
        });
        telemetry.flush(DEADLINE);
        clock.advance(Duration::from_secs(2));
    });
    verified.events.extend(crate::loss::stream_with_gaps().events);
    let validator = jsonschema::validator_for(&serde_json::from_str(EVENT_SCHEMA).unwrap()).unwrap();
    for event in &verified.events {
        let errors: Vec<_> =
            validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?}\n{event:#}");
    }
    let kinds: Vec<_> = verified.count().into_keys().collect();
    assert_eq!(kinds, ["admin", "checkpoint", "decision", "gap", "lifecycle", "stream", "summary"]);
    let mut odd = verified.events[0].clone();
    odd["decision"]["surprise"] = json!(1);
    assert!(!validator.is_valid(&odd));
}

#[test]
fn the_schema_lists_every_reason() {
    let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
    let listed = &schema["properties"]["decision"]["properties"]["reason"]["enum"];
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(*listed, json!(reasons));
}

fn clock_now(clock: &ManualClock) -> leastgate_telemetry::Micros {
    leastgate_telemetry::Clock::now(clock)
}
