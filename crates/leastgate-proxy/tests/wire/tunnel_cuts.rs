//! WebSockets whose request is refused after all: the client is told 1008, the upstream that its client leaves, and from the
//! decision on not one more byte is carried.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_policy::TokenState;

use crate::harness::{Client, Connection, Harness, PATIENCE};
use crate::websocket::{SWITCH, assert_echoes, echo, harness, open};

/// Close frames (RFC 6455 §5.5.1): that of the gateway, 1008, and a client's, masked with zeros.
const VIOLATION: [u8; 4] = [0x88, 2, 0x03, 0xf0];
const GOOD_BYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf0];

/// How long the gateway tries to say it, and as much again for a machine that is busy.
const SAYING: Duration = Duration::from_millis(2000);

/// The header of a frame of 1 GiB from a server, and from a client.
const ENDLESS: [u8; 10] = [0x82, 127, 0, 0, 0, 0, 0x40, 0, 0, 0];
const ENDLESS_MASKED: [u8; 14] = [0x82, 255, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];

/// What the upstream got behind the handshake, byte for byte.
type Got = Arc<Mutex<Vec<u8>>>;

/// An upstream that does this behind its handshake, then keeps what comes until the end.
fn keeping(then: impl Fn(&mut Connection) + Send + Sync + 'static) -> (Harness, Got) {
    let got = Got::default();
    let kept = Arc::clone(&got);
    let harness = harness(move |upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        then(upstream);
        while let Some(bytes) = upstream.read_some() {
            kept.lock().unwrap().extend(bytes);
        }
        upstream.close("[closed]");
    });
    (harness, got)
}

fn revoke(harness: &Harness) {
    harness.authority.set_state(&harness.digest, TokenState::Revoked);
}

/// Decides everything again, and waits until that is done.
fn review(harness: &Harness) {
    harness.authority.ask_for_review();
    let started = Instant::now();
    while !harness.authority.is_reviewed(harness.authority.changes()) {
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads to the end, which may be a reset.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(read) => all.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("no end: {error}"),
        }
    }
}

/// The status of a masked close frame at the end of what an upstream got.
fn status_behind(got: &Got, before: usize) -> u16 {
    let got = got.lock().unwrap();
    let frame = &got[before..];
    assert_eq!((frame.len(), &frame[..2]), (8, &[0x88, 0x82][..]), "{frame:?}");
    u16::from_be_bytes([frame[6] ^ frame[2], frame[7] ^ frame[3]])
}

#[test]
fn the_client_hears_1008_and_the_upstream_that_its_client_leaves() {
    let (harness, got) = keeping(|_| {});
    let mut client = open(&harness);
    client.send([0x81, 0x81, 0, 0, 0, 0, b'x']);
    harness.upstream.wait_for("x");
    revoke(&harness);
    let mut told = [0; 4];
    client.stream.read_exact(&mut told).unwrap();
    assert_eq!(told, VIOLATION);
    client.send(GOOD_BYE);
    assert!(client.is_closed());
    harness.upstream.wait_for("[closed]");
    assert_eq!(status_behind(&got, 7), 1001);
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"error\":\"cut\"") && event.contains("token_revoked"), "{event}");
    assert_eq!(harness.in_flight(), 0);
}

fn expect_cut_in_time(harness: &Harness, client: &mut Client) {
    let started = Instant::now();
    revoke(harness);
    assert_eq!(rest(&mut client.stream), VIOLATION);
    harness.until_in_flight(0);
    assert!(started.elapsed() < SAYING, "{:?}", started.elapsed());
}

#[test]
fn whoever_does_not_answer_is_left_in_time() {
    let (harness, _) = keeping(|_| thread::sleep(SAYING * 2));
    let mut client = open(&harness);
    thread::sleep(Duration::from_millis(100));
    expect_cut_in_time(&harness, &mut client);
}

/// Both sides talk all the time; what they say behind the decision stays behind, and the close is the last of it.
#[test]
fn behind_the_decision_nothing_is_carried_either_way() {
    let (harness, got) = keeping(|upstream| {
        for _ in 0..100 {
            upstream.write_bytes(b"\x81\x04down");
            thread::sleep(Duration::from_millis(2));
        }
    });
    let mut client = open(&harness);
    let mut talking = client.stream.try_clone().unwrap();
    let talk = thread::spawn(move || {
        while talking.write_all(b"\x81\x82\0\0\0\0up").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    thread::sleep(Duration::from_millis(100));
    revoke(&harness);
    review(&harness);
    let said = rest(&mut client.stream);
    let frames = said.strip_suffix(&VIOLATION).expect("the close is the last");
    assert!(frames.len().is_multiple_of(6) && frames.chunks(6).all(|frame| frame == b"\x81\x04down"), "{frames:?}");
    drop(client);
    talk.join().unwrap();
    harness.upstream.wait_for("[closed]");
    let carried = got.lock().unwrap().len() - 8;
    assert_eq!(carried % 8, 0);
    assert_eq!(status_behind(&got, carried), 1001);
}

#[test]
fn in_the_middle_of_a_frame_a_client_is_not_told_and_gets_nothing_more_of_it() {
    let (harness, got) = keeping(|upstream| {
        upstream.write_bytes(&ENDLESS);
        upstream.write_bytes(b"begun");
        // It goes on with it, long behind the decision.
        for _ in 0..40 {
            thread::sleep(Duration::from_millis(20));
            upstream.write_bytes(b"late");
        }
    });
    let mut client = open(&harness);
    client.read_to("begun");
    review(&harness);
    let started = Instant::now();
    revoke(&harness);
    review(&harness);
    let said = rest(&mut client.stream);
    assert!(
        said.len().is_multiple_of(4) && said.chunks(4).all(|part| part == b"late"),
        "no close inside a frame: {said:?}"
    );
    assert!(started.elapsed() < SAYING, "{:?}", started.elapsed());
    harness.upstream.wait_for("[closed]");
    assert_eq!(status_behind(&got, 0), 1001, "its own way stood between two frames");
    harness.until_in_flight(0);
}

#[test]
fn a_client_in_the_middle_of_its_own_frame_is_told_and_the_rest_of_that_reaches_nobody() {
    let (harness, got) = keeping(|_| {});
    let mut client = open(&harness);
    client.send(ENDLESS_MASKED);
    client.send("begun");
    harness.upstream.wait_for("begun");
    let started = Instant::now();
    revoke(&harness);
    review(&harness);
    let mut talking = client.stream.try_clone().unwrap();
    let talk = thread::spawn(move || while talking.write_all(&[b'l'; 4096]).is_ok() {});
    assert_eq!(rest(&mut client.stream), VIOLATION);
    drop(client);
    talk.join().unwrap();
    assert!(started.elapsed() < SAYING, "it would go on for ever: {:?}", started.elapsed());
    harness.upstream.wait_for("[closed]");
    assert_eq!(got.lock().unwrap().len(), ENDLESS_MASKED.len() + 5, "neither more of the frame nor a close inside it");
    harness.until_in_flight(0);
}

/// Its close frame can't be written, however long one waits.
#[test]
fn a_client_that_reads_nothing_is_cut_all_the_same() {
    let (harness, _) = keeping(|upstream| upstream.write_bytes(&[0x81, 1, b'a'].repeat(8 << 20)));
    let client = open(&harness);
    thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    revoke(&harness);
    harness.upstream.wait_for("[closed]");
    harness.until_in_flight(0);
    assert!(started.elapsed() < Duration::from_millis(1800), "before the stall's own end: {:?}", started.elapsed());
    drop(client);
}

#[test]
fn an_upstream_that_reads_nothing_keeps_nobody_from_being_told() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        thread::sleep(SAYING * 3);
    });
    let mut client = open(&harness);
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x'].repeat(1000)).is_ok() {}
    expect_cut_in_time(&harness, &mut client);
}

/// What hears it between its handshake and its answer is told over HTTP.
#[test]
fn a_handshake_that_is_refused_before_its_answer_is_refused_as_http() {
    let harness = harness(|upstream| {
        upstream.read_head();
        thread::sleep(Duration::from_millis(300));
        upstream.write(SWITCH);
        upstream.wait_until_closed();
    });
    let mut client: Client = harness.connect();
    client.send(crate::websocket::handshake(&harness, "/feed", ""));
    harness.upstream.wait_for("/feed");
    revoke(&harness);
    review(&harness);
    assert_eq!(client.reply().status, 401);
}

#[test]
fn a_drain_that_was_said_before_is_not_said_again() {
    let mut harness = harness(echo);
    let mut client = open(&harness);
    assert_echoes(&mut client);
    let plane = harness.plane.take().unwrap();
    let drain = thread::spawn(move || plane.drain(PATIENCE, &|| false));
    let mut first = [0; 4];
    client.stream.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x88, 2, 0x03, 0xe9]);
    revoke(&harness);
    assert_eq!(rest(&mut client.stream), b"", "nothing follows a close");
    drain.join().unwrap();
}
