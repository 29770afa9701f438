//! WebSockets that are open: the bytes both ways, and what ends them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_policy::TokenState;
use leastgate_proxy::tls::ServerTls;
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::certificates::Authority;
use crate::handshakes::{Rustls, plain_set};
use crate::harness::{Options, POLICY, Upstream, put_policy_in_force, start_as, start_with};
use crate::websocket::{SWITCH, assert_echoes, echo, handshake, harness, open, policy};

/// "Going away", as a server says it, read as text.
fn going_away() -> String {
    String::from_utf8_lossy(&[0x88, 2, 3, 0xe9]).into_owned()
}

/// "Policy violation".
fn violation() -> String {
    String::from_utf8_lossy(&[0x88, 2, 3, 0xf0]).into_owned()
}

#[test]
fn a_tunnel_has_an_open_record_from_its_beginning() {
    let harness = harness(echo);
    let mut client = open(&harness);
    assert_echoes(&mut client);
    // Any request that lasts has one after ten seconds.
    let started = Instant::now();
    assert!(harness.kind("stream", 1)[0].contains("\"state\":\"open\""));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn bytes_go_both_ways_at_once_however_slowly_they_are_taken() {
    const LENGTH: usize = 4 << 20;
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        let bytes = upstream.read_exactly(LENGTH);
        upstream.write_bytes(&bytes);
        upstream.wait_until_closed();
    });
    let mut client = open(&harness);
    let bytes: Vec<u8> = (b'a'..=b'w').cycle().take(LENGTH).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    assert!(client.exactly(LENGTH).into_bytes() == bytes);
    writing.join().unwrap();
}

#[test]
fn a_revoked_token_ends_its_tunnel() {
    let harness = harness(|upstream| {
        echo(upstream);
        upstream.close("[closed]");
    });
    let mut client = open(&harness);
    assert_echoes(&mut client);
    thread::sleep(Duration::from_millis(100));
    harness.authority.set_state(&harness.digest, TokenState::Revoked);
    assert_eq!(client.exactly(4), violation());
    client.send([0x88, 0x80, 0, 0, 0, 0]);
    assert!(client.is_closed());
    harness.upstream.wait_for("[closed]");
    let event = harness.events(1).remove(0);
    assert!(event.contains("token_revoked") && event.contains("\"scope_granted\""), "{event}");
    assert!(event.contains("\"error\":\"cut\"") && event.contains("\"status\":101"), "{event}");
}

#[test]
fn a_policy_without_its_rule_ends_a_tunnel_and_one_with_it_does_not() {
    let harness = harness(echo);
    let mut client = open(&harness);
    assert_echoes(&mut client);
    put_policy_in_force(&harness.authority, &harness.telemetry, &policy().replace("\"GET /v1/**\", ", ""));
    thread::sleep(Duration::from_millis(200));
    assert_echoes(&mut client);
    put_policy_in_force(&harness.authority, &harness.telemetry, POLICY);
    assert_eq!(client.rest(), violation());
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed() {
    let harness =
        start_with(Upstream::start(echo), |limits| limits.stream_idle = Duration::from_millis(400), Some(&policy()));
    let started = Instant::now();
    let mut client = open(&harness);
    while started.elapsed() < Duration::from_millis(800) {
        assert_echoes(&mut client);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(client.is_closed());
    assert!(started.elapsed() > Duration::from_millis(1100), "{:?}", started.elapsed());
    assert!(harness.events(1)[0].contains("\"error\":\"idle\""));
}

#[test]
fn a_client_that_has_said_all_still_hears_the_upstream_out() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        while upstream.read_some().is_some() {}
        // Longer than it takes to notice that a client is gone.
        thread::sleep(Duration::from_millis(2500));
        upstream.write("the last word");
    });
    let mut client = open(&harness);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "the last word");
}

#[test]
fn a_client_that_is_gone_takes_its_tunnel_along() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        // It says nothing, and never ends by itself.
        while upstream.read_some().is_some() {}
        thread::sleep(Duration::from_secs(3600));
    });
    drop(open(&harness));
    let started = Instant::now();
    assert_eq!(harness.events(1).len(), 1);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(harness.in_flight(), 0);
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        upstream.write_bytes(&vec![b'a'; 64 << 20]);
        upstream.close("[closed]");
    });
    let _client = open(&harness);
    let started = Instant::now();
    assert!(harness.events(1)[0].contains("\"error\":\"broken_off\""));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    harness.upstream.wait_for("[closed]");
}

#[test]
fn an_upstream_that_ends_ends_the_tunnel_behind_its_last_byte() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(&format!("{SWITCH}{}", "a".repeat(100_000)));
    });
    let mut client = open(&harness);
    assert_eq!(client.rest().len(), 100_000);
    assert!(!harness.events(1)[0].contains("\"error\""));
}

#[test]
fn a_drain_says_good_bye_to_both_sides() {
    let mut harness = harness(|upstream| {
        echo(upstream);
        upstream.close("[closed]");
    });
    let mut client = open(&harness);
    assert_echoes(&mut client);
    let plane = harness.plane.take().unwrap();
    let started = Instant::now();
    let drain = thread::spawn(move || plane.drain(Duration::from_secs(15), &|| false));
    assert_eq!(client.exactly(4), going_away());
    client.send([0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]);
    assert!(client.is_closed());
    assert_eq!(drain.join().unwrap(), 0, "none had to be cut");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    harness.upstream.wait_for("[closed]");
    let received = harness.upstream.all();
    let (_, said) = received.split_once("ping").unwrap();
    assert!(said.starts_with(&*String::from_utf8_lossy(&[0x88, 0x82])), "{said:?}");
    assert!(!harness.events(1)[0].contains("\"error\""));
}

#[test]
fn a_drain_breaks_into_no_frame() {
    let mut harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        upstream.write_bytes(&[0x81, 4, b'h', b'a']);
        thread::sleep(Duration::from_millis(500));
        upstream.write_bytes(b"lf\x81\x04more");
        upstream.wait_until_closed();
    });
    let mut client = open(&harness);
    client.read_to("ha");
    let plane = harness.plane.take().unwrap();
    let drain = thread::spawn(move || plane.drain(Duration::from_secs(15), &|| false));
    assert_eq!(client.exactly(6), format!("lf{}", going_away()));
    drop(client);
    drain.join().unwrap();
}

#[test]
fn a_tunnel_that_does_not_end_is_cut_with_the_drain() {
    let mut harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        upstream.write_bytes(&[0x81, 4, b'h', b'a']);
        upstream.wait_until_closed();
    });
    let mut client = open(&harness);
    client.read_to("ha");
    assert_eq!(harness.plane.take().unwrap().drain(Duration::from_millis(200), &|| false), 1);
    assert!(client.is_closed());
    assert_eq!(harness.events(1).len(), 1);
}

#[test]
fn a_tunnel_takes_one_of_its_upstreams_connections() {
    let harness = start_as(
        Upstream::start(echo),
        |_| {},
        &Options {
            policy: Some(&policy()),
            upstream: "max_connections: 1, connect_timeout: 200ms, response_timeout: 1s",
            workers: 1,
            ..Options::default()
        },
    );
    let mut first = open(&harness);
    assert_echoes(&mut first);
    let full = harness.ask(handshake(&harness, "/feed", ""));
    assert_eq!(full.status, 503, "{}", full.head);
    first.stream.shutdown(Shutdown::Write).unwrap();
    assert!(first.is_closed());
    harness.events(2);
    assert_echoes(&mut open(&harness));
}

#[test]
fn a_tunnel_goes_through_tls() {
    let authority = Authority::new("servers");
    let policy = policy();
    let tls = Some(ServerTls::new(&plain_set(&authority, &["orders.internal"])).unwrap());
    let options = Options { policy: Some(&policy), tls, ..Options::default() };
    let mut harness = start_as(Upstream::start(echo), |_| {}, &options);
    let client = Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &["http/1.1"], None);
    let name = ServerName::try_from("orders.internal").unwrap();
    let connection = ClientConnection::new(Arc::clone(&client.0), name).unwrap();
    let mut stream = StreamOwned::new(connection, harness.connect().stream);
    stream.write_all((handshake(&harness, "/feed", "") + "\u{1}\u{5}early").as_bytes()).unwrap();
    let mut received = String::new();
    while !received.ends_with("\u{1}\u{5}early") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{received}");
        received.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    assert!(received.starts_with("HTTP/1.1 101 "), "{received}");
    let plane = harness.plane.take().unwrap();
    let drain = thread::spawn(move || plane.drain(Duration::from_secs(15), &|| false));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a close that TLS can tell from a cut");
    assert_eq!(rest, [0x88, 2, 3, 0xe9]);
    drop(stream);
    assert_eq!(drain.join().unwrap(), 0);
}
