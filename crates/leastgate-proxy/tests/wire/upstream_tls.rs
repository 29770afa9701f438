//! TLS towards upstreams: who they must prove to be, who the gateway is to them, and which protocol both agree on.

use std::time::{Duration, Instant};

use leastgate_proxy::{Trust, UpstreamTls};

use crate::certificates::{Authority, pem};
use crate::harness::{Connection, Harness, Upstream};
use crate::secure::{Secure, ask, before};

fn trusting(authority: &Authority) -> UpstreamTls {
    UpstreamTls::new(Trust::File(&pem("ca.pem", &authority.pem())), None).unwrap()
}

/// The name asked for by SNI, and whether a certificate was shown.
fn met(upstream: &Secure) -> Vec<(Option<String>, bool)> {
    upstream.met().into_iter().map(|met| (met.name, met.shown.is_some())).collect()
}

fn connect_errors(harness: &Harness) -> u64 {
    harness.metric("leastgate_upstream_connect_errors_total{error=\"tls\",upstream=\"up\"}")
}

#[test]
fn an_upstream_must_prove_its_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let right = ours.issue(&["localhost"]);
    for (shown, trusted, name, is_let_in) in [
        (&right, &ours, None, true),
        (&right, &theirs, None, false),
        (&right, &ours, Some("other.internal"), false),
        (&ours.issue(&["up.internal"]), &ours, None, false),
        (&ours.issue(&["up.internal"]), &ours, Some("up.internal"), true),
        (&ours.issue_expired(&["localhost"]), &ours, None, false),
    ] {
        let upstream = Secure::start(shown, None, &[]);
        let tls = trusting(trusted);
        let tls = name.map_or_else(|| tls.clone(), |name| tls.clone().with_name(name).unwrap());
        let harness = before("localhost", upstream.port, tls, "response_timeout: 5s");
        let (status, body) = ask(&harness);
        if is_let_in {
            assert_eq!((status, body.as_str()), (200, "http1"));
            assert_eq!(met(&upstream), [(Some(name.unwrap_or("localhost").to_owned()), false)]);
        } else {
            assert_eq!(status, 503, "{name:?}");
            assert!(body.contains("urn:leastgate:problem:upstream-unreachable"), "{body}");
            harness.events(1);
            assert_eq!(connect_errors(&harness), 1);
        }
    }
}

/// RFC 5280 §6.1.1 (d): of an authority that is trusted as such only its name and key count. Its end is told, not obeyed.
#[test]
fn an_authority_is_trusted_past_its_end() {
    let authority = Authority::expired("ours");
    let upstream = Secure::start(&authority.issue(&["localhost"]), None, &[]);
    let tls = trusting(&authority);
    assert_eq!(tls.certificates().authorities.and_then(|view| view.expires).map(|end| end.0), Some(1_577_836_800));
    assert_eq!(ask(&before("localhost", upstream.port, tls, "response_timeout: 5s")).0, 200);
}

#[test]
fn an_address_can_be_a_name() {
    let authority = Authority::new("ours");
    let upstream = Secure::start(&authority.issue(&["127.0.0.1"]), None, &[]);
    let harness = before("127.0.0.1", upstream.port, trusting(&authority), "response_timeout: 5s");
    assert_eq!(ask(&harness).0, 200);
}

#[test]
fn the_gateway_shows_its_certificate_where_it_is_asked_for_one() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Secure::start(&servers.issue(&["localhost"]), Some(&clients), &[]);
    let ca = pem("ca.pem", &servers.pem());
    let identity = clients.issue(&["gateway.internal"]).pair("gateway");
    let with = UpstreamTls::new(Trust::File(&ca), Some(&identity)).unwrap();
    assert_eq!(ask(&before("localhost", upstream.port, with, "response_timeout: 5s")).0, 200);
    assert_eq!(met(&upstream), [(Some("localhost".to_owned()), true)]);
    let without = UpstreamTls::new(Trust::File(&ca), None).unwrap();
    let status = ask(&before("localhost", upstream.port, without, "response_timeout: 5s")).0;
    assert!(matches!(status, 502 | 503), "{status}: in TLS 1.3 the refusal comes after the handshake");
}

#[test]
fn a_key_that_is_not_the_certificates_is_found_at_once() {
    let authority = Authority::new("ours");
    let mut mixed = authority.issue(&["a"]);
    mixed.key = authority.issue(&["b"]).key;
    let ca = pem("ca.pem", &authority.pem());
    let error = UpstreamTls::new(Trust::File(&ca), Some(&mixed.pair("gateway"))).unwrap_err().to_string();
    assert!(error.contains("gateway.key") && error.contains("gateway.pem"), "{error}");
}

#[test]
fn both_agree_on_a_protocol() {
    let authority = Authority::new("ours");
    let shown = authority.issue(&["localhost"]);
    for (alpn, keys, body) in [
        (&["h2", "http/1.1"][..], "http2: true", "http2 https"),
        (&["http/1.1"], "http2: true", "http1"),
        (&[], "http2: true", "http1"),
        (&["h2", "http/1.1"], "http2: false", "http1"),
    ] {
        let upstream = Secure::start(&shown, None, alpn);
        let keys = format!("{keys}, response_timeout: 5s");
        let harness = before("localhost", upstream.port, trusting(&authority), &keys);
        for _ in 0..3 {
            let (status, answer) = ask(&harness);
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains(body), "{alpn:?}, {keys}: {answer}");
        }
        assert_eq!(upstream.met().len(), 1, "one connection serves them all");
    }
}

#[test]
fn an_upstream_that_never_shakes_hands_is_a_503_in_time() {
    let authority = Authority::new("ours");
    let silent = Upstream::start(|upstream: &mut Connection| upstream.wait_until_closed());
    let keys = "connect_timeout: 300ms, response_timeout: 20s";
    let harness = before("127.0.0.1", silent.address.port(), trusting(&authority), keys);
    let started = Instant::now();
    assert_eq!(ask(&harness).0, 503);
    assert!((300..3000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn plain_http_is_no_tls() {
    let authority = Authority::new("ours");
    let plain = Upstream::start(|upstream: &mut Connection| upstream.answer_all(crate::harness::OK));
    let harness = before("127.0.0.1", plain.address.port(), trusting(&authority), "connect_timeout: 500ms");
    assert_eq!(ask(&harness).0, 503);
    assert!(!plain.all().contains("GET"), "nothing was said in plain text");
}
