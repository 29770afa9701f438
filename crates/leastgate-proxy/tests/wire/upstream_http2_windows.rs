//! Windows towards upstreams of HTTP/2: bodies within them, who holds back whom, and what an upstream never takes.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use h2::server::Builder;
use http::Response;
use leastgate_testkit::http2::{DATA, RST_STREAM};

use crate::harness::PATIENCE;
use crate::http2_peers::{Peer, Raw, Served, before, before_with, say, send_all};
use crate::upstream_http2::get;

const INITIAL_WINDOW_SIZE: u16 = 4;

#[test]
fn bodies_of_any_size_arrive_whole_both_ways() {
    let upstream =
        Served::start(Builder::new(), |seen, respond| Box::pin(async move { say(respond, &seen.body).await }));
    let harness = before(upstream.address, "");
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| b'a' + (index % 26) as u8).collect();
    let mut client = harness.connect();
    let head = harness.head("POST /v1/a", &format!("Content-Length: {}\r\nConnection: close\r\n", body.len()));
    let (mut writer, sent) = (client.stream.try_clone().unwrap(), body.clone());
    let writing = thread::spawn(move || {
        writer.write_all(head.as_bytes()).unwrap();
        writer.write_all(&sent).unwrap();
    });
    let all = client.rest();
    writing.join().unwrap();
    let received: String = all.split_once("\r\n\r\n").unwrap().1.split("\r\n").skip(1).step_by(2).collect();
    assert!(received.as_bytes() == body, "{} of {}", received.len(), body.len());
}

#[test]
fn a_slow_reader_holds_its_own_stream_back_and_no_other() {
    let sent = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&sent);
    let upstream = Served::start(Builder::new(), move |seen, mut respond| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            if seen.head.uri.path() != "/v1/large" {
                return say(respond, b"ok").await;
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..64 {
                if !send_all(&mut stream, &[b'x'; 1 << 20], false).await {
                    return;
                }
                *counter.lock().unwrap() += 1;
            }
        })
    });
    let patient = |limits: &mut leastgate_config::Limits| limits.response_stall = PATIENCE;
    let harness = before_with(upstream.address, "", patient);
    let mut slow: Vec<_> = (0..30).map(|_| harness.connect()).collect();
    for client in &mut slow {
        client.send(harness.head("GET /v1/large", ""));
        let mut first = [0; 1];
        client.stream.read_exact(&mut first).unwrap();
    }
    let mut before = 0;
    while std::mem::replace(&mut before, *sent.lock().unwrap()) != before || before == 0 {
        thread::sleep(Duration::from_millis(300));
    }
    for _ in 0..5 {
        assert_eq!(get(&harness, "/v1/small"), 200, "30 that stand still leave room for others");
    }
    let sent = *sent.lock().unwrap();
    assert!(sent < 30 * 12, "{sent} MiB went into sockets and windows");
    assert_eq!(upstream.connections(), 1);
}

/// The next request, and all of its body that the window of these tests lets through.
fn take_window(peer: &mut Peer) -> u32 {
    let stream = peer.request().unwrap();
    let mut got = 0;
    while got < 1000 {
        got += peer.next(DATA).unwrap().payload.len();
    }
    stream
}

#[test]
fn an_upload_waits_for_the_upstream() {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let upstream = Raw::start(&[(INITIAL_WINDOW_SIZE, 1000)], move |peer: &mut Peer| {
        peer.frames.takes = false;
        let stream = take_window(peer);
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        peer.answer(stream);
        while peer.frames.read().is_some() {}
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Content-Length: 10000000\r\n"));
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while let Ok(part) = client.stream.write(&[b'x'; 10_000]) {
        written += part;
        assert!(written < 10_000_000, "nothing holds it back");
    }
    release.send(()).unwrap();
    assert_eq!(client.reply().status, 200, "an answer before the body is whole");
}

/// What waits for an upstream's window is given up with its exchange: nobody would ever come back to it.
#[test]
fn an_upload_that_an_upstream_does_not_take_ends_with_its_exchange() {
    for (answers, length) in [(false, 100_000), (true, 100_000), (true, 50_000)] {
        let (ended, end) = mpsc::channel();
        let upstream = Raw::start(&[(INITIAL_WINDOW_SIZE, 1000)], move |peer: &mut Peer| {
            peer.frames.takes = false;
            let stream = take_window(peer);
            if answers {
                peer.answer(stream);
            }
            ended.send((stream, peer.next(RST_STREAM).map(|reset| reset.stream))).unwrap();
            peer.answer_all();
        });
        let harness = before(upstream.address, "");
        let mut client = harness.connect();
        client.send(harness.head("POST /v1/a", &format!("Content-Length: {length}\r\n")) + &"x".repeat(50_000));
        if answers {
            assert_eq!(client.reply().status, 200);
        } else {
            harness.until_in_flight(1);
            drop(client);
        }
        let (stream, reset) = end.recv_timeout(PATIENCE).expect("the stream to end");
        assert_eq!(reset, Some(stream), "of {length} with an answer: {answers}");
        harness.until_in_flight(0);
        assert_eq!(get(&harness, "/v1/next"), 200);
    }
}

/// The end of a body is held back until it is taken: without that, h2 could not give it up, and each would lie there for
/// ever, in the way of everybody else's.
#[test]
fn a_short_upload_that_an_upstream_does_not_take_is_given_up_too() {
    let (ended, end) = mpsc::channel();
    let upstream = Raw::start(&[(INITIAL_WINDOW_SIZE, 10)], move |peer: &mut Peer| {
        peer.frames.takes = false;
        let stream = peer.request().unwrap();
        peer.next(DATA).unwrap();
        peer.answer(stream);
        ended.send((stream, peer.next(RST_STREAM).map(|reset| reset.stream))).unwrap();
        peer.answer_all();
    });
    let harness = before(upstream.address, "");
    assert_eq!(harness.ask(harness.head("POST /v1/a", "Content-Length: 20\r\n") + &"x".repeat(20)).status, 200);
    let (stream, reset) = end.recv_timeout(PATIENCE).expect("the stream to end");
    assert_eq!(reset, Some(stream));
    assert_eq!(get(&harness, "/v1/next"), 200);
    assert_eq!(upstream.requests(), [2], "and nothing else ends");
}
