//! The end of the data plane, and its beginning beside another one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_config::Limits;
use leastgate_proxy::{DataPlane, DataPlaneConfig, StartError};
use leastgate_telemetry::{Clock, SystemClock};

use crate::harness::{Connection, OK, harness};

#[test]
fn a_drain_lets_requests_finish_and_idle_connections_go() {
    let mut harness = harness(|upstream| {
        while upstream.read_until("\r\n\r\n") {
            thread::sleep(Duration::from_millis(300));
            upstream.write(OK);
        }
    });
    let mut idle = harness.connect();
    idle.send(harness.head("GET /v1/a", ""));
    assert_eq!(idle.reply().status, 200);
    let mut busy = harness.connect();
    busy.send(harness.head("GET /v1/busy", ""));
    harness.upstream.wait_for("/v1/busy");
    let plane = harness.plane.take().unwrap();
    let started = Instant::now();
    let drain = thread::spawn(move || plane.drain(Duration::from_secs(10), &|| false));
    assert!(idle.is_closed());
    let reply = busy.reply();
    assert_eq!(reply.status, 200);
    assert!(reply.has("connection: close"), "{}", reply.head);
    assert_eq!(drain.join().unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn before_accepting_ends_requests_are_served_and_their_connections_closed() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let mut kept = harness.connect();
    kept.send(harness.head("GET /v1/a", ""));
    assert!(!kept.reply().has("connection: close"));
    harness.plane.as_ref().unwrap().begin_drain();
    for mut client in [kept, harness.connect()] {
        client.send(harness.head("GET /v1/b", "") + &harness.head("GET /v1/beyond", ""));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
        assert!(reply.has("connection: close"), "{}", reply.head);
        assert!(client.is_closed());
    }
    assert!(!harness.upstream.all().contains("/v1/beyond"));
}

#[test]
fn what_does_not_finish_in_time_is_cut() {
    let mut harness = harness(Connection::wait_until_closed);
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    harness.upstream.wait_for("/v1/a");
    let plane = harness.plane.take().unwrap();
    assert_eq!(plane.drain(Duration::from_millis(100), &|| false), 1);
    assert!(client.is_closed());
    assert_eq!(harness.events(1).len(), 1);
}

#[test]
fn a_second_gateway_on_the_same_address_does_not_start() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = DataPlaneConfig {
        addresses: vec![harness.plane.as_ref().unwrap().local_addr()],
        workers: NonZeroUsize::MIN,
        limits: Limits::default(),
        upstreams: Vec::new(),
        upstream_tls: std::collections::BTreeMap::new(),
        trusted_proxies: Vec::new(),
        tls: None,
    };
    let error = DataPlane::start(config, &harness.authority, &harness.telemetry, &clock).unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
}
