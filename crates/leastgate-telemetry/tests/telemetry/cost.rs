//! Recording is on the way of every request: a worker that is warm allocates nothing for it.

use leastgate_telemetry::Origin;

use crate::support::{Captured, DEADLINE, START, UUID, World, telemetry};

#[test]
fn a_warm_worker_records_without_allocating() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| config.sinks.push(captured.sink("main")));
    telemetry.policy_loaded(&world.snapshot);
    let worker = telemetry.worker();
    let head = world.head("GET", &format!("/v1/orders/{UUID}?a=1&b=2"), Some(&world.reader));
    let decided = world.decide(&head, START.timestamp());
    let one = || {
        let recorder = world.record_head(&worker, &head, &decided);
        recorder.user_agent(b"curl/8.5.0");
        recorder.trace(Some("4bf92f3577b34da6a3ce929d0e0e4736"), Some("00f067aa0ba902b7"), None);
        recorder.reserve().unwrap();
        recorder.upstream("orders");
        recorder.upstream_answered(200);
        recorder.response(200, Origin::Upstream);
        recorder.add_response_bytes(1024);
        recorder.finish();
    };
    for _ in 0..200 {
        one();
        telemetry.flush(DEADLINE);
    }
    let info = allocation_counter::measure(|| (0..500).for_each(|_| one()));
    // The lane's buffer grows to what gathers between two visits of the writer: some doublings, not one per request.
    assert!(info.count_total <= 60, "{info:?}");
    assert!(telemetry.shut_down(DEADLINE));
}
