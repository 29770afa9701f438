//! Files towards an upstream that are replaced while requests are under way: what the next handshake goes by, and what
//! becomes of connections that are there already.

use leastgate_proxy::tls::{KeyPair, TlsError};
use leastgate_proxy::{Trust, UpstreamTls};
use rustls_pki_types::CertificateDer;

use crate::certificates::{Authority, Issued, now, pem};
use crate::harness::Harness;
use crate::secure::{Secure, ask, before};

const BOTH: &[&str] = &["h2", "http/1.1"];
/// In either protocol.
const KEYS: [&str; 2] =
    ["http2: false, response_timeout: 10s", "http2: true, max_connections: 2, response_timeout: 10s"];

fn set(tls: &UpstreamTls, ca: &Authority, identity: Option<&Issued>) {
    let (ca, identity) = (pem("ca.pem", &ca.pem()), identity.map(|issued| issued.pair("gateway")));
    tls.replace(Trust::File(&ca), identity.as_ref(), now()).unwrap();
}

fn tls(ca: &Authority, identity: Option<&Issued>) -> UpstreamTls {
    let identity = identity.map(|issued| issued.pair("gateway"));
    UpstreamTls::new(Trust::File(&pem("ca.pem", &ca.pem())), identity.as_ref()).unwrap()
}

fn shown(upstream: &Secure) -> Vec<CertificateDer<'static>> {
    upstream.met().into_iter().map(|met| met.shown.unwrap()).collect()
}

fn status(harness: &Harness) -> u16 {
    ask(harness).0
}

#[test]
fn an_authority_that_is_gone_vouches_for_nobody_not_even_for_who_is_connected() {
    for keys in KEYS {
        let (first, second) = (Authority::new("first"), Authority::new("second"));
        let upstream = Secure::start(&first.issue(&["localhost"]), None, BOTH);
        let tls = tls(&first, None);
        let harness = before("localhost", upstream.port, tls.clone(), keys);
        assert_eq!([status(&harness), status(&harness)], [200, 200]);
        assert_eq!(upstream.met().len(), 1, "one connection served both");

        set(&tls, &second, None);
        assert_eq!(status(&harness), 503, "{keys}: neither the connection nor its session is of use");
        upstream.wait_until("the idle one is closed", |upstream| upstream.open() == 0);
        assert_eq!(upstream.asked().len(), 2);
        harness.events(3);
        assert_eq!(harness.metric("leastgate_upstream_connect_errors_total{error=\"tls\",upstream=\"up\"}"), 1);

        set(&tls, &first, None);
        assert_eq!(status(&harness), 200, "{keys}: and at once when it is back");
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_request() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let upstream = Secure::start(&first.issue(&["localhost"]), None, BOTH);
    let tls = tls(&first, None);
    let harness = before("localhost", upstream.port, tls.clone(), KEYS[0]);
    assert_eq!(status(&harness), 200);
    set(&tls, &second, None);
    upstream.wait_until("it is closed", |upstream| upstream.open() == 0);
}

#[test]
fn the_gateways_new_certificate_is_shown_and_what_is_under_way_ends_where_it_is() {
    for keys in KEYS {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let upstream = Secure::start(&servers.issue(&["localhost"]), Some(&clients), BOTH);
        let [old, new] = [(); 2].map(|()| clients.issue(&["gateway.internal"]));
        let tls = tls(&servers, Some(&old));
        let harness = before("localhost", upstream.port, tls.clone(), keys);
        assert_eq!(status(&harness), 200);
        let mut slow = harness.connect();
        slow.send(harness.head("GET /v1/slow", ""));
        upstream.wait_until("it is under way", |upstream| upstream.asked().contains(&"/v1/slow".to_owned()));

        set(&tls, &servers, Some(&new));
        assert_eq!([status(&harness), status(&harness)], [200, 200]);
        assert_eq!(shown(&upstream), [old.chain(), new.chain()].concat(), "{keys}");
        assert_eq!(upstream.open(), 2, "one of them has a request under way");
        upstream.answer();
        assert_eq!(slow.reply().status, 200, "{keys}");
        upstream.wait_until("its connection served its last", |upstream| upstream.open() == 1);
        assert_eq!(status(&harness), 200);
        assert_eq!(shown(&upstream).len(), 2);
    }
}

/// The place of a request that is under way is the only one, and what waits behind it was told to wait before the change.
#[test]
fn who_waits_for_a_connection_does_not_get_one_from_before() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let upstream = Secure::start(&first.issue(&["localhost"]), None, &[]);
    let tls = tls(&first, None);
    let keys = "max_connections: 1, connect_timeout: 10s, response_timeout: 10s";
    let harness = before("localhost", upstream.port, tls.clone(), keys);
    let mut slow = harness.connect();
    slow.send(harness.head("GET /v1/slow", ""));
    upstream.wait_until("it is under way", |upstream| upstream.asked().len() == 1);
    let mut waiting = harness.connect();
    waiting.send(harness.head("GET /v1/waiting", ""));
    harness.until_in_flight(2);
    set(&tls, &second, None);
    upstream.answer();
    assert_eq!((slow.reply().status, waiting.reply().status), (200, 503));
    assert_eq!(upstream.asked(), ["/v1/slow"]);
}

/// SIGHUP puts in force what the files hold, new or not.
#[test]
fn the_same_again_keeps_every_connection() {
    for keys in KEYS.map(|keys| keys.replace("max_connections: 2", "max_connections: 1")) {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let upstream = Secure::start(&servers.issue(&["localhost"]), Some(&clients), BOTH);
        let [own, other] = [(); 2].map(|()| clients.issue(&["gateway.internal"]));
        let tls = tls(&servers, Some(&own));
        let harness = before("localhost", upstream.port, tls.clone(), &keys);
        assert_eq!(status(&harness), 200);
        let is_shared = keys.contains("http2: true");
        let mut slow = harness.connect();
        if is_shared {
            slow.send(harness.head("GET /v1/slow", ""));
            upstream.wait_until("it is under way", |upstream| upstream.asked().contains(&"/v1/slow".to_owned()));
        }
        set(&tls, &servers, Some(&own));
        assert_eq!([status(&harness), status(&harness)], [200, 200], "{keys}: there is no room for another connection");
        assert_eq!(upstream.met().len(), 1, "{keys}");

        if is_shared {
            upstream.answer();
            assert_eq!(slow.reply().status, 200);
        }
        set(&tls, &servers, Some(&other));
        assert_eq!(status(&harness), 200);
        assert_eq!(shown(&upstream), [own.chain(), other.chain()].concat(), "{keys}: a new one is a change");
        let (both, identity) = (pem("ca.pem", &[servers.pem(), clients.pem()].concat()), other.pair("gateway"));
        tls.replace(Trust::File(&both), Some(&identity), now()).unwrap();
        assert_eq!((status(&harness), upstream.met().len()), (200, 3), "{keys}: so is one more authority");
        set(&tls, &servers, Some(&other));
        assert_eq!((status(&harness), upstream.met().len()), (200, 4), "{keys}: or one less");
    }
}

#[test]
fn what_is_broken_or_out_of_its_time_replaces_nothing() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Secure::start(&servers.issue(&["localhost"]), Some(&clients), &[]);
    let identity = clients.issue(&["gateway.internal"]);
    let tls = tls(&servers, Some(&identity));
    let harness = before("localhost", upstream.port, tls.clone(), KEYS[0]);
    assert_eq!(status(&harness), 200);
    let (ca, in_force) = (pem("ca.pem", &servers.pem()), tls.certificates());
    assert_eq!(in_force.identity.as_ref().map(|view| view.origin.as_str()), Some("gateway.pem"));
    assert_eq!(in_force.authorities.as_ref().map(|view| view.origin.as_str()), Some("ca.pem"));
    let mut mixed = identity.clone();
    mixed.key = clients.issue(&["a"]).key;
    let expired = clients.issue_expired(&["gateway.internal"]).pair("gateway");
    let error = |identity: &KeyPair| tls.replace(Trust::File(&ca), Some(identity), now()).unwrap_err();
    assert!(matches!(error(&mixed.pair("gateway")), TlsError::NotAPair { .. }));
    assert!(matches!(error(&expired), TlsError::Expired { .. }));
    let nobody = pem("ca.pem", "");
    let error = tls.replace(Trust::File(&nobody), Some(&identity.pair("gateway")), now()).unwrap_err();
    assert!(matches!(error, TlsError::NoCertificate { .. }));
    assert_eq!(tls.certificates(), in_force);
    assert_eq!((status(&harness), upstream.met().len()), (200, 1), "nor does it close anything");
    assert!(!format!("{tls:?}").contains("PRIVATE"));
}
