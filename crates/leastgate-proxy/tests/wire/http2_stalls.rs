//! Windows of HTTP/2 clients: bodies within them, and clients that take nothing, too little or too late.

use std::time::{Duration, Instant};

use leastgate_testkit::http2::{DATA, END_STREAM, WINDOW_UPDATE, frame};

use crate::harness::{OK, harness, harness_with};
use crate::http2::{canary, connect, head, request};

const INITIAL_WINDOW_SIZE: u16 = 4;

#[test]
fn bodies_go_both_ways_within_their_windows() {
    let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let whole = body.clone();
    let harness = harness(move |upstream| {
        upstream.read_until("\r\n0\r\n\r\n");
        upstream.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", whole.len()));
        upstream.write_bytes(&whole);
    });
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let stream = client.open(&head("POST", "/v1/orders", &bearer), 0);
    let (mut window, mut sent) = (64 * 1024 - 1, 0);
    while sent < 200_000 {
        while window < 10_000 {
            let frame = client.read().expect("a window update");
            if frame.kind == WINDOW_UPDATE && frame.stream == stream {
                window += usize::try_from(u32::from_be_bytes(frame.payload[..4].try_into().unwrap())).unwrap();
            }
        }
        client.data(stream, &[b'x'; 10_000], 0);
        (window, sent) = (window - 10_000, sent + 10_000);
    }
    client.data(stream, b"", END_STREAM);
    let answer = client.answer(stream);
    assert_eq!(answer.status, 200);
    assert!(answer.is_whole && answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
    let received = harness.upstream.all();
    assert!(received.contains("transfer-encoding: chunked\r\n") && received.matches('x').count() > 200_000);
}

#[test]
fn refusals_that_nobody_takes_are_no_requests_in_flight() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.in_flight = 1);
    let mut stalled = connect(&harness, &[(INITIAL_WINDOW_SIZE, 0)]);
    for _ in 0..10 {
        let stream = stalled.open(&head("GET", "/v1/a", "Bearer nonsense"), END_STREAM);
        while stalled.so_far(stream).is_none_or(|answer| answer.status == 0) {
            stalled.read().expect("the head of a refusal");
        }
        assert_eq!(stalled.so_far(stream).map(|answer| (answer.status, answer.is_whole)), Some((401, false)));
    }
    canary(&harness, &mut connect(&harness, &[]));
}

#[test]
fn a_client_that_takes_nothing_of_one_stream_loses_that_stream() {
    let harness = harness_with(
        |upstream| {
            upstream.read_until("\r\n\r\n");
            if upstream.text().contains("/v1/large") {
                upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
                upstream.write_bytes(&[b'x'; 1_000_000]);
            } else {
                upstream.write(OK);
                upstream.answer_all(OK);
            }
        },
        |limits| limits.response_stall = Duration::from_millis(500),
    );
    let mut client = connect(&harness, &[(INITIAL_WINDOW_SIZE, 20_000)]);
    client.takes = false;
    let stalled = request(&harness, &mut client, "GET", "/v1/large");
    let answer = client.answer(stalled);
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (200, 20_000, false));
    assert!(answer.reset.is_some());
    canary(&harness, &mut client);
}

#[test]
fn a_client_without_any_window_loses_its_stream() {
    let harness =
        harness_with(|upstream| upstream.answer_all(OK), |limits| limits.response_stall = Duration::from_millis(500));
    let mut client = connect(&harness, &[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = request(&harness, &mut client, "GET", "/v1/a");
    let answer = client.answer(stream);
    assert!(answer.status == 200 && answer.body.is_empty() && answer.reset.is_some(), "{answer:?}");
    assert!(harness.events(1)[0].contains("broken_off"), "a part that never left was not answered");
}

/// The end of a longer response is held back until the rest is taken, so that its stream can be reset alone.
#[test]
fn a_client_that_does_not_take_the_last_part_loses_that_stream() {
    let harness = harness_with(
        |upstream| {
            upstream.read_until("\r\n\r\n");
            if upstream.text().contains("/v1/long") {
                upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 30000\r\n\r\n");
                upstream.write_bytes(&[b'x'; 30_000]);
            } else {
                upstream.write(OK);
            }
            upstream.answer_all(OK);
        },
        |limits| limits.response_stall = Duration::from_secs(1),
    );
    let mut client = connect(&harness, &[(INITIAL_WINDOW_SIZE, 20_000)]);
    client.takes = false;
    let stalled = request(&harness, &mut client, "GET", "/v1/long");
    let answer = client.answer(stalled);
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (200, 20_000, false));
    assert!(answer.reset.is_some() && client.goaway.is_none());
    harness.until_in_flight(0);
    assert!(harness.events(1)[0].contains("broken_off"), "not taken is not answered");
    canary(&harness, &mut client);
}

/// The end of a short response that lies with h2 can't be reset: its place is held, and its connection ends.
#[test]
fn a_client_that_does_not_take_the_end_is_told_to_go_and_then_cut() {
    let harness =
        harness_with(|upstream| upstream.answer_all(OK), |limits| limits.response_stall = Duration::from_secs(1));
    let mut client = connect(&harness, &[(INITIAL_WINDOW_SIZE, 1)]);
    client.takes = false;
    let stream = request(&harness, &mut client, "GET", "/v1/a");
    while client.read().expect("the byte there is room for").kind != DATA {}
    assert_eq!(harness.events(1).len(), 1, "its record ends when it is handed over");
    assert_eq!(harness.in_flight(), 1);
    let told = Instant::now();
    client.read_to_end();
    assert_eq!(client.goaway.map(|(_, code)| code), Some(0));
    assert!(told.elapsed() > Duration::from_millis(1500), "after {:?}", told.elapsed());
    assert!(!client.is_over(stream));
    harness.until_in_flight(0);
}

#[test]
fn a_client_that_takes_the_end_late_keeps_its_connection() {
    let harness =
        harness_with(|upstream| upstream.answer_all(OK), |limits| limits.response_stall = Duration::from_secs(30));
    let mut client = connect(&harness, &[(INITIAL_WINDOW_SIZE, 1)]);
    client.takes = false;
    let stream = request(&harness, &mut client, "GET", "/v1/a");
    while client.read().expect("the byte there is room for").kind != DATA {}
    assert_eq!(harness.in_flight(), 1);
    client.send(frame(WINDOW_UPDATE, 0, stream, &100_u32.to_be_bytes()));
    let rest = client.answer(stream);
    assert!(rest.is_whole, "{rest:?}");
    harness.until_in_flight(0);
}
