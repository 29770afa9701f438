//! Every phase of a connection ends (P25): the silent client, half a head, a slow body, a client that reads nothing.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::recorder::{Answer, Step};

use crate::fixtures::Orders;

const SOON: Duration = Duration::from_secs(4);

fn orders_with_short_limits() -> Orders {
    Orders::start_with(|setup| {
        setup
            .limit("first_byte: 300ms")
            .limit("head_timeout: 500ms")
            .limit("keep_alive_client: 600ms")
            .limit("body_idle: 400ms")
            .limit("body_grace: 300ms")
            .limit("body_min_rate: 1000B/s")
            .limit("response_stall: 500ms")
    })
}

#[test]
fn who_says_nothing_is_closed() {
    let orders = orders_with_short_limits();
    for bytes in ["", "P", "PRI * HT", "GET /v1/or", "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nX-Slow"] {
        let mut client = orders.gateway.client();
        client.send(bytes);
        client.expect_close(SOON).unwrap_or_else(|what| panic!("after {bytes:?}: {what}"));
    }
    assert_eq!(orders.upstream.count(), 0);
    let late = orders.gateway.wait_decisions("late heads", 3, |event| event["decision"]["reason"] == "request_timeout");
    assert!(late.len() >= 3, "{late:?}");
}

#[test]
fn a_head_that_trickles_is_closed_however_busy_it_looks() {
    let orders = orders_with_short_limits();
    let mut client = orders.gateway.client();
    client.send("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nX-Slow: ");
    let start = Instant::now();
    until_true("the end of a trickling head", SOON, || {
        client.send("a");
        client.expect_close(Duration::from_millis(50)).is_ok()
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_without_an_event() {
    let orders = orders_with_short_limits();
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    assert_eq!(client.read().unwrap().status, 200);
    client.expect_close(SOON).unwrap();
    assert_eq!(orders.gateway.wait_decisions("the request", 1, |_| true).len(), 1);
}

#[test]
fn a_body_that_stops_or_trickles_is_408() {
    let orders = orders_with_short_limits();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: 100000\r\n\r\npart",
        orders.token("WRITER").header()
    );
    let mut silent = orders.gateway.client();
    silent.send(&head);
    let reply = silent.read_for("POST", SOON).unwrap();
    assert_eq!((reply.status, reply.problem().as_deref(), reply.closes), (408, Some("request-timeout"), true));

    let mut slow = orders.gateway.client();
    slow.send(&head);
    let start = Instant::now();
    until_true("the end of a trickling body", SOON, || {
        slow.send("b");
        slow.expect_close(Duration::from_millis(50)).is_err_and(|what| what.contains("408"))
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(orders.upstream.requests().iter().all(|request| !request.complete));
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let orders = orders_with_short_limits();
    let total: u64 = 256 << 20;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n");
    orders.upstream.on("/v1/orders", Answer::steps([Step::send(head), Step::Flood(total)]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    let _ = client.read_head(PATIENCE).unwrap();
    until_true("the upstream connection's end", SOON, || orders.upstream.open() == 0);
}

#[test]
fn a_slow_but_living_body_passes() {
    let orders =
        Orders::start_with(|setup| setup.limit("body_idle: 2s").limit("body_grace: 1s").limit("body_min_rate: 10B/s"));
    let mut client = orders.gateway.client();
    client.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: 500\r\n\r\n",
        orders.token("WRITER").header()
    ));
    for _ in 0..10 {
        // The pace of a slow client is what this test is about.
        thread::sleep(Duration::from_millis(150));
        client.send("b".repeat(50));
    }
    assert_eq!(client.read_for("POST", PATIENCE).unwrap().status, 200);
}
