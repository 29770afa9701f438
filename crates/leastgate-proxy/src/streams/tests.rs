//! Requests that go on for long, and what is on record of them meanwhile.

use http::{HeaderName, Request};
use leastgate_config::parse_policy;
use leastgate_policy::{CompileContext, EnvironmentKey, Pepper, Source};
use leastgate_telemetry::{Clock, RecentFilter, Recorder, SystemClock, Telemetry, TelemetryConfig};

use super::*;
use crate::client_socket::SocketWatch;
use crate::connection::PhaseLimits;

const POLICY: &str = r#"
version: 1
environments: [test]
apis:
  orders: { hosts: [orders.internal], base: /, upstream: up, public: [ "GET /feed" ] }
"#;

fn snapshot(now: Timestamp) -> Arc<PolicySnapshot> {
    let loaded = parse_policy(&[("policy.yaml", POLICY)]).unwrap();
    let context = CompileContext {
        environment: "test",
        revision: &loaded.revision,
        now,
        credential_header: HeaderName::from_static("authorization"),
        trusted_proxies: Vec::new(),
        well_known: false,
        upstreams: None,
    };
    Arc::new(PolicySnapshot::compile(&loaded.spec, &context).unwrap())
}

fn underway(snapshot: &Arc<PolicySnapshot>, now: Timestamp, recorder: &Recorder) -> Underway {
    let (parts, ()) = Request::get("/feed").header("host", "orders.internal").body(()).unwrap().into_parts();
    let source = Source { peer: "192.0.2.1".parse().unwrap(), port: 1 };
    let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
    let facts = RequestFacts::parse(&parts, &source, snapshot, &key, now).unwrap();
    let Decision::Allow(permit) = decide(&facts, snapshot, now) else { panic!("the feed is public") };
    recorder.permitted(&permit, Duration::ZERO);
    let day = Duration::from_secs(86_400);
    let limits = PhaseLimits { first_byte: day, head: day, idle: day, http2_idle: day };
    let connection = Rc::new(ConnectionState::new(limits, SocketWatch::default(), None));
    Underway::new(facts, connection, None, recorder.handle())
}

#[tokio::test]
async fn a_request_alive_after_ten_seconds_leaves_one_record_while_it_is_open() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let now = clock.timestamp();
    let telemetry = Telemetry::start(TelemetryConfig::default(), Arc::clone(&clock)).unwrap();
    let snapshot = snapshot(now);
    telemetry.policy_loaded(&snapshot);
    let recorder = telemetry.worker().begin("192.0.2.1:1".parse().unwrap(), clock.now());
    let id = format!("\"id\":\"{}\"", recorder.id());
    let underway = underway(&snapshot, now, &recorder);
    let events = |kind: &str| -> Vec<String> {
        assert!(telemetry.flush(Duration::from_secs(20)));
        let events = telemetry.recent(&RecentFilter { kind: Some(kind.into()), ..RecentFilter::default() });
        events.iter().map(|event| String::from_utf8(event.to_vec()).unwrap()).collect()
    };
    let authority = Authority::new(EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test"));
    let reviewer = authority.reviewer(|| {});
    for (age, expected) in [(0, 0), (9_999, 0), (10_000, 1), (10_025, 1), (20_000, 1)] {
        underway.review(&Look {
            snapshot: &snapshot,
            second: now,
            is_stale: true,
            is_asked: false,
            now: underway.began + Duration::from_millis(age),
            reviewer: &reviewer,
        });
        assert_eq!(events("stream").len(), expected, "at the age of {age} ms");
    }
    assert!(events("decision").is_empty(), "it is not over");
    recorder.finish();
    let (open, ended) = (events("stream").concat(), events("decision").concat());
    assert!(open.contains(&id) && ended.contains(&id), "{open}\n{ended}");
}
