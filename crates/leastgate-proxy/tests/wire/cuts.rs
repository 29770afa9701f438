//! What a request under way sees of its end when it is refused after all, and how whoever refused it knows: over HTTP/1.1,
//! over HTTP/2, and as gRPC. Of WebSockets: `tunnel_cuts.rs`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_policy::{Accessor, CutWatch, Timestamp, TokenEntry, TokenState, Whose};
use leastgate_testkit::http2::{Answer, Client, DATA, END_STREAM, frame};

use crate::harness::{Connection, Harness, PATIENCE, POLICY, harness, put_policy_in_force};
use crate::http2::{canary, connect, head, request};

const CANCEL: u32 = 8;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;

/// A response that has begun, and one that is whole for everything that ends in `canary`.
fn begin(upstream: &mut Connection, response: &str) {
    while upstream.read_until("\r\n\r\n") {
        if upstream.received().contains("/v1/canary") {
            upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        } else {
            upstream.write(response);
        }
    }
}

/// A gateway in front of an upstream that goes on after this, and says when it was left.
fn beginning(response: &'static str) -> Harness {
    harness(move |upstream| {
        begin(upstream, response);
        upstream.close("[closed]");
    })
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
    d\r\ndata: first\n\n\r\n";
const MESSAGES: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
    a\r\n\0\0\0\0\x05first\r\n";

fn revoke(harness: &Harness) {
    harness.authority.set_state(&harness.digest, TokenState::Revoked);
}

/// A stream whose answer has begun with this.
fn open(harness: &Harness, client: &mut Client, fields: &[(&str, &str)], flags: u8, begins: &str) -> u32 {
    let bearer = format!("Bearer {}", harness.token);
    let method = if fields.is_empty() { "GET" } else { "POST" };
    let stream = client.open(&[&head(method, "/v1/a", &bearer)[..], fields].concat(), flags);
    while !client.so_far(stream).is_some_and(|answer| answer.text().ends_with(begins)) {
        client.read().expect("the connection stays open");
    }
    stream
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

fn trailer<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.trailers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// Waits, with a deadline, for what the workers are asked.
fn reviewed(harness: &Harness) {
    let change = harness.authority.changes();
    harness.authority.ask_for_review();
    let started = Instant::now();
    while !harness.authority.is_reviewed(change) {
        assert!(started.elapsed() < PATIENCE, "a worker has not answered");
        thread::sleep(Duration::from_millis(1));
    }
}

fn watch(harness: &Harness, whose: Whose) -> Arc<CutWatch> {
    harness.authority.watch_cuts(whose, || {})
}

#[test]
fn over_http1_a_download_ends_without_its_last_chunk_or_short_of_its_length() {
    for response in [CHUNKED, EVENTS, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nfirst"] {
        let harness = beginning(response);
        let mut client = harness.connect();
        client.send(harness.head("GET /v1/a", ""));
        client.read_to("first");
        revoke(&harness);
        let rest = client.rest();
        assert!(!rest.contains('0') && rest.len() < 5, "{rest:?} behind {response}");
        harness.upstream.wait_for("[closed]");
        assert!(harness.events(1)[0].contains("\"error\":\"cut\""));
    }
}

#[test]
fn an_upload_under_way_is_answered_with_the_refusal_and_its_upstream_sees_it_broken() {
    let harness = harness(|upstream| {
        upstream.wait_until_closed();
        upstream.close("[closed]");
    });
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Transfer-Encoding: chunked\r\n") + "5\r\nfirst\r\n");
    harness.upstream.wait_for("first");
    revoke(&harness);
    let reply = client.reply();
    assert_eq!(reply.status, 401, "{}", reply.head);
    assert!(reply.body.contains("invalid-token") && reply.has("connection: close"), "{} {}", reply.head, reply.body);
    harness.upstream.wait_for("[closed]");
    assert!(!harness.upstream.all().contains("0\r\n\r\n"), "no end that would make it whole");
    assert_eq!(harness.metric("leastgate_streams_cut_total{reason=\"token_revoked\"}"), 1);
}

#[test]
fn over_http2_a_stream_is_reset_alone_and_its_neighbours_go_on() {
    for response in [CHUNKED, EVENTS, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nfirst"] {
        let harness = beginning(response);
        let mut client = connect(&harness, &[]);
        let stream =
            open(&harness, &mut client, &[], END_STREAM, if response == EVENTS { "first\n\n" } else { "first" });
        let change = POLICY.replace("\"GET /v1/**\"", "\"GET /v1/canary\"");
        put_policy_in_force(&harness.authority, &harness.telemetry, &change);
        let answer = client.answer(stream);
        assert_eq!((answer.reset, answer.is_whole), (Some(CANCEL), false));
        canary(&harness, &mut client);
        assert!(client.goaway.is_none());
        harness.upstream.wait_for("[closed]");
    }
}

#[test]
fn an_upload_over_http2_is_answered_and_its_neighbours_go_on() {
    let harness = harness(|upstream| {
        upstream.read_until("first\r\n");
        upstream.wait_until_closed();
        upstream.close("[closed]");
    });
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let stream = client.open(&head("POST", "/v1/a", &bearer), 0);
    client.data(stream, b"first", 0);
    harness.upstream.wait_for("first");
    revoke(&harness);
    let answer = client.answer(stream);
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("invalid-token"), "{answer:?}");
    harness.upstream.wait_for("[closed]");
    canary_is_refused(&harness, &mut client, stream);
}

/// It is nobody's request under way any more, however slowly its client takes it.
#[test]
fn an_answer_of_the_gateways_own_is_not_cut() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n\r\n");
    });
    let mut client = connect(&harness, &[(WINDOW, 0)]);
    client.takes = false;
    let stream = request(&harness, &mut client, "GET", "/v1/a");
    while client.so_far(stream).is_none_or(|answer| answer.status != 502) {
        client.read().unwrap();
    }
    let mine = watch(&harness, Whose::Everybody);
    revoke(&harness);
    reviewed(&harness);
    assert_eq!(mine.requests(), 0, "nothing was cut");
    client.send(frame(8, 0, stream, &10_000_u32.to_be_bytes()));
    let answer = client.answer(stream);
    assert!(answer.is_whole && answer.text().contains("upstream"), "{answer:?}");
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"error\":\"upstream_") && !event.contains("\"cut\""), "{event}");
}

#[test]
fn a_grpc_call_ends_with_the_status_of_the_refusal() {
    for (change, status, message) in [
        (None, "16", "The token is not valid."),
        (Some(POLICY.replace("\"POST /v1/**\"", "\"POST /v2/**\"")), "7", "No scope allows this request."),
    ] {
        let harness = beginning(MESSAGES);
        let mut client = connect(&harness, &[]);
        let stream = open(&harness, &mut client, GRPC, END_STREAM, "first");
        match change {
            None => revoke(&harness),
            Some(policy) => put_policy_in_force(&harness.authority, &harness.telemetry, &policy),
        }
        let answer = client.answer(stream);
        assert_eq!((answer.is_whole, answer.reset), (true, None), "{answer:?}");
        assert_eq!(trailer(&answer, "grpc-status"), Some(status), "{answer:?}");
        let said = trailer(&answer, "grpc-message").unwrap_or_default();
        assert!(said.starts_with(message) && said.contains("(decision "), "{said}");
        assert_eq!(answer.body, b"\0\0\0\0\x05first");
        harness.upstream.wait_for("[closed]");
        let event = harness.events(1).remove(0);
        assert!(event.contains("\"error\":\"cut\"") && event.contains("\"cut\":{\"reason\""), "{event}");
    }
}

#[test]
fn a_call_that_still_sends_hears_its_status_too() {
    let harness = harness(|upstream| {
        upstream.read_until("ping\r\n");
        upstream.write(MESSAGES);
        upstream.wait_until_closed();
        upstream.close("[closed]");
    });
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let stream = client.open(&[&head("POST", "/v1/a", &bearer)[..], GRPC].concat(), 0);
    client.data(stream, b"ping", 0);
    while !client.so_far(stream).is_some_and(|answer| answer.text().ends_with("first")) {
        client.read().unwrap();
    }
    revoke(&harness);
    let answer = client.answer(stream);
    assert_eq!((trailer(&answer, "grpc-status"), answer.reset), (Some("16"), None), "{answer:?}");
    client.data(stream, b"late", 0);
    harness.upstream.wait_for("[closed]");
    assert!(!harness.upstream.all().contains("late"));
}

/// Fields may not follow what was not taken, and what was not taken must not follow the decision.
#[test]
fn a_call_whose_client_takes_nothing_is_reset_without_another_byte() {
    let harness = beginning(MESSAGES);
    let mut client = connect(&harness, &[(WINDOW, 4)]);
    let stream = {
        let bearer = format!("Bearer {}", harness.token);
        client.takes = false;
        client.open(&[&head("POST", "/v1/a", &bearer)[..], GRPC].concat(), END_STREAM)
    };
    while client.so_far(stream).is_none_or(|answer| answer.body.len() < 4) {
        client.read().unwrap();
    }
    revoke(&harness);
    reviewed(&harness);
    // The window opens too late.
    client.send(frame(8, 0, stream, &100_u32.to_be_bytes()));
    let answer = client.answer(stream);
    assert_eq!((answer.reset, answer.body.len(), answer.trailers.len()), (Some(CANCEL), 4, 0), "{answer:?}");
}

#[test]
fn a_call_of_known_length_is_reset_because_an_earlier_end_would_be_malformed() {
    let harness = beginning("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 99\r\n\r\nfirst");
    let mut client = connect(&harness, &[]);
    let stream = open(&harness, &mut client, GRPC, END_STREAM, "first");
    revoke(&harness);
    assert_eq!(client.answer(stream).reset, Some(CANCEL));
}

#[test]
fn what_has_no_status_of_its_own_gets_no_fields() {
    let harness = beginning(MESSAGES);
    let mut client = connect(&harness, &[]);
    let stream = open(&harness, &mut client, &[("content-type", "application/json")], END_STREAM, "first");
    revoke(&harness);
    let answer = client.answer(stream);
    assert_eq!((answer.reset, answer.trailers.len()), (Some(CANCEL), 0));
}

/// A client that reads nothing from its socket, while its upstream sends as fast as it can.
#[test]
fn a_client_that_reads_nothing_is_cut_all_the_same() {
    for is_http2 in [false, true] {
        let harness = harness(|upstream| {
            upstream.read_until("\r\n\r\n");
            upstream.write("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n");
            for _ in 0..2000 {
                upstream.write(&format!("2000\r\n{}\r\n", "a".repeat(0x2000)));
            }
            upstream.close("[closed]");
        });
        let tcp = harness.connect().stream;
        let mut client = Client::open_with(tcp, &[(WINDOW, 1 << 24)]);
        let mut other = harness.connect();
        if is_http2 {
            client.send(frame(8, 0, 0, &(1_u32 << 24).to_be_bytes()));
            let bearer = format!("Bearer {}", harness.token);
            client.open(&[&head("POST", "/v1/a", &bearer)[..], GRPC].concat(), END_STREAM);
        } else {
            other.send(harness.head("GET /v1/a", ""));
        }
        harness.upstream.wait_for("/v1/a");
        thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        revoke(&harness);
        harness.upstream.wait_for("[closed]");
        harness.until_in_flight(0);
        assert!(started.elapsed() < Duration::from_millis(1900), "before the stall's own end: {:?}", started.elapsed());
    }
}

fn soon(harness: &Harness) -> Timestamp {
    Timestamp(harness.telemetry.clock().timestamp().0 + 1)
}

#[test]
fn each_kind_of_end_cuts() {
    type Change = fn(&Harness) -> bool;
    let changes: [(&str, Change); 5] = [
        ("token_revoked", |harness| harness.authority.set_state(&harness.digest, TokenState::Revoked)),
        ("token_disabled", |harness| harness.authority.set_state(&harness.digest, TokenState::Disabled)),
        ("token_unknown", |harness| harness.authority.remove(&harness.digest)),
        ("token_expired", |harness| {
            let entry = TokenEntry { expires: Some(soon(harness)), ..harness.entry.clone() };
            harness.authority.upsert(entry).is_ok()
        }),
        ("insufficient_scope", |harness| {
            let grants = vec![("orders:read".into(), Some(soon(harness)))];
            harness.authority.upsert(TokenEntry { grants, ..harness.entry.clone() }).is_ok()
        }),
    ];
    for (reason, change) in changes {
        let harness = beginning(EVENTS);
        let mut client = connect(&harness, &[]);
        let stream = open(&harness, &mut client, &[], END_STREAM, "first\n\n");
        assert!(change(&harness), "{reason}");
        assert_eq!(client.answer(stream).reset, Some(CANCEL), "{reason}");
        assert_eq!(harness.metric(&format!("leastgate_streams_cut_total{{reason=\"{reason}\"}}")), 1, "{reason}");
        assert!(harness.events(1)[0].contains(reason));
    }
}

#[test]
fn whoever_asks_is_answered_at_once_and_told_how_many() {
    let harness = beginning(CHUNKED);
    let mut clients: Vec<_> = (0..20).map(|_| harness.connect()).collect();
    for client in &mut clients {
        client.send(harness.head("GET /v1/a", ""));
        client.read_to("first");
    }
    let mine = watch(&harness, Whose::Token(harness.entry.accessor));
    let others = watch(&harness, Whose::Token(Accessor::from_random(7)));
    reviewed(&harness);
    assert_eq!(mine.requests(), 0, "nothing has changed");
    revoke(&harness);
    reviewed(&harness);
    assert_eq!((mine.requests(), others.requests()), (20, 0));
    clients.iter_mut().for_each(|client| drop(client.rest()));
    reviewed(&harness);
    assert_eq!(mine.requests(), 20, "each once");
    assert_eq!(harness.metric("leastgate_streams_cut_total{reason=\"token_revoked\"}"), 20);
}

/// Requests that were let through a moment before are not too young for a review that is asked for.
#[test]
fn nothing_that_was_let_through_before_outlives_a_review() {
    for _ in 0..20 {
        let harness = harness(Connection::wait_until_closed);
        let mut client = harness.connect();
        client.send(harness.head("GET /v1/a", ""));
        harness.upstream.wait_for("/v1/a");
        let started = Instant::now();
        let mine = watch(&harness, Whose::Everybody);
        revoke(&harness);
        reviewed(&harness);
        assert_eq!(mine.requests(), 1, "after {:?}", started.elapsed());
        assert_eq!(client.reply().status, 401);
    }
}

/// A worker that is gone is not waited for.
#[test]
fn without_workers_there_is_nothing_to_wait_for() {
    let mut harness = beginning(CHUNKED);
    harness.plane.take().unwrap().shutdown();
    revoke(&harness);
    reviewed(&harness);
}

#[test]
fn data_behind_the_decision_is_not_passed_on() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n\r\n");
        upstream.write(MESSAGES);
        while upstream.try_write(b"6\r\nsecond\r\n") {
            thread::sleep(Duration::from_millis(1));
        }
        upstream.close("[closed]");
    });
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let stream = client.open(&[&head("POST", "/v1/a", &bearer)[..], GRPC].concat(), END_STREAM);
    while client.so_far(stream).is_none_or(|answer| answer.body.len() < 100) {
        client.read().unwrap();
    }
    revoke(&harness);
    reviewed(&harness);
    // What was written before the review is in the socket; behind it there is the end and nothing else.
    let answer = client.answer(stream);
    assert!(answer.is_whole || answer.reset == Some(CANCEL), "{answer:?}");
    harness.upstream.wait_for("[closed]");
    canary_is_refused(&harness, &mut client, stream);
}

/// The token is refused, the connection is not, and nothing more comes of the stream that was cut.
fn canary_is_refused(harness: &Harness, client: &mut Client, cut: u32) {
    let next = request(harness, client, "GET", "/v1/canary");
    loop {
        let frame = client.read().expect("the connection stays open");
        assert!(frame.stream != cut || frame.kind != DATA, "data behind the cut");
        if client.is_over(next) {
            break;
        }
    }
    assert_eq!(client.answer(next).status, 401);
}
