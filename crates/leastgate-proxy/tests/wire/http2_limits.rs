//! The limits of HTTP/2 connections, each set to what nobody would choose: what a client is told of them, and what ends
//! it.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_config::Limits;
use leastgate_testkit::http2::{
    Client, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};

use crate::harness::{Connection, Harness, OK, PATIENCE, harness_with};
use crate::http2::{answering, canary, connect, head, request};

const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;

/// What a connection's window is before anybody widens it (RFC 9113 §6.9.2).
const WINDOW: u32 = 65_535;

fn limited(set: impl FnOnce(&mut Limits)) -> Harness {
    harness_with(|upstream| upstream.answer_all(OK), set)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_client_is_told_what_it_may_send() {
    let harness = limited(|limits| {
        limits.http2_streams = 7;
        limits.http2_stream_window = 70_001;
        limits.http2_connection_window = 200_003;
        limits.http2_header_list = 9_001;
        limits.http2_header_table = 2_003;
    });
    let mut client = connect(&harness, &[]);
    let (mut settings, mut widened) = (None, None);
    while settings.is_none() || widened.is_none() {
        let frame = client.read().expect("what a server says first");
        match (frame.kind, frame.flags, frame.stream) {
            (SETTINGS, 0, 0) => {
                let pairs = frame.payload.chunks_exact(6).map(|pair| {
                    let identifier = u16::from_be_bytes(pair[..2].try_into().unwrap());
                    (identifier, number(&pair[2..]))
                });
                settings = Some(pairs.collect::<Vec<_>>());
            }
            (WINDOW_UPDATE, _, 0) => widened = Some(number(&frame.payload)),
            _ => {}
        }
    }
    let settings = settings.unwrap();
    // SETTINGS_HEADER_TABLE_SIZE, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE and _MAX_HEADER_LIST_SIZE (§6.5.2).
    for told in [(1, 2_003), (3, 7), (4, 70_001), (6, 9_001)] {
        assert!(settings.contains(&told), "{told:?} in {settings:?}");
    }
    assert_eq!(widened, Some(200_003 - WINDOW));
}

#[test]
fn a_client_that_does_not_answer_a_ping_is_gone() {
    const PING_EVERY: Duration = Duration::from_millis(200);
    let harness = limited(|limits| (limits.http2_ping, limits.http2_ping_timeout) = (PING_EVERY, PING_EVERY));
    let mut silent = connect(&harness, &[]);
    silent.takes = false;
    let started = Instant::now();
    silent.read_to_end();
    assert!((PING_EVERY * 2..PATIENCE / 4).contains(&started.elapsed()), "{:?}", started.elapsed());
    let (mut answering, mut asked) = (connect(&harness, &[]), 0);
    while asked < 4 {
        asked += usize::from(answering.read().expect("whoever answers stays").kind == PING);
    }
    canary(&harness, &mut answering);
}

/// How many streams the gateway resets for its client's errors before it has enough, and says so. The errors are those of
/// CVE-2025-8671: a stream is opened as it should be, and then its window widened to more than there can be.
fn provoked(harness: &Harness) -> usize {
    let mut client = connect(harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    for count in 0..1_000 {
        let stream = 2 * count + 1;
        let block = client.block(&head("GET", "/v1/a", &bearer));
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        client.send([opened, frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat());
        if client.answer(stream).reset.is_none() {
            client.read_to_end();
            assert!(matches!(client.goaway, Some((_, ENHANCE_YOUR_CALM))), "{:?}", client.goaway);
            return usize::try_from(count).unwrap();
        }
    }
    panic!("a thousand resets are not enough");
}

#[test]
fn a_client_may_provoke_so_many_resets() {
    let lowered = limited(|limits| limits.http2_error_resets = 3);
    assert_eq!((provoked(&lowered), provoked(&answering())), (3, 64));
    canary(&lowered, &mut connect(&lowered, &[]));
}

/// Opens as many streams as this and resets them, at once: none of them is looked at before the last is reset.
fn reset(harness: &Harness, count: u32) -> Client {
    let mut client = connect(harness, &[]);
    while client.read().expect("the settings").kind != SETTINGS {}
    let fields = head("GET", "/v1/a", &harness.token);
    let mut bytes = Vec::new();
    for stream in (1..).step_by(2).take(usize::try_from(count).unwrap()) {
        let block = client.block(&fields);
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    client.send(bytes);
    client
}

#[test]
fn a_client_may_have_so_many_resets_pending() {
    let (lowered, usual) = (limited(|limits| limits.http2_pending_resets = 3), answering());
    for (harness, too_many) in [(&lowered, 12), (&usual, 32)] {
        let mut client = reset(harness, too_many);
        client.read_to_end();
        assert!(matches!(client.goaway, Some((_, ENHANCE_YOUR_CALM))), "{:?}", client.goaway);
    }
    let mut client = reset(&usual, 12);
    let block = client.block(&head("GET", "/v1/canary", &format!("Bearer {}", usual.token)));
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 25, &block));
    assert_eq!(client.answer(25).status, 200, "{:?}", client.goaway);
    lowered.until_in_flight(0);
}

#[test]
fn an_old_connection_is_told_to_go() {
    const AGE: Duration = Duration::from_millis(1_500);
    let harness = limited(|limits| limits.connection_age = AGE);
    let mut client = connect(&harness, &[]);
    canary(&harness, &mut client);
    let established = Instant::now();
    assert!(client.goaway.is_none());
    thread::sleep(AGE.saturating_sub(established.elapsed()));
    canary(&harness, &mut client);
    client.read_to_end();
    assert_eq!(client.goaway.map(|(_, code)| code), Some(0));
}

/// The timer of its idle time, set before the request, runs out while that is under way.
#[test]
fn a_connection_is_told_to_go_after_its_idle_time_however_long_its_last_request_took() {
    const IDLE: Duration = Duration::from_millis(300);
    let slow = |upstream: &mut Connection| {
        while upstream.read_until("\r\n\r\n") {
            thread::sleep(3 * IDLE);
            upstream.write(OK);
        }
    };
    let harness = harness_with(slow, |limits| {
        limits.http2_idle = IDLE;
        limits.http2_ping = Duration::from_secs(300);
    });
    let mut client = connect(&harness, &[]);
    // Not a frame comes of it that would have the gateway look.
    client.takes = false;
    canary(&harness, &mut client);
    let answered = Instant::now();
    assert!(client.goaway.is_none());
    while client.goaway.is_none() && client.read().is_some() {}
    assert_eq!(client.goaway.map(|(_, code)| code), Some(0));
    assert!(answered.elapsed() < PATIENCE, "{:?}", answered.elapsed());
}

/// What a refused request leaves in the connection's table of fields is held as long as the connection lives.
#[test]
fn a_connection_that_brings_nothing_but_refusals_is_told_to_go_and_does_not_stay() {
    const REFUSALS: usize = 16;
    let harness = answering();
    for hears in [true, false] {
        let mut client = connect(&harness, &[]);
        let refused = |client: &mut Client| {
            let stream = client.open(&head("GET", "/v1/a", "Bearer nonsense"), END_STREAM);
            assert_eq!(client.answer(stream).status, 401);
        };
        (0..REFUSALS - 1).for_each(|_| refused(&mut client));
        canary(&harness, &mut client);
        (0..REFUSALS - 1).for_each(|_| refused(&mut client));
        assert!(client.goaway.is_none());
        client.takes = hears;
        refused(&mut client);
        let told = Instant::now();
        client.read_to_end();
        assert_eq!(client.goaway.map(|(_, code)| code), Some(0));
        assert!(told.elapsed() < PATIENCE / 2, "{:?}", told.elapsed());
    }
}

/// Crumbs of a cookie are fields of their own until they are judged: joined first, any number of them would be one.
#[test]
fn every_crumb_of_a_cookie_is_a_field() {
    let harness = answering();
    let bearer = format!("Bearer {}", harness.token);
    for (crumbs, status) in [(98, 200), (99, 431)] {
        let mut fields = head("GET", "/v1/a", &bearer);
        fields.extend((0..crumbs).map(|_| ("cookie", "a=1")));
        let mut client = connect(&harness, &[]);
        let stream = client.open(&fields, END_STREAM);
        assert_eq!(client.answer(stream).status, status, "{crumbs}, the token and the host");
    }
    assert_eq!(harness.upstream.received().len(), 1);
}

#[test]
fn streams_over_their_number_are_refused_one_by_one() {
    let harness = harness_with(Connection::wait_until_closed, |limits| limits.http2_streams = 2);
    let mut client = connect(&harness, &[]);
    let streams: Vec<u32> = (0..3).map(|_| request(&harness, &mut client, "GET", "/v1/a")).collect();
    assert_eq!(client.answer(streams[2]).reset, Some(7), "REFUSED_STREAM");
    for stream in &streams[..2] {
        assert_eq!(client.answer(*stream).status, 504);
    }
    assert!(client.goaway.is_none());
}
