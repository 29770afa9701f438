//! Active checks over every way to an upstream: TLS, with a name and a certificate of the gateway's own, and HTTP/2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use h2::server::Builder;
use http::{Response, Version};
use leastgate_proxy::{Trust, UpstreamTls};

use crate::certificates::{Authority, pem};
use crate::harness::{Harness, OK, Options, PATIENCE, Upstream, start_as};
use crate::http2_peers::{Served, say};
use crate::secure::{Met, Secure, before_all};

const CHECK: &str = "check: { path: /healthz, interval: 50ms }, response_timeout: 5s";

fn until(what: &str, wanted: impl Fn() -> bool) {
    let started = Instant::now();
    while !wanted() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn series(family: &str, endpoint: &str, more: &str) -> String {
    let mut labels = [format!("endpoint=\"{endpoint}\""), more.to_owned(), "upstream=\"up\"".to_owned()];
    labels.sort();
    format!("leastgate_upstream_endpoint_{family}{{{}}}", labels.join(","))
}

fn workers(harness: &Harness, endpoint: &str) -> [u64; 2] {
    ["in", "ejected"].map(|state| harness.metric(&series("workers", endpoint, &format!("state=\"{state}\""))))
}

#[test]
fn an_https_endpoint_is_asked_as_it_is_used() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    for (alpn, keys, is_http2) in [
        (&["http/1.1"][..], "http2: false", false),
        (&["h2", "http/1.1"], "http2: true", true),
        (&["http/1.1"], "http2: true", false),
    ] {
        let endpoints = [(); 2].map(|()| Secure::start(&servers.issue(&["up.internal"]), Some(&clients), alpn));
        let identity = clients.issue(&["gateway.internal"]);
        let ca = pem("ca.pem", &servers.pem());
        let tls = UpstreamTls::new(Trust::File(&ca), Some(&identity.pair("gateway"))).unwrap();
        let tls = tls.with_name("up.internal").unwrap();
        let [well, ill] = &endpoints;
        let urls = endpoints.iter().map(|endpoint| format!("https://127.0.0.1:{}", endpoint.port)).collect();
        ill.set_ill(true);
        let harness = before_all(urls, tls, &format!("{keys}, {CHECK}"));
        let address = format!("127.0.0.1:{}", ill.port);
        until("the one that says so is out", || workers(&harness, &address) == [0, 1]);
        assert_eq!(workers(&harness, &format!("127.0.0.1:{}", well.port)), [1, 0]);
        for _ in 0..10 {
            assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 200);
        }
        assert!(ill.asked().iter().all(|path| path == "/healthz"), "{:?}", ill.asked());
        let own = identity.chain().pop();
        let as_used = Met { name: Some("up.internal".to_owned()), shown: own, is_http2 };
        assert!(ill.met().iter().chain(&well.met()).all(|met| *met == as_used), "{:?}", ill.met());

        ill.set_ill(false);
        until("it is back", || workers(&harness, &address) == [1, 0]);
        until("it serves", || {
            harness.ask(harness.head("GET /v1/a", ""));
            ill.asked().contains(&"/v1/a".to_owned())
        });
        let count = |family, more| harness.metric(&series(family, &address, more));
        assert!(count("ejections_total", "cause=\"check\"") >= 1);
        assert_eq!(
            [count("ejections_total", "cause=\"connect\""), count("ejections_total", "cause=\"broken\"")],
            [0, 0]
        );
        assert!(count("checks_total", "result=\"fail\"") >= 1 && count("checks_total", "result=\"pass\"") >= 1);
    }
}

#[test]
fn an_https_endpoint_that_does_not_prove_its_name_is_out() {
    let authority = Authority::new("ours");
    let [well, impostor] =
        ["127.0.0.1", "other.internal"].map(|name| Secure::start(&authority.issue(&[name]), None, &[]));
    let urls = [&well, &impostor].map(|endpoint| format!("https://127.0.0.1:{}", endpoint.port)).to_vec();
    let tls = UpstreamTls::new(Trust::File(&pem("ca.pem", &authority.pem())), None).unwrap();
    let harness = before_all(urls, tls, CHECK);
    until("it is out", || workers(&harness, &format!("127.0.0.1:{}", impostor.port)) == [0, 1]);
    assert_eq!(impostor.asked(), [""; 0], "nothing was said to it");
    assert_eq!(workers(&harness, &format!("127.0.0.1:{}", well.port)), [1, 0]);
}

#[test]
fn an_endpoint_of_http2_is_asked_in_http2() {
    let is_well = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&is_well);
    let ill = Served::start(Builder::new(), move |seen, mut respond| {
        let is_out = seen.head.uri.path() == "/healthz" && !says.load(Ordering::SeqCst);
        Box::pin(async move {
            if is_out {
                let head = Response::builder().status(503).body(()).unwrap();
                let _ = respond.send_response(head, true);
            } else {
                say(respond, b"ok").await;
            }
        })
    });
    let well = Served::answering("ok");
    let addresses = [well.address, ill.address];
    let endpoints = addresses.map(|address| format!("http://{address}")).to_vec();
    let keys = format!("http2: true, {CHECK}");
    let options = Options { endpoints, upstream: &keys, workers: 1, ..Options::default() };
    let harness = start_as(Upstream::at(well.address), |_| {}, &options);
    let address = ill.address.to_string();
    until("the one that says so is out", || workers(&harness, &address) == [0, 1]);
    let asked = ill.seen().remove(0).head;
    assert_eq!((asked.version, asked.method.as_str(), asked.uri.path()), (Version::HTTP_2, "GET", "/healthz"));
    assert_eq!(asked.uri.authority().map(ToString::to_string), Some(address.clone()));
    assert_eq!(asked.uri.scheme_str(), Some("http"));
    is_well.store(true, Ordering::SeqCst);
    until("it is back", || workers(&harness, &address) == [1, 0]);
}

/// Every place is taken by a request that is under way: the endpoint that is out still comes back.
#[test]
fn an_endpoint_is_asked_though_requests_take_every_place() {
    let is_well = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&is_well);
    let busy = Upstream::start(|upstream| {
        while upstream.read_until("\r\n\r\n") {
            if upstream.received().contains("/v1/slow") {
                return upstream.wait_until_closed();
            }
            upstream.write(OK);
        }
    });
    let ill = Upstream::start(move |upstream| {
        upstream.read_until("\r\n\r\n");
        let is_out = !says.load(Ordering::SeqCst);
        upstream.write(if is_out { "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n" } else { OK });
        upstream.wait_until_closed();
    });
    let endpoints = [busy.address, ill.address].map(|address| format!("http://{address}")).to_vec();
    let keys = "max_connections: 1, check: { path: /healthz, interval: 50ms }, response_timeout: 60s";
    let options = Options { endpoints, upstream: keys, workers: 1, ..Options::default() };
    let address = ill.address.to_string();
    let harness = start_as(busy, |_| {}, &options);
    until("the one that says so is out", || workers(&harness, &address) == [0, 1]);
    let mut slow = harness.connect();
    slow.send(harness.head("GET /v1/slow", ""));
    harness.upstream.wait_for("/v1/slow");
    let failed = || harness.metric(&series("checks_total", &address, "result=\"fail\""));
    let before = failed();
    until("it is asked again", || failed() > before + 2);
    assert_eq!(workers(&harness, &address), [0, 1], "and stays out while it is not well");
    is_well.store(true, Ordering::SeqCst);
    until("it is back", || workers(&harness, &address) == [1, 0]);
    assert_eq!(harness.in_flight(), 1, "all the while");
}

/// Each answers once all are being asked: whoever asks one after the other never gets an answer in time.
#[test]
fn one_that_takes_its_time_keeps_no_other_from_being_asked() {
    let all = Arc::new(Barrier::new(3));
    let endpoints = [(); 3].map(|()| {
        let all = Arc::clone(&all);
        Upstream::start(move |upstream| {
            upstream.read_until("\r\n\r\n");
            all.wait();
            upstream.write(OK);
            upstream.wait_until_closed();
        })
    });
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address.to_string());
    let urls = addresses.each_ref().map(|address| format!("http://{address}")).to_vec();
    let [first, ..] = endpoints;
    let options = Options { endpoints: urls, upstream: CHECK, workers: 1, ..Options::default() };
    let harness = start_as(first, |_| {}, &options);
    let count = |result: &str| {
        let more = format!("result=\"{result}\"");
        addresses.each_ref().map(|address| harness.metric(&series("checks_total", address, &more)))
    };
    until("each is asked, and answers", || count("pass").iter().all(|passed| *passed > 0));
    assert_eq!(count("fail"), [0; 3]);
}
