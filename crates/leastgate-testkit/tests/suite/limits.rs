//! Caps: on connections, requests in flight, sizes and failed credentials (P26, P27).

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true, within};
use leastgate_testkit::gateway::{TestGateway, request};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::raw::{NoReply, RawClient, Reply};
use leastgate_testkit::recorder::{Answer, Gate, RecorderUpstream, Step};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::fixtures::{Orders, setup, with_body};

/// Asks from a loopback address of its own.
fn from(gateway: &TestGateway, last: u8, bytes: impl AsRef<[u8]>) -> Reply {
    let mut client = RawClient::connect_from(gateway.data(), Ipv4Addr::new(127, 80, 0, last));
    client.send(bytes);
    client.read().unwrap()
}

#[test]
fn over_the_cap_of_a_source_a_connection_gets_503_unread_and_its_neighbours_nothing_of_it() {
    let orders = Orders::start_with(|setup| setup.limit("connections_per_source: 3"));
    let mut held: Vec<RawClient> = (0..3).map(|_| orders.gateway.client()).collect();
    for client in &mut held {
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        assert_eq!(client.read().unwrap().status, 200);
    }
    let mut fourth = orders.gateway.client();
    let reply = fourth.read().unwrap();
    assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("overloaded")));
    assert!(reply.head.has("retry-after"));
    fourth.expect_close(PATIENCE).unwrap();
    assert_eq!(
        from(&orders.gateway, 1, request("GET", "/v1/orders", Some(orders.reader()))).status,
        200,
        "another source"
    );
    held.pop();
    until_true("room again", PATIENCE, || {
        let mut client = orders.gateway.client();
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        matches!(client.read(), Ok(reply) if reply.status == 200)
    });
}

#[test]
fn over_the_cap_of_connections_a_new_one_gets_503() {
    let orders = Orders::start_with(|setup| setup.limit("connections: 4"));
    let mut held: Vec<RawClient> =
        (1..=4).map(|last| RawClient::connect_from(orders.gateway.data(), Ipv4Addr::new(127, 81, 0, last))).collect();
    for client in &mut held {
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        assert_eq!(client.read().unwrap().status, 200);
    }
    let mut refused = RawClient::connect_from(orders.gateway.data(), Ipv4Addr::new(127, 81, 0, 9));
    assert_eq!(refused.read().unwrap().status, 503);
}

/// Two requests that are in flight until the gate is opened.
fn hold_two(orders: &Orders) -> (Gate, Vec<RawClient>) {
    let gate = Gate::default();
    orders.upstream.on("/v1/orders/01", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let mut held: Vec<RawClient> = (0..2).map(|_| orders.gateway.client()).collect();
    for client in &mut held {
        client.send(request("GET", "/v1/orders/01", Some(orders.reader())));
    }
    until_true("two requests in flight", PATIENCE, || orders.upstream.count() == 2);
    (gate, held)
}

#[test]
fn over_the_cap_in_flight_a_request_gets_503_and_nothing_reaches_the_upstream() {
    let orders = Orders::start_with(|setup| setup.limit("in_flight: 2"));
    let (gate, mut held) = hold_two(&orders);
    let reply = orders.gateway.get(orders.reader(), "/v1/orders");
    assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("overloaded")));
    assert!(reply.head.has("retry-after"));
    assert_eq!(orders.upstream.count(), 2);
    gate.open();
    for client in &mut held {
        assert_eq!(client.read().unwrap().status, 200);
    }
    until_true("room again", PATIENCE, || orders.gateway.get(orders.reader(), "/v1/orders").status == 200);
    let event =
        &orders.gateway.wait_decisions("the refusal", 1, |event| event["decision"]["reason"] == "overloaded")[0];
    assert_eq!(event["response"]["status"], 503);
}

/// A full upstream and a full gateway are both a 503 `overloaded`: whoever runs it must see which limit it is.
#[test]
fn an_upstream_whose_connections_are_all_in_use_is_told_apart_from_a_full_gateway() {
    let upstream = RecorderUpstream::start();
    let tokens = orders_tokens();
    let keys = ", max_connections: 1, connect_timeout: 200ms";
    let gateway = setup(&tokens).upstream_with("orders", &upstream.url(), keys).argument("--workers=1").start();
    let reader = &tokens["READER"];
    let gate = Gate::default();
    upstream.on("/v1/orders/01", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let mut held = gateway.client();
    held.send(request("GET", "/v1/orders/01", Some(reader)));
    until_true("the request in flight", PATIENCE, || upstream.count() == 1);
    for _ in 0..3 {
        let reply = gateway.get(reader, "/v1/orders");
        assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("overloaded")));
    }
    assert_eq!(gateway.metrics().sum("leastgate_upstream_connect_errors_total", &["saturated"]), 3.0);
    let stderr = gateway.stderr();
    let told = |text: &str| stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(told("upstreams.orders.max_connections"), 1, "one line for many: {stderr}");
    gate.open();
    assert_eq!(held.read().unwrap().status, 200);
}

/// Out of descriptors, accepting is tried ten times a second, by each worker and for each address.
#[test]
fn a_gateway_out_of_descriptors_says_so_once_in_a_while() {
    let orders = Orders::start();
    let pid = Pid::from_raw(orders.gateway.id().cast_signed());
    let none_left = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, none_left).unwrap();
    let _waiting = TcpStream::connect(orders.gateway.data()).unwrap();
    let told = || orders.gateway.stderr().lines().filter(|line| line.contains("can be accepted for now")).count();
    until_true("the first line", PATIENCE, || told() > 0);
    assert!(within(Duration::from_secs(1), || (told() > 1).then_some(())).is_none(), "{}", orders.gateway.stderr());
    prlimit(pid, Resource::Nofile, before).unwrap();
    until_true("room again", PATIENCE, || orders.gateway.get(orders.reader(), "/v1/orders").status == 200);
}

#[test]
fn over_its_share_of_those_in_flight_a_source_gets_503_and_others_are_served() {
    let orders = Orders::start_with(|setup| setup.limit("in_flight_per_source: 2"));
    let (gate, mut held) = hold_two(&orders);
    let ask = request("GET", "/v1/orders", Some(orders.reader()));
    let reply = orders.gateway.exchange(&ask);
    assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("overloaded")));
    assert_eq!(from(&orders.gateway, 1, &ask).status, 200, "another source");
    let limited = orders.gateway.metrics().sum("leastgate_limited_total", &["in_flight_per_source"]);
    assert_eq!(limited, 1.0);
    gate.open();
    for client in &mut held {
        assert_eq!(client.read().unwrap().status, 200);
    }
    until_true("room again", PATIENCE, || orders.gateway.get(orders.reader(), "/v1/orders").status == 200);
}

#[test]
fn a_body_over_its_cap_is_413_in_either_framing() {
    let orders = Orders::start_with(|setup| setup.limit("body: 1KiB"));
    let writer = orders.token("WRITER");
    assert_eq!(orders.gateway.exchange(with_body("POST", "/v1/orders", writer, &[b'x'; 1024])).status, 200);
    let seen = orders.upstream.count();
    let reply = orders.gateway.exchange(with_body("POST", "/v1/orders", writer, &[b'x'; 1025]));
    assert_eq!((reply.status, reply.problem().as_deref(), reply.closes), (413, Some("body-too-large"), true));
    assert_eq!(orders.upstream.count(), seen, "a length that is too great is refused before anything is forwarded");

    let mut client = orders.gateway.client();
    client.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n",
        writer.header()
    ));
    for _ in 0..3 {
        client.send(format!("200\r\n{}\r\n", "x".repeat(512)));
    }
    let reply = client.read_for("POST", PATIENCE).unwrap();
    assert_eq!((reply.status, reply.problem().as_deref()), (413, Some("body-too-large")));
    assert!(orders.upstream.since(seen).iter().all(|request| !request.complete));
}

#[test]
fn a_connection_carries_so_many_requests() {
    let orders = Orders::start_with(|setup| setup.limit("connection_requests: 3"));
    let mut client = orders.gateway.client();
    for number in 1..=3 {
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        let reply = client.read().unwrap();
        assert_eq!((reply.status, reply.closes), (200, number == 3));
    }
    client.expect_close(PATIENCE).unwrap();
}

#[test]
fn many_failures_of_one_source_are_429_and_a_valid_token_is_never_refused_for_its_neighbours() {
    let orders = Orders::start_with(|setup| setup.limit("failures_per_source: { rate: 1/h, burst: 5 }"));
    let unknown = orders.token("UNKNOWN");
    let statuses: Vec<u16> =
        (0..12).map(|_| from(&orders.gateway, 7, request("GET", "/v1/orders", Some(unknown))).status).collect();
    assert_eq!(statuses[0], 401);
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let limited = from(&orders.gateway, 7, request("GET", "/v1/orders", Some(unknown)));
    assert_eq!((limited.status, limited.problem().as_deref()), (429, Some("too-many-failures")), "after {statuses:?}");
    assert!(limited.head.has("retry-after"));

    let valid = |last| from(&orders.gateway, last, request("GET", "/v1/orders", Some(orders.reader()))).status;
    assert_eq!(valid(7), 200, "a valid token from the limited source");
    assert_eq!(from(&orders.gateway, 7, request("GET", "/healthz", None)).status, 200, "a public path from it");
    assert_eq!(
        from(&orders.gateway, 7, request("GET", "/v1/none", Some(orders.reader()))).status,
        403,
        "a 403 stays one"
    );
    assert_eq!(from(&orders.gateway, 8, request("GET", "/v1/orders", Some(unknown))).status, 401, "another source");
    let recorded =
        orders.gateway.wait_decisions("the limit", 1, |event| event["decision"]["reason"] == "source_failures_limited");
    assert!(!recorded.is_empty());
}

#[test]
fn a_flood_of_connections_that_say_nothing_stalls_nobody() {
    let orders = Orders::start_with(|setup| setup.limit("first_byte: 1s"));
    let silent: Vec<RawClient> = (0..200)
        .map(|number| RawClient::connect_from(orders.gateway.data(), Ipv4Addr::new(127, 82, 0, number)))
        .collect();
    for _ in 0..20 {
        let mut client = orders.gateway.client();
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        let answer = client.read_for("GET", Duration::from_secs(2));
        assert!(matches!(&answer, Ok(reply) if reply.status == 200), "{answer:?}");
    }
    for mut client in silent {
        assert_eq!(client.read_for("GET", PATIENCE).unwrap_err(), NoReply::Closed);
    }
}
