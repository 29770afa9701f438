//! HTTP/2 from clients that break its rules, leave things half said, or do too much of something.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::http2::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, WINDOW_UPDATE, frame,
};

use crate::harness::{Connection, Harness, OK, PATIENCE, harness, harness_with};
use crate::http2::{answering, canary, connect, head, request};

const INTERNAL_ERROR: u32 = 2;
const ENHANCE_YOUR_CALM: u32 = 11;

const CONNECT: [(&str, &str); 3] =
    [(":method", "CONNECT"), (":authority", "orders.internal:80"), ("content-length", "5")];

/// Its upstream takes its time, so that requests are under way together.
fn answering_in_time() -> Harness {
    harness(|upstream| {
        while upstream.read_until("\r\n\r\n") {
            thread::sleep(Duration::from_millis(500));
            upstream.write(OK);
        }
    })
}

#[test]
fn what_breaks_a_connection_is_on_record_once() {
    for broken in [
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 0, b""),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 40]),
    ] {
        let harness = answering();
        let mut client = connect(&harness, &[]);
        client.send(&broken);
        client.read_to_end();
        assert!(client.goaway.is_some_and(|(_, code)| code != 0), "{broken:?}: {:?}", client.goaway);
        let events = harness.events(1);
        assert!(events.len() == 1 && events[0].contains("request_malformed"), "{broken:?}: {events:?}");
        assert!(harness.upstream.received().is_empty());
    }
}

/// For hyper it is the end of the connection, without a word to anybody.
#[test]
fn a_connect_with_content_ends_its_stream_and_its_connection_gracefully() {
    let harness = answering_in_time();
    let mut client = connect(&harness, &[]);
    let under_way = [0; 2].map(|_| request(&harness, &mut client, "GET", "/v1/slow"));
    harness.until_in_flight(2);
    let stream = client.open(&CONNECT, 0);
    assert_eq!(client.answer(stream).reset, Some(INTERNAL_ERROR));
    for stream in under_way {
        assert_eq!(client.answer(stream).status, 200);
    }
    client.read_to_end();
    assert_eq!(client.goaway, Some((stream, 0)));
    let events = harness.events(3);
    let malformed = events.iter().filter(|event| event.contains("request_malformed")).count();
    assert!(events.len() == 3 && malformed == 1, "{events:?}");
}

/// What is under way would otherwise keep such a connection for as long as it likes.
#[test]
fn many_connects_with_content_end_the_connection_at_once() {
    let harness = harness_with(Connection::wait_until_closed, |limits| limits.http2_error_resets = 3);
    let mut client = connect(&harness, &[]);
    let under_way = request(&harness, &mut client, "GET", "/v1/forever");
    harness.until_in_flight(1);
    let streams = [0; 4].map(|_| client.open(&CONNECT, END_STREAM));
    client.read_to_end();
    assert!(streams.into_iter().chain([under_way]).all(|stream| client.answer(stream).status == 0));
    let events = harness.events(2);
    let malformed = events.iter().filter(|event| event.contains("request_malformed")).count();
    assert!(events.len() == 2 && malformed == 1, "{events:?}");
}

#[test]
fn half_a_preface_has_a_deadline() {
    let harness = harness_with(|_| {}, |limits| limits.head_timeout = Duration::from_millis(300));
    for begins in [&PREFACE[..1], &PREFACE[..16], &PREFACE[..23]] {
        let mut client = Client::silent(harness.connect().stream);
        client.send(begins);
        let started = Instant::now();
        client.read_to_end();
        assert!(started.elapsed() < PATIENCE / 4);
    }
}

/// The connection has ended, of itself or with the word for it, and the gateway serves others.
fn expect_calm(harness: &Harness, client: &mut Client) {
    client.read_to_end();
    assert!(matches!(client.goaway, Some((_, ENHANCE_YOUR_CALM)) | None), "{:?}", client.goaway);
    canary(harness, &mut connect(harness, &[]));
    harness.until_in_flight(0);
}

/// CVE-2023-44487: streams opened and reset before they are served.
#[test]
fn rapid_resets_end_the_connection() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    for _ in 0..2_000 {
        let stream = request(&harness, &mut client, "GET", "/v1/a");
        if !client.send(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())) {
            break;
        }
    }
    expect_calm(&harness, &mut client);
}

/// CVE-2025-8671: the server is made to reset streams that it has begun to serve.
#[test]
fn resets_that_a_client_provokes_end_the_connection() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    for stream in (1..4_000).step_by(2) {
        let block = client.block(&head("GET", "/v1/a", &bearer));
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        let too_wide = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        if !client.send([opened, too_wide].concat()) {
            break;
        }
    }
    expect_calm(&harness, &mut client);
}

/// RUSTSEC-2024-0332: a head that never ends.
#[test]
fn a_flood_of_continuations_ends_the_connection() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let block = client.block(&head("GET", "/v1/a", "Bearer x"));
    client.send(frame(HEADERS, END_STREAM, 1, &block));
    let filler = client.block(&[("x-filler", &"a".repeat(8_000))]);
    let sent = (0..5_000).take_while(|_| client.send(frame(CONTINUATION, 0, 1, &filler))).count();
    client.read_to_end();
    assert!(sent < 5_000, "{sent}");
    canary(&harness, &mut connect(&harness, &[]));
}

#[test]
fn a_client_that_only_pings_is_answered_and_served() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    client.send(frame(PING, 0, 0, b"12345678"));
    loop {
        let frame = client.read().expect("an answer");
        if frame.kind == PING && frame.flags == 1 {
            assert_eq!(frame.payload, b"12345678");
            break;
        }
    }
    canary(&harness, &mut client);
}
