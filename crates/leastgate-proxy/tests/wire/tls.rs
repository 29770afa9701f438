//! TLS towards clients: versions, protocols, names, client certificates, replacement, deadlines, resumption. Clients are
//! rustls, OpenSSL and curl.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use leastgate_proxy::tls::{CertificateSet, HandshakeError, ServerTls, TlsError};
use leastgate_telemetry::HandshakeFailure;
use rustls::{AlertDescription, HandshakeKind, version};

use crate::certificates::{Authority, Files, now};
use crate::handshakes::{Rustls, Server, Stream, exchange, mutual_set, plain_set, run};

const SPIFFE: &str = "spiffe://example.org/ns/web/sa/shop";

fn alert(result: Result<(Stream, String), std::io::Error>) -> AlertDescription {
    let error = result.map(|(_, told)| told).unwrap_err();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

#[test]
fn both_versions_and_both_protocols_are_spoken_and_h2_is_preferred() {
    let authority = Authority::new("servers");
    let server = Server::start(&plain_set(&authority, &["a.test"]));
    for version in [&version::TLS12, &version::TLS13] {
        for (offered, agreed) in [
            (&["http/1.1", "h2"][..], "Http2"),
            (&["http/1.1"], "Http1"),
            (&["http/1.0", "http/1.1"], "Http1"),
            (&[], "None"),
        ] {
            let client = Rustls::new(authority.roots(), &[version], offered, None);
            let (stream, told) = client.ask(&server, "a.test").unwrap();
            assert_eq!(told, format!("true a.test {agreed} []"));
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
        }
        let client = Rustls::new(authority.roots(), &[version], &["http/1.0"], None);
        assert_eq!(alert(client.ask(&server, "a.test")), AlertDescription::NoApplicationProtocol);
        assert_eq!(server.failure().failure(), HandshakeFailure::Incompatible);
    }
}

#[test]
fn openssl_agrees_on_versions_and_protocols() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let server = Server::start(&plain_set(&authority, &["a.test"]));
    let (ca, address) = (files.write("ca.pem", &authority.pem()), server.address.to_string());
    let ask = |more: &[&str]| {
        let ca = ca.to_str().unwrap();
        let common = ["s_client", "-connect", &address, "-CAfile", ca, "-verify_return_error", "-servername", "a.test"];
        run("openssl", &[&common, more].concat(), "GET / HTTP/1.1\n")
    };
    for (version, named) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (offered, agreed) in [("http/1.1,h2", "ALPN protocol: h2"), ("http/1.1", "ALPN protocol: http/1.1")] {
            let (is_ok, text) = ask(&[version, "-alpn", offered, "-verify_hostname", "a.test"]);
            assert!(is_ok && text.contains(agreed) && text.contains(&format!("New, {named}")), "{text}");
        }
    }
    for version in ["-tls1_1", "-tls1"] {
        // OpenSSL speaks these at its lowest level only.
        let (is_ok, text) = ask(&[version, "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(!is_ok && text.contains("SSL alert number"), "{text}");
        assert_eq!(server.failure().failure(), HandshakeFailure::Incompatible);
    }
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_was_asked_for() {
    let authority = Authority::new("servers");
    let named = |names: &[&str]| authority.issue(names);
    let (default, wild, exact) =
        (named(&["gateway.test"]), named(&["*.apis.test"]), named(&["x.apis.test", "other.test"]));
    let by_name = vec![wild.pair("wild"), exact.pair("exact")];
    let server = Server::start(&CertificateSet { default: default.pair("default"), by_name, client_ca: None });
    let client = Rustls::trusting(&authority);
    for (name, shown) in
        [("x.apis.test", &exact), ("other.test", &exact), ("y.apis.test", &wild), ("gateway.test", &default)]
    {
        let (stream, told) = client.ask(&server, name).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap(), shown.chain(), "{name}");
        assert_eq!(told, format!("true {name} None []"));
    }
    let address = server.address.to_string();
    for sni in [&["-noservername"][..], &["-servername", "unknown.test"], &["-servername", "a.y.apis.test"]] {
        let (_, text) = run("openssl", &[&["s_client", "-connect", &address], sni].concat(), "");
        assert!(text.contains("CN = gateway.test"), "{sni:?}: {text}");
    }
}

#[test]
fn a_client_certificate_is_demanded_verified_and_names_the_client() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = Server::start(&mutual_set(&authority, &clients));
    let (own, expired) = (clients.issue(&["shop.test", SPIFFE]), clients.issue_expired(&[SPIFFE]));
    let stranger = Authority::new("clients").issue(&[SPIFFE]);
    for version in [&version::TLS12, &version::TLS13] {
        let ask = |own| Rustls::new(authority.roots(), &[version], &["http/1.1"], own).ask(&server, "a.test");
        assert_eq!(ask(Some(&own)).unwrap().1, format!("true a.test Http1 [{SPIFFE:?}]"));
        let none = alert(ask(None));
        let missing = [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
        assert!(missing.contains(&none), "{none:?}");
        assert!(matches!(server.failure(), HandshakeError::NoCertificate));
        for other in [&stranger, &expired] {
            alert(ask(Some(other)));
            assert!(matches!(server.failure(), HandshakeError::BadCertificate(_)));
        }
    }
}

#[test]
fn curl_is_let_in_with_its_certificate_and_told_why_without() {
    let (authority, clients, files) = (Authority::new("servers"), Authority::new("clients"), Files::new());
    let server = Server::start(&mutual_set(&authority, &clients));
    let own = clients.issue(&[SPIFFE]);
    let path = |name: &str, text: &str| files.write(name, text).display().to_string();
    let (ca, other_ca) = (path("ca.pem", &authority.pem()), path("other.pem", &clients.pem()));
    let (cert, key) = (path("cert.pem", &own.cert), path("key.pem", &own.key));
    let (port, resolve) = (server.address.port(), format!("a.test:{}:127.0.0.1", server.address.port()));
    let url = format!("https://a.test:{port}/");
    let curl = |more: &[&str]| {
        let common = ["-sS", "--http1.1", "--max-time", "20", "--noproxy", "*", "--resolve", &resolve, &url];
        run("curl", &[&common, more].concat(), "")
    };
    let (is_ok, text) = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert!(is_ok && text.ends_with(&format!("true a.test Http1 [{SPIFFE:?}]")), "{text}");
    let (is_ok, text) = curl(&["--cacert", &ca]);
    assert!(!is_ok && text.contains("alert"), "{text}");
    assert!(matches!(server.failure(), HandshakeError::NoCertificate));
    let (is_ok, text) = curl(&["--cacert", &other_ca, "--cert", &cert, "--key", &key]);
    assert!(!is_ok && text.contains("certificate"), "{text}");
    assert!(matches!(server.failure(), HandshakeError::Refused(AlertDescription::UnknownCA)));
}

#[test]
fn certificates_are_replaced_under_open_connections_and_by_nothing_that_is_broken() {
    let authority = Authority::new("servers");
    let server = Server::start(&plain_set(&authority, &["a.test"]));
    let client = Rustls::trusting(&authority);
    let (mut open, _) = client.ask(&server, "a.test").unwrap();
    let old = open.conn.peer_certificates().unwrap().to_vec();
    let fresh = authority.issue(&["a.test"]);
    let set = CertificateSet { default: fresh.pair("fresh"), ..plain_set(&authority, &["a.test"]) };
    server.tls.replace(&set, now()).unwrap();
    let shown = || client.ask(&server, "a.test").unwrap().0.conn.peer_certificates().unwrap().to_vec();
    assert_eq!(shown(), fresh.chain());
    assert_eq!(exchange(&mut open).unwrap(), "true a.test None []", "what was open stays");
    assert_eq!(open.conn.peer_certificates().unwrap(), old);

    let mut mixed = set.clone();
    mixed.default.key = authority.issue(&["a.test"]).pair("other").key;
    let expired = CertificateSet { default: authority.issue_expired(&["a.test"]).pair("old"), ..set };
    for (broken, told) in [(&mixed, "does not belong to"), (&expired, "old.pem has expired")] {
        let error = server.tls.replace(broken, now()).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(shown(), fresh.chain());
    }
    assert!(matches!(ServerTls::new(&mixed).unwrap_err(), TlsError::NotAPair { .. }));
    let views = server.tls.certificates().shown;
    assert_eq!((views[0].origin.as_str(), views[0].names.as_slice()), ("fresh.pem", &["a.test".to_owned()][..]));
    assert!(!format!("{:?}{set:?}", server.tls, set = expired).contains("PRIVATE"));
}

#[test]
fn a_handshake_that_is_not_finished_in_time_is_ended() {
    const DEADLINE: Duration = Duration::from_millis(700);
    let authority = Authority::new("servers");
    let tls = ServerTls::new(&plain_set(&authority, &["a.test"])).unwrap().with_deadline(DEADLINE);
    let server = Server::with(tls);
    // The head of a record that holds a ClientHello, and the first bytes of that.
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for sent in [&[][..], &hello[..1], &hello] {
        // Before there is a connection: the deadline counts from its accept.
        let started = Instant::now();
        let mut client = server.connect();
        client.write_all(sent).unwrap();
        let ended = client.read(&mut [0; 64]);
        assert!(
            matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
        assert!((DEADLINE..DEADLINE * 4).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert!(matches!(server.failure(), HandshakeError::TimedOut));
    }
    // One byte at a time renews nothing.
    let started = Instant::now();
    let mut client = server.connect();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for byte in hello.into_iter().chain(std::iter::repeat(0)) {
        let is_open = client.write_all(&[byte]).is_ok();
        let ended = client.read(&mut [0; 64]);
        if !is_open || !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            break;
        }
        assert!(started.elapsed() < DEADLINE * 4, "still open");
    }
    assert!(started.elapsed() >= DEADLINE);
    assert!(matches!(server.failure(), HandshakeError::TimedOut));
}

#[test]
fn a_client_that_does_not_speak_tls_is_known_as_such() {
    let authority = Authority::new("servers");
    let server = Server::start(&plain_set(&authority, &["a.test"]));
    let mut client = server.connect();
    // More than is looked at: what lies unread at a close would be answered with a reset, ahead of the alert.
    client.write_all(format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(32 * 1024)).as_bytes()).unwrap();
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).expect("an end without a reset");
    assert_eq!(sent.first(), Some(&0x15), "an alert and no more: {sent:?}");
    assert!(matches!(server.failure(), HandshakeError::NotTls));
    drop(server.connect());
    assert!(matches!(server.failure(), HandshakeError::Gone(_)));
}

#[test]
fn sessions_are_resumed_without_early_data_but_never_past_a_client_certificate() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let own = clients.issue(&[SPIFFE]);
    for version in [&version::TLS12, &version::TLS13] {
        let kinds = |server: &Server| {
            let client = Rustls::new(authority.roots(), &[version], &[], Some(&own));
            let kind = |_| client.ask(server, "a.test").unwrap().0.conn.handshake_kind().unwrap();
            [0, 1].map(kind)
        };
        let server = Server::start(&plain_set(&authority, &["a.test"]));
        assert_eq!(kinds(&server), [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
        tickets_end_with_their_certificates(&authority, version);
        let mutual = mutual_set(&authority, &clients);
        server.tls.replace(&mutual, now()).unwrap();
        assert_eq!(kinds(&server), [HandshakeKind::Full, HandshakeKind::Full], "{version:?}");
    }
}

fn tickets_end_with_their_certificates(authority: &Authority, version: &'static rustls::SupportedProtocolVersion) {
    let set = plain_set(authority, &["a.test"]);
    let server = Server::start(&set);
    let client = Rustls::new(authority.roots(), &[version], &[], None);
    let kind = || client.ask(&server, "a.test").unwrap().0.conn.handshake_kind().unwrap();
    assert_eq!(kind(), HandshakeKind::Full);
    server.tls.replace(&set, now()).unwrap();
    assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}: the same again takes no ticket away");
    let fresh = authority.issue(&["a.test"]).pair("default");
    server.tls.replace(&CertificateSet { default: fresh, ..set }, now()).unwrap();
    assert_eq!(kind(), HandshakeKind::Full, "{version:?}");
}
