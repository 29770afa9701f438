//! Workers that fall ill.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::clocks::TestClock;
use crate::harness::{Connection, Options, PATIENCE, Upstream, start_as};

/// Without the task that decides long requests again (P29), a worker would serve on as if nothing were wrong.
#[test]
fn a_worker_that_no_longer_decides_again_is_seen_to_be_ill() {
    let clock = Arc::new(TestClock::default());
    let options = Options { clock: Some(clock.clone()), ..Options::default() };
    let harness = start_as(Upstream::start(Connection::wait_until_closed), |_| {}, &options);
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    harness.upstream.wait_for("/v1/a");
    let is_healthy = || harness.plane.as_ref().unwrap().is_healthy();
    assert!(is_healthy());
    clock.break_down();
    let started = Instant::now();
    while is_healthy() {
        assert!(started.elapsed() < PATIENCE, "still thought to be well");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(client.is_closed(), "nothing goes on unwatched");
}
