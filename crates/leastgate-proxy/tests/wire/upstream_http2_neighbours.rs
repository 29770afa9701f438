//! What happens on one stream of an upstream's connection, and must not happen to the others: h2 counts some of it over
//! the whole life of a connection.

use std::sync::{Mutex, mpsc};
use std::thread;

use leastgate_testkit::http2::{Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS};

use crate::harness::PATIENCE;
use crate::http2::{head, request};
use crate::http2_peers::{OK_BLOCK, Peer, Raw, before};
use crate::upstream_http2::{ask_all, get};

const NO_ERROR: [u8; 4] = [0; 4];
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

#[test]
fn a_stream_that_breaks_without_an_error_is_no_whole_response() {
    for (kind, is_whole) in [(RST_STREAM, false), (GOAWAY, false), (RST_STREAM, true)] {
        let upstream = Raw::start(&[], move |peer: &mut Peer| {
            let stream = peer.request().unwrap();
            peer.send(HEADERS, END_HEADERS, stream, OK_BLOCK);
            peer.send(DATA, if is_whole { END_STREAM } else { 0 }, stream, b"half");
            match kind {
                GOAWAY => peer.send(GOAWAY, 0, 0, &[NO_ERROR, NO_ERROR].concat()),
                kind => peer.send(kind, 0, stream, &NO_ERROR),
            }
            while peer.frames.read().is_some() {}
        });
        let harness = before(upstream.address, "");
        let mut client = harness.connect();
        client.send(harness.head("GET /v1/a", "Connection: close\r\n"));
        let text = client.rest();
        assert_eq!((text.contains("half"), text.ends_with("0\r\n\r\n")), (true, is_whole), "{kind}: {text}");
        let event = harness.events(1).remove(0);
        assert_eq!(event.contains("upstream_protocol"), !is_whole, "{kind}: {event}");
    }
}

#[test]
fn a_client_that_takes_none_of_many_small_parts_leaves_its_neighbours_alone() {
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        let stream = peer.request().unwrap();
        peer.send(HEADERS, END_HEADERS, stream, OK_BLOCK);
        (0..16_000).for_each(|_| peer.send(DATA, 0, stream, b"tick"));
        peer.answer_all();
    });
    let harness = before(upstream.address, "");
    let mut client = Client::open_with(harness.connect().stream, &[(INITIAL_WINDOW_SIZE, 0)]);
    let stalled = request(&harness, &mut client, "GET", "/v1/a");
    while client.so_far(stalled).is_none_or(|answer| answer.status == 0) {
        client.read().expect("the head comes");
    }
    for _ in 0..3 {
        assert_eq!(get(&harness, "/v1/b"), 200);
    }
    assert_eq!(upstream.requests(), [4], "all on one connection");
}

#[test]
fn what_crosses_with_the_reset_of_a_stream_is_no_fault_of_the_connection() {
    const MANY: usize = 1_200;
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        let mut streams = Vec::new();
        while streams.len() < MANY {
            let stream = peer.request().unwrap();
            peer.send(HEADERS, END_HEADERS, stream, OK_BLOCK);
            peer.next(RST_STREAM).unwrap();
            streams.push(stream);
        }
        streams.iter().for_each(|stream| peer.send(DATA, END_STREAM, *stream, b""));
        peer.answer_all();
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    for _ in 0..MANY {
        client.send(harness.head("HEAD /v1/a", ""));
        client.read_to("\r\n\r\n");
    }
    for _ in 0..3 {
        assert_eq!(get(&harness, "/v1/b"), 200);
    }
    assert_eq!(upstream.requests(), [MANY + 3], "all on one connection");
}

#[test]
fn an_upstream_may_flush_with_empty_frames_as_often_as_it_likes() {
    const MANY: usize = 150;
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        while let Some(stream) = peer.request() {
            peer.send(HEADERS, END_HEADERS, stream, OK_BLOCK);
            peer.send(DATA, 0, stream, b"");
            peer.send(DATA, END_STREAM, stream, b"ok");
        }
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    for _ in 0..MANY {
        client.send(harness.head("GET /v1/a", ""));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.contains("ok")), (200, true));
    }
    assert_eq!(upstream.requests(), [MANY], "all on one connection");
}

#[test]
fn an_upstream_that_takes_more_requests_than_before_gets_those_that_wait() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Raw::start(&[(MAX_CONCURRENT_STREAMS, 1)], move |peer: &mut Peer| {
        let first = peer.request().unwrap();
        may_go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        peer.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let others: Vec<u32> = (0..3).map_while(|_| peer.request()).collect();
        others.into_iter().chain([first]).for_each(|stream| peer.answer(stream));
        peer.answer_all();
    });
    let harness = before(upstream.address, "max_connections: 1");
    let clients = ask_all(&harness, 4);
    harness.until_in_flight(4);
    go_on.send(()).unwrap();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asking: Vec<_> = clients.into_iter().map(|mut client| scope.spawn(move || client.reply().status)).collect();
        asking.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!((&statuses[..], upstream.requests()), (&[200; 4][..], vec![4]));
}

#[test]
fn an_upload_that_a_client_breaks_off_without_an_error_is_not_whole() {
    let harness = crate::harness::harness(|upstream| while upstream.read_some().is_some() {});
    let mut client = Client::open_with(harness.connect().stream, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let stream = client.open(&head("POST", "/v1/orders", &bearer), 0);
    client.data(stream, b"half", 0);
    let has_half = || harness.upstream.all().contains("half");
    let began = std::time::Instant::now();
    while !has_half() {
        assert!(began.elapsed() < PATIENCE, "{}", harness.upstream.all());
        thread::yield_now();
    }
    client.send(leastgate_testkit::http2::frame(RST_STREAM, 0, stream, &NO_ERROR));
    let event = harness.events(1).remove(0);
    assert!(event.contains("broken_off") || event.contains("request_malformed"), "{event}");
    assert!(!harness.upstream.all().contains("\r\n0\r\n\r\n"), "{}", harness.upstream.all());
}
