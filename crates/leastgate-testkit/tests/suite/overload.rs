//! More than the caps allow, again and again: it is refused before it costs memory, and those within the caps are served
//! as before (P27).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::raw::{NoReply, RawClient};
use leastgate_testkit::recorder::{Answer, Gate, Step};
use leastgate_testkit::results;
use leastgate_testkit::vitals::Watch;

use crate::fixtures::Orders;
use crate::slow_clients::{Neighbour, Stops};

/// What a flood may cost in all, however long it is.
const BOUND: u64 = 4 << 20;

/// What is within the cap.
const CAP: usize = 64;

/// How many come at a time, and how often each comes back.
const CROWD: usize = 32;

fn often() -> usize {
    results::sized(50, 1_000)
}

fn record(name: &str, growth: u64, refused: usize, served: usize) {
    let promise = "each is refused, at most 4 MiB more in all; those within the cap are served".to_owned();
    let measured = format!(
        "{refused} refused, {} more; {served} requests within the cap answered meanwhile",
        results::bytes(growth)
    );
    results::record("faults", &format!("overload: {name}"), &[("promise", promise), ("measured", measured)]);
}

/// How often each comes before, until the events that are kept in memory are as many as may be.
const WARM: usize = 30;

/// Everybody of the crowd does it so many times; how often in all. Each comes from an address of its own: a port can't be
/// used again for a minute, and one address has too few for all of them and for the suites behind this one.
fn crowd(times: usize, again: impl Fn(Ipv4Addr) + Sync) -> usize {
    thread::scope(|scope| {
        for number in 1..=CROWD {
            let again = &again;
            let source = Ipv4Addr::new(127, 82, 0, u8::try_from(number).unwrap());
            scope.spawn(move || (0..times).for_each(|_| again(source)));
        }
    });
    CROWD * times
}

#[test]
fn connections_over_their_cap_cost_no_memory_and_nobody_his_connection() {
    let cap = format!("connections: {CAP}");
    let orders = Orders::start_with(|setup| setup.limit(&cap).limit("connections_per_source: 1000000"));
    let ask = request("GET", "/v1/orders", Some(orders.reader()));
    let mut held: Vec<RawClient> = (0..CAP - 1).map(|_| orders.gateway.client()).collect();
    let served = |held: &mut [RawClient]| {
        for client in held {
            client.send(&ask);
            assert_eq!(client.read().unwrap().status, 200);
        }
    };
    served(&mut held);
    let refuse = |source| {
        let mut client = RawClient::connect_from(orders.gateway.data(), source);
        client.send(&ask);
        match client.read() {
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
            // What it sent was not read: the answer may go down with the connection.
            Err(NoReply::Closed) => {}
            Err(other) => panic!("{other:?}"),
        }
    };
    let neighbour = Neighbour { gateway: &orders.gateway, token: orders.reader() };
    let (over, is_there) = (AtomicBool::new(false), AtomicBool::new(false));
    let (growth, refused, answered) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            neighbour.ask_while(|count| {
                is_there.store(count > 0, Ordering::SeqCst);
                !over.load(Ordering::SeqCst)
            })
        });
        let stops = Stops(&over);
        until_true("the last within the cap", PATIENCE, || is_there.load(Ordering::SeqCst));
        crowd(WARM, refuse);
        let watch = Watch::of(orders.gateway.id());
        let refused = crowd(often(), refuse);
        let growth = watch.growth();
        drop(stops);
        (growth, refused, asking.join().unwrap().len())
    });
    assert!(growth <= BOUND, "{growth} bytes more for {refused} connections");
    served(&mut held);
    let got = orders.upstream.count();
    assert_eq!(got, answered + 2 * held.len(), "nothing of what was refused reached the upstream");
    record(&format!("connections at a cap of {CAP}"), growth, refused, answered);
}

#[test]
fn requests_over_their_cap_cost_no_memory_and_those_in_flight_end_well() {
    // Those that are held are answered after the last of the others, however long these take.
    let orders = Orders::start_with(|setup| setup.limit(&format!("in_flight: {CAP}")).limit("upstream_response: 10m"));
    let gate = Gate::default();
    orders.upstream.on("/v1/orders/01", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let mut held: Vec<RawClient> = (0..CAP).map(|_| orders.gateway.client()).collect();
    for client in &mut held {
        client.send(request("GET", "/v1/orders/01", Some(orders.reader())));
    }
    until_true("so many in flight", PATIENCE * 2, || orders.upstream.count() == CAP);
    let ask = request("GET", "/v1/orders", Some(orders.reader()));
    let again = |source| {
        let mut client = RawClient::connect_from(orders.gateway.data(), source);
        for _ in 0..5 {
            client.send(&ask);
            let reply = client.read().unwrap();
            assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("overloaded")));
        }
    };
    crowd(WARM, again);
    let watch = Watch::of(orders.gateway.id());
    let refused = crowd(often(), again) * 5;
    let growth = watch.growth();
    assert!(growth <= BOUND, "{growth} bytes more for {refused} requests");
    assert_eq!(orders.upstream.count(), CAP, "nothing of what was refused reached the upstream");
    gate.open();
    for client in &mut held {
        assert_eq!(client.read().unwrap().status, 200);
    }
    record(&format!("requests in flight at a cap of {CAP}"), growth, refused, CAP);
}
