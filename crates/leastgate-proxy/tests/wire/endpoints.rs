//! Several endpoints of one upstream: who gets a request, who is left out, how soon one that comes back is found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Connection, Harness, OK, Options, PATIENCE, Upstream, start_as};
use crate::scripted::{Absent, BlackHole};

fn answering(mark: &'static str) -> Upstream {
    Upstream::start(move |upstream: &mut Connection| {
        upstream.answer_all(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{mark}", mark.len()));
    })
}

/// One worker over these endpoints.
fn over(first: Upstream, others: &[SocketAddr], keys: &str) -> Harness {
    let all = std::iter::once(&first.address).chain(others);
    let endpoints = all.map(|address| format!("http://{address}")).collect();
    let upstream = format!("response_timeout: 5s, {keys}");
    let options = Options { endpoints, upstream: &upstream, workers: 1, ..Options::default() };
    start_as(first, |_| {}, &options)
}

fn bodies(harness: &Harness, count: usize) -> Vec<String> {
    let mut client = harness.connect();
    let ask = |_| {
        client.send(harness.head("GET /v1/a", ""));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    };
    (0..count).map(ask).collect()
}

#[test]
fn requests_take_turns_and_reuse_connections() {
    let second = answering("two");
    let harness = over(answering("one"), &[second.address], "");
    let bodies = bodies(&harness, 10);
    let ones = bodies.iter().filter(|body| *body == "one").count();
    assert_eq!(ones, 5, "{bodies:?}");
    assert_eq!((harness.upstream.received().len(), second.received().len()), (1, 1));
}

#[test]
fn a_request_avoids_the_endpoint_that_is_busy() {
    let slow = Upstream::start(|upstream: &mut Connection| upstream.wait_until_closed());
    let harness = over(slow, &[answering("quick").address], "");
    let mut busy: Vec<_> = (0..2).map(|_| harness.connect()).collect();
    busy.iter_mut().for_each(|client| client.send(harness.head("GET /v1/slow", "")));
    harness.upstream.wait_for("/v1/slow");
    // The other of the two was answered, and is out of the way.
    assert_eq!(harness.events(1).len(), 1);
    assert!(bodies(&harness, 10).iter().all(|body| body == "quick"));
}

#[test]
fn where_one_endpoint_is_gone_nobody_notices_whatever_the_method() {
    let absent = Absent::reserve();
    let harness = over(answering("there"), &[absent.address()], "");
    for _ in 0..20 {
        let mut client = harness.connect();
        client.send(harness.head("POST /v1/a", "Content-Length: 0\r\n"));
        assert_eq!(client.reply().status, 200, "nothing was sent to the one that is gone");
    }
    harness.upstream.wait_for("POST /v1/a");
}

#[test]
fn an_endpoint_that_comes_back_serves_within_a_second() {
    let gone = Absent::reserve();
    let harness = over(answering("there"), &[gone.address()], "");
    // It has been away for a while: the time out has reached its longest.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(bodies(&harness, 1), ["there"]);
        thread::sleep(Duration::from_millis(50));
    }
    let back = Instant::now();
    let _back = gone.start(|upstream: &mut Connection| upstream.answer_all(OK));
    while bodies(&harness, 1) != ["ok"] {
        assert!(back.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
}

/// To find that nobody answers takes the whole `connect_timeout`, again and again.
#[test]
fn what_is_tried_while_it_is_out_takes_neither_a_requests_place_nor_that_of_who_is_back() {
    let (holes, gone) = ([(); 2].map(|()| BlackHole::open()), Absent::reserve());
    let well = Upstream::start(|upstream: &mut Connection| {
        upstream.read_until("\r\n\r\n");
        upstream.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nthere");
    });
    let others = [holes[0].address, holes[1].address, gone.address()];
    let harness = over(well, &others, "max_connections: 1, connect_timeout: 1s");
    let ejected = |address: &SocketAddr| {
        let labels = format!("endpoint=\"{address}\",state=\"ejected\",upstream=\"up\"");
        harness.metric(&format!("leastgate_upstream_endpoint_workers{{{labels}}}")) == 1
    };
    let ask = || harness.ask(harness.head("GET /v1/a", ""));
    let started = Instant::now();
    while !others.iter().all(ejected) {
        ask();
        assert!(started.elapsed() < PATIENCE);
    }
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let asked = Instant::now();
        assert_eq!(ask().status, 200, "after {:?}", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_millis(500), "it waited {:?} for a place", asked.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    let back = Instant::now();
    let _back = gone.start(|upstream: &mut Connection| upstream.answer_all(OK));
    while ask().body != "ok" {
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_upstream_that_comes_back_serves_the_next_request_even_if_all_were_out() {
    let (other, gone) = (Absent::reserve(), Absent::reserve());
    let harness = over(Upstream::at(other.address()), &[gone.address()], "");
    for _ in 0..5 {
        assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 503);
    }
    let _back = gone.start(|upstream: &mut Connection| upstream.answer_all(OK));
    assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 200);
}

#[test]
fn an_endpoint_that_breaks_its_connections_is_left_out() {
    let broken = Upstream::start(|upstream: &mut Connection| {
        upstream.read_until("\r\n\r\n");
    });
    let harness = over(answering("well"), &[broken.address], "");
    let failed = (0..60).filter(|_| harness.ask(harness.head("GET /v1/a", "")).status != 200).count();
    assert!((3..12).contains(&failed), "{failed} of 60 failed: what may have been processed is not repeated");
    assert_eq!(broken.received().iter().filter(|received| received.contains("GET")).count(), failed);
}

#[test]
fn an_endpoint_that_says_it_is_not_well_is_left_out_until_it_says_otherwise() {
    let is_well = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&is_well);
    let second = Upstream::start(move |upstream: &mut Connection| {
        let mut heard = 0;
        while upstream.read_until("\r\n\r\n") {
            let is_check = upstream.received()[heard..].starts_with("GET /healthz");
            heard = upstream.received().len();
            let is_out = is_check && !says.load(Ordering::Relaxed);
            upstream.write(if is_out { "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n" } else { OK });
        }
    });
    let harness = over(answering("well"), &[second.address], "check: { path: /healthz, interval: 100ms }");
    second.wait_for("GET /healthz HTTP/1.1\r\nhost: ");
    let started = Instant::now();
    while bodies(&harness, 4).contains(&"ok".to_owned()) {
        assert!(started.elapsed() < PATIENCE);
    }
    for _ in 0..20 {
        assert_eq!(bodies(&harness, 1), ["well"]);
        thread::sleep(Duration::from_millis(20));
    }
    is_well.store(true, Ordering::Relaxed);
    let back = Instant::now();
    while bodies(&harness, 1) != ["ok"] {
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_cap_on_connections_is_of_all_endpoints_together() {
    let second = answering("two");
    let harness = over(answering("one"), &[second.address], "max_connections: 1");
    let bodies = bodies(&harness, 6);
    assert!(bodies.contains(&"one".to_owned()) && bodies.contains(&"two".to_owned()), "{bodies:?}");
}

#[test]
fn a_rewritten_host_is_that_of_the_endpoint_the_request_goes_to() {
    let (second, absent) = (answering("two"), Absent::reserve());
    let harness = over(answering("one"), &[second.address, absent.address()], "host: rewrite");
    bodies(&harness, 9);
    for upstream in [&harness.upstream, &second] {
        let hosts: Vec<_> =
            upstream.all().lines().filter(|line| line.starts_with("host: ")).map(str::to_owned).collect();
        assert!(!hosts.is_empty());
        assert!(hosts.iter().all(|host| *host == format!("host: {}", upstream.address)), "{hosts:?}");
        assert!(upstream.all().contains("x-forwarded-host: orders.internal"));
    }
}

#[test]
fn a_name_is_resolved_and_one_that_has_no_address_is_a_503() {
    let upstream = answering("named");
    let endpoints = vec![format!("http://localhost:{}", upstream.address.port())];
    let harness = start_as(upstream, |_| {}, &Options { endpoints, ..Options::default() });
    assert_eq!(bodies(&harness, 3).concat(), "namednamednamed");

    let options = Options {
        endpoints: vec!["http://nowhere.invalid".to_owned()],
        upstream: "connect_timeout: 10s",
        ..Options::default()
    };
    let harness = start_as(Upstream::absent(), |_| {}, &options);
    let reply = harness.ask(harness.head("GET /v1/a", ""));
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("urn:leastgate:problem:upstream-unreachable"), "{}", reply.body);
    harness.events(1);
    assert_eq!(harness.metric("leastgate_upstream_connect_errors_total{error=\"dns\",upstream=\"up\"}"), 1);
}
