//! What is left of a request over HTTP/2 that was answered before its end: who reads it, how much of it, and for how long.

use std::time::{Duration, Instant};

use leastgate_testkit::deadline::until_true;
use leastgate_testkit::http2::{Client, END_STREAM, PING, RST_STREAM, WINDOW_UPDATE, frame};

use crate::harness::{Connection, OK, PATIENCE, harness, harness_with};
use crate::http2::{canary, connect, head};

/// Reads on until the stream is reset, or the answer to a ping comes; whether it was.
fn is_reset(client: &mut Client, stream: u32) -> bool {
    client.send(frame(PING, 0, 0, b"and then"));
    while let Some(frame) = client.read() {
        match frame.kind {
            RST_STREAM if frame.stream == stream => {
                assert_eq!(frame.payload, [0; 4], "NO_ERROR");
                return true;
            }
            PING if frame.payload == b"and then" => return false,
            _ => {}
        }
    }
    panic!("the connection goes on")
}

/// A client must not throw an answer away because a reset follows it (RFC 9113 §8.1). curl 7.88 does, if both come at once:
/// who refuses must let a short body come.
#[test]
fn an_answer_to_half_a_request_is_not_followed_by_a_reset_on_its_heels() {
    let harness = harness(|upstream: &mut Connection| {
        upstream.read_until("\r\n\r\n");
        upstream.write("HTTP/1.1 413 Too much\r\ncontent-length: 4\r\n\r\nmuch");
        upstream.wait_until_closed();
    });
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    for (authorization, path, status) in
        [("Bearer nothing", "/v1/a", 401), (&*bearer, "/v1//a", 400), (&bearer, "/v1/a", 413)]
    {
        let stream = client.open(&head("POST", path, authorization), 0);
        let answer = client.answer(stream);
        let (began, body) = (Instant::now(), [b'x'; 16_000]);
        assert_eq!((answer.status, answer.reset), (status, None));
        let followed = is_reset(&mut client, stream);
        client.data(stream, &body, END_STREAM);
        let reset = followed || is_reset(&mut client, stream);
        // A machine that was busy with something else for that long says nothing about the order.
        assert!(!reset || began.elapsed() >= Duration::from_millis(900), "{status}: {:?}", began.elapsed());

        let stream = client.open(&head("POST", path, authorization), 0);
        assert_eq!(client.answer(stream).status, status);
        client.data(stream, &body, 0);
        until_true("a reset of what does not end", PATIENCE, || is_reset(&mut client, stream));
    }
    assert!(client.goaway.is_none());
}

/// The rest of a refused request is read although its client does not take the answer: it would lie with h2 otherwise, and
/// the window that others on the connection need with it.
#[test]
fn what_nobody_reads_of_a_request_takes_no_window_from_others() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.response_stall = PATIENCE * 10);
    // No window for any answer.
    let mut client = connect(&harness, &[(4, 0)]);
    let widened = |client: &mut Client| loop {
        let frame = client.read().expect("the connection goes on");
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            return u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
        }
    };
    // Beyond what the protocol begins with.
    let window = 65_535 + widened(&mut client);
    let streams = [(); 12].map(|()| client.open(&head("POST", "/v1/a", "Bearer nothing"), 0));
    for stream in streams {
        while client.so_far(stream).is_none_or(|answer| answer.status != 401) {
            client.read().expect("a head, which needs no window");
        }
    }
    // All that a stream's own window permits, but for a little.
    let part = [b'x'; 16_000];
    for stream in streams.repeat(4) {
        assert!(client.data(stream, &part, 0));
    }
    let sent = 4 * streams.len() * part.len();
    // It is given back when it is half a window or more.
    let mut given_back = 0;
    while sent - given_back > window / 2 {
        given_back += widened(&mut client);
    }
}

/// Each holds one of the connection's streams.
#[test]
fn few_streams_of_a_connection_wait_for_the_end_of_what_was_refused() {
    for (streams, most) in [(100, 16), (8, 2)] {
        let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.http2_streams = streams);
        let mut client = connect(&harness, &[]);
        let mut waiting = Vec::new();
        for _ in 0..24 {
            let stream = client.open(&head("POST", "/v1/a", "Bearer nothing"), 0);
            assert_eq!(client.answer(stream).status, 401);
            waiting.push(stream);
            if waiting.len() % 8 == 0 {
                canary(&harness, &mut client);
            }
        }
        client.send(frame(PING, 0, 0, b"the last"));
        while let Some(frame) = client.read() {
            if frame.kind == PING && frame.payload == b"the last" {
                break;
            }
        }
        // Of what is over and was taken, only a reset leaves an answer again.
        let left = waiting.iter().filter(|stream| client.so_far(**stream).is_none()).count();
        assert!(left <= most, "{left} of 24 wait, with {streams} streams");
    }
}
