//! `/metrics` and the probes: the names the interface promises, numbers that add up, nothing from a request in a label.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::paths::program;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::process::Process;
use leastgate_testkit::recorder::{Answer, Gate, RecorderUpstream, Step};
use socket2::{Domain, Socket, Type};

use crate::fixtures::{Orders, setup};

const NAMES: &[(&str, &str)] = &[
    ("leastgate_build_info", "gauge"),
    ("leastgate_policy_info", "gauge"),
    ("leastgate_http_requests_total", "counter"),
    ("leastgate_http_request_duration_seconds", "histogram"),
    ("leastgate_decision_duration_seconds", "histogram"),
    ("leastgate_http_requests_in_flight", "gauge"),
    ("leastgate_decisions_total", "counter"),
    ("leastgate_upstream_requests_total", "counter"),
    ("leastgate_upstream_request_duration_seconds", "histogram"),
    ("leastgate_upstream_endpoint_workers", "gauge"),
    ("leastgate_upstream_endpoint_ejections_total", "counter"),
    ("leastgate_tls_reloads_total", "counter"),
    ("leastgate_tls_last_reload_successful", "gauge"),
    ("leastgate_audit_events_total", "counter"),
    ("leastgate_audit_queue_depth", "gauge"),
    ("leastgate_audit_queue_capacity", "gauge"),
    ("leastgate_audit_last_success_timestamp_seconds", "gauge"),
    ("leastgate_config_reloads_total", "counter"),
    ("leastgate_config_last_reload_successful", "gauge"),
    ("leastgate_tokens", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
];

fn some_traffic(orders: &Orders) {
    for _ in 0..5 {
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders/7b0e").status, 200);
    }
    for _ in 0..3 {
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/none").status, 403);
    }
    for _ in 0..2 {
        assert_eq!(orders.gateway.exchange(request("GET", "/v1/orders", None)).status, 401);
    }
    orders.gateway.exchange(request("WEIRD", "/v1/orders", Some(orders.reader())));
}

#[test]
fn the_names_of_the_interface_are_there_and_promtool_is_content() {
    let orders = Orders::start();
    some_traffic(&orders);
    let metrics = orders.gateway.metrics();
    for (name, kind) in NAMES {
        assert_eq!(metrics.kind(name), Some(*kind), "{name}");
    }
    assert_eq!(metrics.sum("leastgate_config_last_reload_successful", &[]), 1.0);
    let file = orders.gateway.path().join("metrics.txt");
    fs::write(&file, metrics.text()).unwrap();
    let check = format!("{} check metrics < {}", program("promtool").display(), file.display());
    let ended = Process::run("promtool", Command::new("sh").args(["-c", &check]), PATIENCE);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
}

#[test]
fn the_numbers_add_up() {
    let orders = Orders::start();
    some_traffic(&orders);
    until_true("eleven decisions", PATIENCE, || orders.gateway.metrics().sum("leastgate_decisions_total", &[]) >= 11.0);
    let metrics = orders.gateway.metrics();
    let decisions = |labels: &[&str]| metrics.sum("leastgate_decisions_total", labels);
    assert_eq!(decisions(&["effect=\"allow\"", "reason=\"scope_granted\""]), 5.0);
    assert_eq!(decisions(&["effect=\"deny\"", "reason=\"insufficient_scope\""]), 4.0);
    assert_eq!(decisions(&["effect=\"deny\"", "reason=\"credential_missing\""]), 2.0);
    assert_eq!(decisions(&[]), 11.0);
    let requests = |labels: &[&str]| metrics.sum("leastgate_http_requests_total", labels);
    assert_eq!(requests(&[]), 11.0);
    assert_eq!(requests(&["route=\"/v1/orders/{order_id:hex}\"", "method=\"GET\"", "code=\"200\""]), 5.0);
    assert_eq!(requests(&["method=\"_OTHER\""]), 1.0, "an unknown method is no label of its own");
    assert_eq!(metrics.sum("leastgate_http_request_duration_seconds_count", &[]), 11.0);
    assert_eq!(metrics.sum("leastgate_upstream_requests_total", &["upstream=\"orders\""]), 5.0);
    assert_eq!(metrics.sum("leastgate_http_requests_in_flight", &[]), 0.0);
    assert_eq!(metrics.sum("leastgate_audit_dropped_total", &[]), 0.0);
}

#[test]
fn every_decision_is_there_at_zero_from_the_start() {
    let orders = Orders::start();
    let metrics = orders.gateway.metrics();
    for reason in ["scope_granted", "path_ambiguous", "token_revoked", "upstream_timeout", "source_failures_limited"] {
        let label = format!("reason=\"{reason}\"");
        assert!(
            metrics.series("leastgate_decisions_total").any(|(set, value)| set.contains(&label) && value == 0.0),
            "{reason}"
        );
    }
}

#[test]
fn requests_in_flight_are_counted_while_they_are() {
    let orders = Orders::start();
    let gate = Gate::default();
    orders.upstream.on("/v1/orders", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    until_true("one in flight", PATIENCE, || {
        orders.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]) == 1.0
    });
    gate.open();
    assert_eq!(client.read().unwrap().status, 200);
    until_true("none in flight", PATIENCE, || {
        orders.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn an_endpoint_that_is_gone_is_told_until_it_is_back() {
    // Nobody else can have its address, and nobody listens there yet.
    let gone = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    gone.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = gone.local_addr().unwrap().as_socket().unwrap();
    let (upstream, tokens) = (RecorderUpstream::start(), orders_tokens());
    let both = format!("{}\", \"http://{address}", upstream.url());
    let gateway = setup(&tokens).section("workers", "1").upstream("orders", &both).start();
    let of = |endpoint: SocketAddr, family: &str, label: &str| {
        let labels = ["upstream=\"orders\"", &format!("endpoint=\"{endpoint}\""), label];
        gateway.metrics().sum(&format!("leastgate_upstream_endpoint_{family}"), &labels)
    };
    let states = |endpoint| ["state=\"in\"", "state=\"ejected\""].map(|state| of(endpoint, "workers", state));
    assert_eq!([states(upstream.address()), states(address)], [[1.0, 0.0]; 2]);
    for _ in 0..4 {
        assert_eq!(gateway.get(&tokens["READER"], "/v1/orders").status, 200);
    }
    assert_eq!([states(upstream.address()), states(address)], [[1.0, 0.0], [0.0, 1.0]]);
    let ejections = ["connect", "broken", "check"].map(|cause| of(address, "ejections_total", &format!("\"{cause}\"")));
    assert_eq!(ejections, [1.0, 0.0, 0.0]);
    assert_eq!(of(upstream.address(), "ejections_total", ""), 0.0);
    gone.listen(16).unwrap();
    until_true("it is back", PATIENCE, || states(address) == [1.0, 0.0]);
    assert_eq!(gateway.metrics().series("leastgate_upstream_endpoint_workers").count(), 4);
}

#[test]
fn tokens_are_counted_by_state() {
    let orders = Orders::start();
    // Counted on a timer, the first time soon after the start.
    until_true("the first count", PATIENCE, || orders.gateway.metrics().sum("leastgate_tokens", &[]) > 0.0);
    let metrics = orders.gateway.metrics();
    let count = |state: &str| metrics.sum("leastgate_tokens", &[&format!("state=\"{state}\"")]);
    assert_eq!((count("revoked"), count("disabled"), count("expired")), (1.0, 1.0, 1.0));
    assert_eq!(count("expiring"), 8.0, "reader, writer, wide, refunder, misc, nobody, not-yet, elsewhere: for a day");
    assert!(metrics.sum("leastgate_token_next_expiry_timestamp_seconds", &[]) > 1e9);
}

#[test]
fn probes_answer_and_nothing_else_is_served() {
    let orders = Orders::start_with(|setup| setup);
    assert_eq!(orders.gateway.ops("/livez").status, 200);
    assert_eq!(orders.gateway.ops("/readyz").status, 200);
    assert_eq!(orders.gateway.ops("/readyz?verbose").status, 200);
    for path in ["/", "/v1/tokens", "/v1/orders", "/metrics/../livez", "/probe/none/live"] {
        assert!([400, 404].contains(&orders.gateway.ops(path).status), "{path}");
    }
    assert_eq!(orders.upstream.count(), 0);
}

#[test]
fn no_label_comes_from_a_request() {
    let orders = Orders::start();
    for path in ["/v1/zebra-marker", "/files/zebra-marker", "/v1/orders?zebra-marker=1"] {
        orders.gateway.get(orders.token("WIDE"), path);
    }
    orders.gateway.exchange("ZEBRA /v1/x HTTP/1.1\r\nHost: zebra-marker.test\r\nX-Zebra-Marker: 1\r\n\r\n");
    let text = orders.gateway.metrics().text().to_lowercase();
    assert!(!text.contains("zebra"), "{text}");
    for token in orders.tokens().values() {
        assert!(!text.contains(&token.accessor.to_lowercase()), "no per-token number");
    }
}
