//! The data listener with TLS: certificates from files, a real curl, and files that are replaced while the gateway runs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use leastgate_testkit::authority::{Authority, params};
use leastgate_testkit::curl::{Fetched, curl};
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::Setup;
use rcgen::SanType;
use rustix::process::Signal;

use crate::fixtures::Orders;

const SPIFFE: &str = "spiffe://example.org/ns/web/sa/shop";

/// `NAME.pem` and `NAME.key`, for `orders.test` and for a client; gives the key.
fn sign(authority: &Authority, folder: &Path, name: &str, year: i32) -> String {
    let mut params = params(&["orders.test"], year);
    params.subject_alt_names.push(SanType::URI(SPIFFE.try_into().unwrap()));
    let signed = authority.sign(&params);
    signed.write(folder, name);
    signed.key
}

fn fetch(orders: &Orders, ca: &str, more: &[&str]) -> Fetched {
    let to = format!("::{}", orders.gateway.data());
    let (ca, bearer) = (orders.gateway.path().join(ca), orders.reader().header());
    let url = "https://orders.test/v1/orders";
    let common = ["--connect-to", &to, "--cacert", ca.to_str().unwrap(), "-H", &bearer, url];
    curl(&[&common[..], more].concat())
}

#[test]
fn certificates_come_from_files_and_are_replaced_while_it_runs() {
    let (first, second) = (Authority::new("one"), Authority::new("another"));
    let mut keys = Vec::new();
    let mut orders = Orders::start_with(|setup| {
        keys.push(sign(&first, setup.path(), "web", 2040));
        first.write(setup.path(), "first.pem");
        second.write(setup.path(), "second.pem");
        setup.data_tls("cert: web.pem, key: web.key")
    });
    let folder = orders.gateway.path().to_owned();
    let status = |orders: &Orders, ca: &str| fetch(orders, ca, &[]).status;
    assert_eq!((status(&orders, "first.pem"), status(&orders, "second.pem")), (200, 0));
    let ends = |orders: &Orders| {
        orders.gateway.metrics().sum("leastgate_tls_certificate_expiry_timestamp_seconds", &["web.pem"])
    };
    assert_eq!(ends(&orders), 2_208_988_800.0, "2040-01-01");

    keys.push(sign(&second, &folder, "web", 2041));
    until_true("the new certificate", Duration::from_secs(5), || status(&orders, "second.pem") == 200);
    assert_eq!((ends(&orders), status(&orders, "first.pem")), (2_240_611_200.0, 0), "2041-01-01");

    let complaints = |orders: &Orders| {
        orders.gateway.stderr().lines().filter(|line| line.contains("certificates not replaced")).count()
    };
    fs::write(folder.join("web.pem"), "no certificate\n").unwrap();
    until_true("the complaint", PATIENCE, || complaints(&orders) == 1);
    assert_eq!(status(&orders, "second.pem"), 200, "what was in force stays");
    orders.gateway.process().signal(Signal::HUP);
    until_true("whoever asks is told again", PATIENCE, || complaints(&orders) == 2);
    assert!(orders.gateway.stderr().contains("web.pem holds no certificate"), "{}", orders.gateway.stderr());
    for operation in ["certificates.loaded", "certificates.refused"] {
        until_true(operation, PATIENCE, || {
            orders.gateway.events().iter().any(|event| event["change"].to_string().contains(operation))
        });
    }

    let key_lines: Vec<&str> =
        keys.iter().flat_map(|key| key.lines().filter(|line| !line.starts_with("---"))).collect();
    for (name, bytes) in orders.gateway.written().into_iter().filter(|(name, _)| !name.ends_with(".key")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!key_lines.iter().any(|line| text.contains(line)), "{name} holds a private key");
    }
}

#[test]
fn clients_show_a_certificate_where_one_is_demanded_and_are_on_record_by_it() {
    let (servers, clients) = (Authority::new("one"), Authority::new("another"));
    let orders = Orders::start_with(|setup| {
        sign(&servers, setup.path(), "web", 2040);
        sign(&clients, setup.path(), "shop", 2040);
        servers.write(setup.path(), "servers.pem");
        clients.write(setup.path(), "clients.pem");
        setup.data_tls("cert: web.pem, key: web.key, client_ca: clients.pem")
    });
    let file = |name: &str| orders.gateway.path().join(name).display().to_string();
    assert_eq!(fetch(&orders, "servers.pem", &[]).status, 0);
    let own = fetch(&orders, "servers.pem", &["--cert", &file("shop.pem"), "--key", &file("shop.key")]);
    assert_eq!((own.status, own.head.starts_with("HTTP/2 ")), (200, true), "{}", own.head);
    let events = orders.gateway.wait_decisions("the one that was let in", 1, |_| true);
    assert_eq!(events[0]["source"]["peer_san"], serde_json::json!([SPIFFE]));
    let all = orders.gateway.decisions();
    assert_eq!(all.len(), 1, "a handshake that fails is no request: {all:?}");
    for file in ["web.pem", "clients.pem"] {
        let ends = orders.gateway.metrics().sum("leastgate_tls_certificate_expiry_timestamp_seconds", &[file]);
        assert_eq!(ends, 2_208_988_800.0, "{file}: 2040-01-01");
    }
    let failures = |reason: &str| {
        orders.gateway.metrics().sum("leastgate_tls_handshake_failures_total", &[&format!("reason=\"{reason}\"")])
    };
    until_true("the count", PATIENCE, || failures("no_certificate") == 1.0);
}

#[test]
fn a_start_without_its_certificates_says_which_and_where() {
    let setup = Setup::new(leastgate_testkit::policies::ORDERS).upstream("orders", "http://127.0.0.1:9");
    let ended = setup.data_tls("cert: nowhere.pem, key: web.key").start_failing();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for part in ["nowhere.pem can't be opened", "leastgate.yaml:", "relative to the file"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn a_client_that_never_shakes_hands_is_closed_at_the_deadline_that_is_set() {
    const DEADLINE: Duration = Duration::from_millis(300);
    let authority = Authority::new("authority");
    let orders = Orders::start_with(|setup| {
        sign(&authority, setup.path(), "web", 2040);
        setup.data_tls("cert: web.pem, key: web.key").limit("tls_handshake: 300ms")
    });
    let connecting = Instant::now();
    let mut client = orders.gateway.client();
    // The usual deadline is 5 seconds.
    client.expect_close(Duration::from_secs(3)).unwrap();
    assert!(connecting.elapsed() >= DEADLINE, "{:?}", connecting.elapsed());
    until_true("the count", PATIENCE, || {
        orders.gateway.metrics().sum("leastgate_tls_handshake_failures_total", &["reason=\"timeout\""]) == 1.0
    });
    assert!(orders.gateway.decisions().is_empty(), "a handshake that fails is no request");
}
