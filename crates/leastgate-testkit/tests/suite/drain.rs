//! The end: SIGTERM under load loses no request, and the process ends with 0.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::raw::{NoReply, RawClient};
use leastgate_testkit::recorder::{Answer, Gate, Step};
use rustix::process::Signal;

use crate::fixtures::Orders;

#[test]
fn a_drain_under_load_loses_no_request() {
    let mut orders = Orders::start();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let data = orders.gateway.data();
    let reader = orders.reader().clone();
    let Orders { gateway, .. } = &mut orders;
    thread::scope(|scope| {
        let ask = || {
            let Ok(mut client) = RawClient::try_connect_from(data, std::net::Ipv4Addr::LOCALHOST) else { return };
            while !stop.load(Ordering::SeqCst) {
                client.send(request("GET", "/v1/orders", Some(&reader)));
                match client.read() {
                    Ok(reply) if reply.status == 200 => {
                        answered.fetch_add(1, Ordering::SeqCst);
                        if reply.closes {
                            return;
                        }
                    }
                    // Closed before a byte: this request was not taken, and a client may send it again elsewhere.
                    Err(NoReply::Closed) => return,
                    other => panic!("a request was lost: {other:?}"),
                }
            }
        };
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        until_true("traffic", PATIENCE, || answered.load(Ordering::SeqCst) > 200);
        let ended = gateway.stop();
        stop.store(true, Ordering::SeqCst);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let allowed =
        orders.gateway.decisions().iter().filter(|event| event["decision"]["reason"] == "scope_granted").count();
    assert_eq!(allowed, orders.upstream.count(), "each forwarded request is on record");
    assert!(allowed >= answered.load(Ordering::SeqCst));
}

#[test]
fn requests_under_way_finish_and_readiness_goes_first() {
    let mut orders = Orders::start_with(|setup| setup.limit("drain_delay: 1s"));
    let gate = Gate::default();
    orders.upstream.on("/v1/orders", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    let _ = orders.upstream.wait_for("/v1/orders", PATIENCE);
    orders.gateway.process().signal(Signal::TERM);
    until_true("readiness to go", PATIENCE, || orders.gateway.ops("/readyz").status == 503);
    assert_eq!(orders.gateway.ops("/livez").status, 200);
    gate.open();
    let reply = client.read().unwrap();
    assert_eq!((reply.status, reply.closes), (200, true), "answered, and the connection is not kept");
    let ended = orders.gateway.process().wait(Duration::from_secs(20)).expect("it ends");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_request_that_never_ends_is_cut_at_the_limit() {
    let mut orders = Orders::start_with(|setup| setup.limit("drain_timeout: 1s"));
    orders.upstream.on("/v1/orders", Answer::steps([Step::Hold]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    let _ = orders.upstream.wait_for("/v1/orders", PATIENCE);
    let ended = orders.gateway.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(orders.gateway.decisions().len(), 1, "also a request that was cut is on record");
}

#[test]
fn an_interrupt_drains_too() {
    let mut orders = Orders::start();
    orders.gateway.process().signal(Signal::INT);
    let ended = orders.gateway.process().wait(Duration::from_secs(20)).expect("it ends");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
