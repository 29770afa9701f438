//! Clients of HTTP/2 that cost memory or lie about a length (P23, P26): what they cost, and what the upstream gets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{TestGateway, request};
use leastgate_testkit::http2::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    head,
};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::recorder::{Answer, Gate, RecorderUpstream, Step};
use leastgate_testkit::results;
use leastgate_testkit::token::Token;
use leastgate_testkit::vitals::Watch;

use crate::clients::{Asker, Protocol, Question};
use crate::fixtures::{Orders, setup};
use crate::slow_clients::{Neighbour, Stops};

const MIB: u64 = 1 << 20;
const INITIAL_WINDOW_SIZE: u16 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Fields of a name and a value of 4,000 bytes that a head refers to by one byte each (RFC 7541 §2.3.2).
const REFERENCE: u8 = 0x80 | 62;

/// Floods while a neighbour on another connection asks, from before the first frame to after the last; how often it did.
fn beside<T>(ask: impl FnOnce(&dyn Fn(usize) -> bool) -> usize + Send, flood: impl FnOnce() -> T) -> (T, usize) {
    let (asked, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            ask(&|times| {
                asked.store(times > 0, Ordering::SeqCst);
                !over.load(Ordering::SeqCst)
            })
        });
        let stops = Stops(&over);
        until_true("the neighbour's first answer", PATIENCE, || asked.load(Ordering::SeqCst) || asking.is_finished());
        let flooded = flood();
        drop(stops);
        (flooded, asking.join().expect("the neighbour is served"))
    })
}

/// The same with a neighbour whose requests go to the upstream and get each its own answer.
fn beside_served<T>(orders: &Orders, flood: impl FnOnce() -> T) -> (T, usize) {
    let neighbour = Neighbour { gateway: &orders.gateway, token: orders.reader() };
    beside(|goes_on| neighbour.ask_while(goes_on).len(), flood)
}

/// The same with one that is refused, where the upstream takes nobody else.
fn beside_refused<T>(gateway: &TestGateway, token: &Token, flood: impl FnOnce() -> T) -> (T, usize) {
    let ask = |goes_on: &dyn Fn(usize) -> bool| {
        let (mut asker, mut times) = (Asker::new(gateway, token, Protocol::Http1), 0);
        while goes_on(times) {
            assert_eq!(asker.ask(&Question::get("/v1/elsewhere", "refused")).status(), 403);
            times += 1;
        }
        times
    };
    beside(ask, flood)
}

fn record_memory(what: &str, bound: u64, taken: u64, served: usize) {
    let promise = format!("at most {bound} MiB more, a neighbour gets every answer meanwhile");
    let measured = format!("{} more; {served} requests of a neighbour answered", results::bytes(taken));
    results::record(
        "faults",
        &format!("hostile clients of h2: {what}"),
        &[("promise", promise), ("measured", measured)],
    );
}

/// A field that is not put into the table: an index of the static one for its name, then its value.
fn literal(index: &[u8], value: &str) -> Vec<u8> {
    [index, &[u8::try_from(value.len()).expect("a length of seven bits")], value.as_bytes()].concat()
}

/// A request of the reader's whose head refers to the large field so many times.
fn bomb(orders: &Orders, references: usize) -> Vec<u8> {
    let bearer = format!("Bearer {}", orders.reader().secret());
    assert!(bearer.len() < 127, "its length takes one byte");
    let mut block = vec![0x82, 0x86];
    block.extend(literal(&[0x04], "/v1/orders"));
    block.extend(literal(&[0x01], "orders.test"));
    block.extend(literal(&[0x0f, 0x08], &bearer));
    block.resize(block.len() + references, REFERENCE);
    block
}

/// The field itself, in a head that is refused for the lack of anything else.
fn charge() -> Vec<u8> {
    let value = "v".repeat(4_000);
    // 4,000 with a prefix of seven bits: 127, then 3,873 in groups of seven.
    [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], value.as_bytes()].concat()
}

/// A connection on which no answer has room for a body, with the large field in its table.
fn charged(orders: &Orders) -> Client {
    let mut client = Client::connect(orders.gateway.data(), &[(INITIAL_WINDOW_SIZE, 0)]);
    let head = [bomb(orders, 0), charge()].concat();
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &head));
    client
}

fn canary(orders: &Orders) {
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders/ca4a12").status, 200);
}

/// CVE-2026-49975, CVE-2026-47774: a byte of the head is 4,000 of memory, and streams that do not end keep it.
#[test]
fn heads_that_unfold_and_streams_that_stall_take_little_memory() {
    let orders = Orders::start();
    canary(&orders);
    let watch = Watch::of(orders.gateway.id());
    // Within the limit of a head, 12 KiB of it by reference; no answer gets through.
    let mut stalled: Vec<Client> = (0..8).map(|_| charged(&orders)).collect();
    for client in &mut stalled {
        for stream in (3..43).step_by(2) {
            client.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb(&orders, 3)));
        }
    }
    until_true("what is within the limit to arrive", PATIENCE, || orders.upstream.count() == 1 + 8 * 21);
    let explode = || {
        let mut client = charged(&orders);
        // 62 MiB each.
        let heads =
            (3..103).step_by(2).map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb(&orders, 16_000)));
        client.send(heads.collect::<Vec<_>>().concat());
        client.read_to_end();
        assert_eq!(client.goaway.map(|(_, code)| code), Some(ENHANCE_YOUR_CALM));
    };
    let ((), served) = beside_served(&orders, || (0..20).for_each(|_| explode()));
    let taken = watch.growth();
    assert!(taken < 32 * MIB, "{taken} bytes for a thousand heads of 62 MiB and 168 streams that stall");
    record_memory("a thousand heads of 62 MiB by reference, 168 streams that stall", 32, taken, served);
    canary(&orders);
    let bombs = orders.upstream.requests().iter().filter(|request| request.head.bytes.len() > 16 << 10).count();
    assert_eq!(bombs, 0, "a head over the limit reaches nobody");
}

/// CVE-2023-44487, CVE-2025-8671, RUSTSEC-2024-0332: that each ends its connection, the proxy's own suite tests.
#[test]
fn floods_of_resets_and_of_continuations_take_little_memory() {
    let orders = Orders::start();
    canary(&orders);
    let watch = Watch::of(orders.gateway.id());
    let head = bomb(&orders, 0);
    let request = |stream: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
    let reset = |stream: u32| [request(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    let provoked = |stream: u32| [request(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
    let endless = |stream: u32| match stream {
        1 => frame(HEADERS, END_STREAM, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &literal(&[0x00, 1, b'x'], &"v".repeat(120)).repeat(100)),
    };
    let floods: [&dyn Fn(u32) -> Vec<u8>; 3] = [&reset, &provoked, &endless];
    let ((), served) = beside_served(&orders, || {
        for flood in floods.into_iter().cycle().take(30) {
            let mut client = Client::connect(orders.gateway.data(), &[]);
            // The connection may end before the flood does.
            let _ = (1..20_000).step_by(2).all(|stream| client.send(flood(stream)));
            client.read_to_end();
        }
    });
    let taken = watch.growth();
    assert!(taken < 32 * MIB, "{taken} bytes for 30 floods");
    record_memory("30 floods of resets, provoked resets and CONTINUATION", 32, taken, served);
    canary(&orders);
}

/// RUSTSEC-2026-0258: frames without a byte need no window, and whoever keeps them until the body is asked for keeps any
/// number. Nobody asks while the request waits for a connection.
#[test]
fn a_flood_of_empty_frames_takes_no_memory() {
    let (upstream, tokens, gate) = (RecorderUpstream::start(), orders_tokens(), Gate::default());
    upstream.on("/v1/orders", Answer::steps([Step::Wait(gate.clone()), Step::Echo]));
    let narrow = ", max_connections: 1, connect_timeout: 60s, response_timeout: 60s";
    let gateway = setup(&tokens).section("workers", "1").upstream_with("orders", &upstream.url(), narrow).start();
    let mut first = gateway.client();
    first.send(request("GET", "/v1/orders", Some(&tokens["READER"])));
    until_true("the first request", PATIENCE, || upstream.count() == 1);

    let watch = Watch::of(gateway.id());
    let mut client = Client::connect(gateway.data(), &[]);
    let bearer = format!("Bearer {}", tokens["WRITER"].secret());
    client.open(&head("POST", "/v1/orders", &bearer), 0);
    let empty = frame(DATA, 0, 1, b"").repeat(1_000);
    let (sent, served) = beside_refused(&gateway, &tokens["READER"], || {
        let sent = (0..1_000).take_while(|_| client.send(&empty)).count();
        // What was sent is read, or the connection has ended.
        client.send(frame(PING, 0, 0, b"all read"));
        while client.read().is_some_and(|frame| frame.kind != PING) {}
        sent
    });
    let taken = watch.growth();
    assert!(taken < 16 * MIB, "{taken} bytes for {sent} thousand empty frames");
    record_memory("a million empty DATA frames", 16, taken, served);
    assert!(matches!(client.goaway, Some((_, ENHANCE_YOUR_CALM)) | None), "{:?}", client.goaway);

    gate.open();
    assert_eq!(first.read().unwrap().status, 200);
    assert_eq!(gateway.get(&tokens["READER"], "/v1/orders/7b0e").status, 200);
    assert!(upstream.requests().iter().all(|request| request.method() == "GET" || !request.complete));
}

/// CVE-2019-9512, CVE-2019-9515: each asks for an answer, and who keeps the answers for a client that reads none of them
/// keeps any number.
#[test]
fn floods_of_questions_without_a_reader_take_no_memory() {
    let orders = Orders::start_with(|setup| setup.limit("response_stall: 1s"));
    canary(&orders);
    let watch = Watch::of(orders.gateway.id());
    let floods = [("PING", frame(PING, 0, 0, b"question")), ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))];
    for (name, question) in floods {
        let mut client = Client::connect(orders.gateway.data(), &[]);
        let many = question.repeat(1_000);
        // It ends with the connection, or when the gateway stops to read.
        client.set_write_patience(PATIENCE / 10);
        let (sent, served) = beside_served(&orders, || (0..5_000).take_while(|_| client.send(&many)).count());
        let taken = watch.growth();
        assert!(taken < 16 * MIB, "{taken} bytes for {sent} thousand {name} frames");
        record_memory(&format!("{name} frames whose answers nobody reads"), 16, taken, served);
        canary(&orders);
    }
}

/// RFC 9113 §8.1.1: a length is the sum of the frames, or the request is malformed.
#[test]
fn a_length_that_is_not_the_sum_of_the_frames_makes_no_request() {
    let orders = Orders::start();
    let bearer = format!("Bearer {}", orders.token("WRITER").secret());
    let send = |length: &str, parts: &[&str]| {
        let mut client = Client::connect(orders.gateway.data(), &[]);
        let fields = [&head("POST", "/v1/orders", &bearer)[..], &[("content-length", length)]].concat();
        let stream = client.open(&fields, if parts.is_empty() { END_STREAM } else { 0 });
        for (number, part) in parts.iter().enumerate() {
            client.data(stream, part.as_bytes(), if number + 1 == parts.len() { END_STREAM } else { 0 });
        }
        client.answer(stream).status
    };
    assert_eq!((send("5", &["he", "llo"]), send("0", &[])), (200, 200));
    let whole = orders.upstream.count();
    for (length, parts) in [
        ("5", &[][..]),
        ("5", &["hel"]),
        ("5", &["he", "l"]),
        ("5", &["hello", ""]),
        ("5", &["hello!"]),
        ("5", &["hello", "!"]),
        ("0", &["hello"]),
        ("18446744073709551616", &["hello"]),
    ] {
        let status = send(length, parts);
        let is_a_request = *parts == ["hello", ""];
        assert_eq!(status == 200, is_a_request, "{length} for {parts:?}: {status}");
        assert!(is_a_request || [0, 400].contains(&status), "{length} for {parts:?}: {status}");
        canary(&orders);
    }
    let got = orders.upstream.since(whole);
    let bodies: Vec<_> = got.iter().filter(|request| request.complete && request.method() == "POST").collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}
