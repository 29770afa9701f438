//! The same for upstreams that speak HTTP/2: a connection of theirs is shared, so what one request suffers must not reach
//! its neighbours.

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::http2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, WINDOW_UPDATE, frame};
use leastgate_testkit::http2_upstream::{Answer, Http2Upstream, Move};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::recorder::{Gate, RecorderUpstream};
use leastgate_testkit::results;

use crate::clients::{Asker, Protocol, Question};
use crate::fixtures::setup;
use crate::upstream_faults::Promise::{Answered, Cut};
use crate::upstream_faults::{
    Fault, PROTOCOL, Stage, TIMEOUT, UNREACHABLE, UNREAD, assert_unreachable, come_and_go, impatient,
};

const HTTP2: &str = ", http2: true";
const PUSH_PROMISE: u8 = 5;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// `:status: 200`, by the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

fn half() -> [Move; 2] {
    [Move::sized(200, 100), Move::Data(b"half".to_vec(), 0)]
}

fn then(next: impl IntoIterator<Item = Move>) -> Answer {
    Answer::moves(half().into_iter().chain(next))
}

fn whole(text: &str) -> [Move; 2] {
    [Move::sized(200, text.len() as u64), Move::Data(text.as_bytes().to_vec(), END_STREAM)]
}

fn bytes(make: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static) -> impl Fn(Gate) -> Answer {
    move |_| Answer::moves([Move::bytes(make.clone())])
}

fn good_bye(_: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0; 8])
}

fn faults() -> Vec<Fault<Answer>> {
    let forbidden = vec![("connection".to_owned(), "close".to_owned())];
    let short = || [Move::sized(200, 100), Move::Data(b"short".to_vec(), END_STREAM)];
    let long = || [Move::sized(200, 2), Move::Data(b"too long".to_vec(), END_STREAM)];
    let first = || whole("first").into_iter().chain([Move::head(200, END_STREAM)]);
    let early = || whole("early").into_iter().chain([Move::Reset(0)]);
    vec![
        Fault::new("closed before the head", PROTOCOL, |_| Answer::moves([Move::Close])),
        Fault::new("reset before the head", PROTOCOL, |_| Answer::moves([Move::Reset(INTERNAL_ERROR)])),
        Fault::new("refuses each stream", UNREACHABLE, |_| Answer::moves([Move::Reset(REFUSED_STREAM)])).opening(1),
        Fault::new("killed in mid-response", Cut, |gate| then([Move::Wait(gate), Move::Close])),
        Fault::new("hung before the head", TIMEOUT, |_| Answer::moves([])),
        Fault::new("hung in mid-body", Cut, |_| then([])),
        Fault::new("reset in mid-body", Cut, |gate| then([Move::Wait(gate), Move::Reset(INTERNAL_ERROR)])),
        Fault::new("a body short of its length", Cut, move |_| Answer::moves(short())),
        Fault::new("a body over its length", Cut, move |_| Answer::moves(long())),
        Fault::new("garbage", PROTOCOL, bytes(|_| b"garbage\r\n\r\n".to_vec())),
        Fault::new("a body before the head", PROTOCOL, bytes(|stream| frame(DATA, END_STREAM, stream, b"body"))),
        Fault::new("a 101", PROTOCOL, |_| Answer::moves([Move::head(101, END_STREAM)])),
        Fault::new("a field of HTTP/1.1", PROTOCOL, move |_| {
            Answer::moves([Move::Head(200, forbidden.clone(), END_STREAM)])
        }),
        Fault::new("two responses", Answered("first"), move |_| Answer::moves(first())),
        Fault::new(
            "an answer on a stream that nobody opened",
            PROTOCOL,
            bytes(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream + 20, &[STATUS_200])),
        ),
        Fault::new(
            "a promise",
            PROTOCOL,
            bytes(|stream| frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82, 0x86, 0x84])),
        ),
        Fault::new(
            "a window that overflows",
            PROTOCOL,
            bytes(|_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ),
        Fault::new("says good-bye each time", UNREACHABLE, bytes(good_bye)),
        Fault::new("an answer before the request is read", Answered("early"), move |_| Answer::early(early()))
            .with_body(UNREAD),
    ]
}

#[test]
fn every_fault_of_an_http2_upstream_ends_as_it_must() {
    let (tokens, upstream) = (orders_tokens(), Http2Upstream::start());
    let gateway = impatient(setup(&tokens)).upstream_with("orders", &upstream.url(), HTTP2).start();
    let stage = Stage {
        kind: "h2",
        gateway: &gateway,
        token: &tokens["WRITER"],
        on: &|path, answer| upstream.on(path, answer),
        open: &|| upstream.open(),
    };
    stage.play(&faults());
}

#[test]
fn what_one_stream_suffers_its_neighbours_on_the_connection_do_not() {
    let (tokens, upstream) = (orders_tokens(), Http2Upstream::start());
    let gateway = impatient(setup(&tokens));
    let gateway = gateway.upstream_with("orders", &upstream.url(), HTTP2).start();
    let ask = |protocol| Asker::new(&gateway, &tokens["READER"], protocol);
    let of_streams =
        ["reset before the head", "reset in mid-body", "a body short of its length", "a field of HTTP/1.1"];
    for fault in faults().into_iter().filter(|fault| of_streams.contains(&fault.name)) {
        for protocol in Protocol::BOTH {
            let (gate, failed) = (Gate::default(), Gate::default());
            let neighbour = [Move::Wait(gate.clone()), Move::Echo];
            upstream.on("/v1/orders/0e", Answer::moves(neighbour));
            upstream.on("/v1/orders/bad", (fault.answer)(failed.clone()));
            std::thread::scope(|scope| {
                let before = upstream.requests().len();
                let question = Question::get("/v1/orders/0e", "neighbour");
                let waiting = scope.spawn(move || ask(Protocol::Http1).ask(&question));
                until_true("the neighbour's request", PATIENCE, || upstream.requests().len() > before);
                let question = Question { on_head: failed, ..Question::get("/v1/orders/bad", "victim") };
                let seen = ask(protocol).ask(&question);
                assert_ne!(seen.status(), 200, "{}: {seen:?}", fault.name);
                gate.open();
                let seen = waiting.join().unwrap();
                assert!(seen.is_own("/v1/orders/0e", "neighbour"), "beside {}: {seen:?}", fault.name);
            });
        }
    }
    assert_eq!(upstream.accepted(), 1, "all of it on one connection");
    let promise = "its neighbours on the connection get their answers".to_owned();
    let measured = format!("{} faults, h1 and h2, on one connection: each neighbour got its own", of_streams.len());
    results::record("faults", "h2 upstream: one stream fails", &[("promise", promise), ("measured", measured)]);
}

#[test]
fn an_http2_upstream_that_is_killed_is_503_and_serves_again_when_it_is_back() {
    let (tokens, address) = (orders_tokens(), Http2Upstream::start().address());
    let gateway = setup(&tokens).upstream_with("orders", &format!("http://{address}"), HTTP2).start();
    come_and_go("h2", &gateway, &tokens["READER"], address, || Http2Upstream::start_at(address));
}

#[test]
fn an_upstream_that_does_not_speak_http2_is_503_and_sees_no_request() {
    let (tokens, upstream) = (orders_tokens(), RecorderUpstream::start());
    let gateway = impatient(setup(&tokens)).upstream_with("orders", &upstream.url(), HTTP2).start();
    assert_unreachable(&gateway, &tokens["READER"]);
    assert!(upstream.requests().iter().all(|request| request.method() != "GET"), "{:?}", upstream.requests());
    let promise = "503 upstream-unreachable, and it sees no request".to_owned();
    let measured = "503 to h1 and h2; no request was sent".to_owned();
    results::record("faults", "h2 upstream: speaks HTTP/1.1", &[("promise", promise), ("measured", measured)]);
}
