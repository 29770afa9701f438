//! Upstreams of HTTP/2, reached without asking: what they get, how many share a connection, what is sent again and what
//! is not.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, Response, Version};
use leastgate_testkit::http2::{Answer, Client, DATA, HEADERS, RST_STREAM};
use tokio::sync::Semaphore;

use crate::harness::{Connection, Harness, Options, PATIENCE, Upstream, start_as};
use crate::http2_peers::{Peer, Raw, Served, before, before_with, say, say_with_trailers};

const MAX_CONCURRENT_STREAMS: u16 = 3;

pub(crate) fn get(harness: &Harness, path: &str) -> u16 {
    harness.ask(harness.head(&format!("GET {path}"), "")).status
}

#[test]
fn a_request_is_the_same_in_http2_without_what_only_http1_has() {
    let upstream = Served::answering("hello");
    let harness = before(upstream.address, "");
    let fields = "X-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                  Transfer-Encoding: chunked\r\n";
    let reply = harness.ask(harness.head("POST /v1/a%20b?q=%2f&&", fields) + "2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n");
    assert_eq!((reply.status, reply.body.trim_end()), (200, "5\r\nhello\r\n0"), "{reply:?}");
    let seen = upstream.seen().remove(0);
    assert_eq!(
        (seen.head.version, seen.head.method.as_str(), &seen.body[..]),
        (Version::HTTP_2, "POST", &b"hiyou"[..])
    );
    assert_eq!(seen.head.uri.path_and_query().unwrap().as_str(), "/v1/a%20b?q=%2f&&");
    assert_eq!(seen.head.uri.authority().unwrap(), "orders.internal");
    assert_eq!(seen.head.uri.scheme_str(), Some("http"));
    for gone in ["host", "connection", "x-hop", "te", "keep-alive", "transfer-encoding", "authorization", "upgrade"] {
        assert!(!seen.head.headers.contains_key(gone), "{gone}: {:?}", seen.head.headers);
    }
    let field = |name: &str| seen.head.headers[name].to_str().unwrap().to_owned();
    assert_eq!((field("x-mine"), field("x-leastgate-subject")), ("1".to_owned(), "reader".to_owned()));
    assert_eq!((field("x-forwarded-host"), field("via")), ("orders.internal".to_owned(), "1.1 leastgate".to_owned()));
}

/// Tokens come in a field of their own here, and `Authorization` is the upstream's: HPACK is told to keep it out of every
/// table on the way (RFC 7541 §7.1.3).
#[test]
fn a_credential_that_is_the_upstreams_is_never_indexed() {
    const NEVER_INDEXED: &[u8] = &[0x1f, 23 - 15];
    let (tell, told) = mpsc::channel();
    let upstream = Raw::start(&[], move |peer: &mut Peer| {
        while let Some(head) = peer.next(HEADERS) {
            peer.answer(head.stream);
            tell.send(head.payload).unwrap();
        }
    });
    let options = Options { upstream: "http2: true", credential: "x-api-key", ..Options::default() };
    let harness = start_as(Upstream::at(upstream.address), |_| {}, &options);
    let (ours, theirs) = (format!("X-Api-Key: {}", harness.token), "Authorization: Basic dTpw");
    let head = format!("GET /v1/a HTTP/1.1\r\nHost: orders.internal\r\n{ours}\r\n{theirs}\r\n\r\n");
    assert_eq!(harness.ask(head).status, 200);
    let head = told.recv_timeout(PATIENCE).unwrap();
    assert!(head.windows(2).any(|representation| representation == NEVER_INDEXED), "{head:02x?}");
}

#[test]
fn a_rewritten_host_is_the_authority() {
    let upstream = Served::answering("ok");
    let harness = before(upstream.address, "host: rewrite");
    assert_eq!(get(&harness, "/v1/a"), 200);
    assert_eq!(upstream.seen()[0].head.uri.authority().unwrap().as_str(), upstream.address.to_string());
}

/// An upstream that answers when it is told to.
fn waiting(settings: Builder) -> (Served, Arc<Semaphore>) {
    let answers = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&answers);
    let upstream = Served::start(settings, move |_, respond| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            told.acquire().await.unwrap().forget();
            say(respond, b"ok").await;
        })
    });
    (upstream, answers)
}

pub(crate) fn ask_all(harness: &Harness, count: usize) -> Vec<crate::harness::Client> {
    let ask = |index| {
        let mut client = harness.connect();
        client.send(harness.head(&format!("GET /v1/{index}"), ""));
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn many_requests_share_one_connection() {
    let (upstream, answers) = waiting(Builder::new());
    let harness = before(upstream.address, "");
    let clients = ask_all(&harness, 50);
    upstream.wait_until(|seen| seen.len() == 50);
    assert_eq!(upstream.connections(), 1);
    answers.add_permits(50);
    for mut client in clients {
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn an_upstream_gets_no_more_at_a_time_than_it_takes() {
    for (keys, connections) in [("max_connections: 1, connect_timeout: 10s", 1), ("max_connections: 2", 2)] {
        let mut settings = Builder::new();
        settings.max_concurrent_streams(2);
        let (upstream, answers) = waiting(settings);
        let harness = before(upstream.address, keys);
        // The first tells what the upstream takes, before the others come.
        answers.add_permits(1);
        assert_eq!(get(&harness, "/v1/first"), 200);
        let clients = ask_all(&harness, 4);
        let under_way = |seen: &[crate::http2_peers::Seen]| seen.len() - 1;
        upstream.wait_until(|seen| under_way(seen) == connections * 2);
        thread::sleep(Duration::from_millis(100));
        assert_eq!((under_way(&upstream.seen()), upstream.connections()), (connections * 2, connections), "{keys}");
        answers.add_permits(4);
        for mut client in clients {
            assert_eq!(client.reply().status, 200, "who waits has its turn");
        }
    }
}

#[test]
fn those_who_find_no_room_in_time_are_turned_away() {
    let upstream = Raw::start(&[(MAX_CONCURRENT_STREAMS, 1)], |peer: &mut Peer| {
        let first = peer.request();
        let second = peer.request();
        (first, second).0.into_iter().for_each(|stream| peer.answer(stream));
    });
    let harness = before(upstream.address, "max_connections: 1, connect_timeout: 1500ms");
    let mut busy = harness.connect();
    busy.send(harness.head("GET /v1/busy", ""));
    let started = Instant::now();
    while upstream.requests() != [1] {
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(2));
    }
    let reply = harness.ask(harness.head("GET /v1/a", ""));
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.body.contains("urn:leastgate:problem:overloaded"), "{}", reply.body);
    assert_eq!(upstream.requests(), [1]);
}

#[test]
fn a_client_that_leaves_takes_its_stream_along_and_nothing_else() {
    let (upstream, answers) = waiting(Builder::new());
    let harness = before(upstream.address, "");
    let mut leaving = harness.connect();
    leaving.send(harness.head("POST /v1/leaving", "Content-Length: 10\r\n") + "half");
    upstream.wait_until(|seen| seen.first().is_some_and(|seen| seen.body == b"half"));
    drop(leaving);
    let seen = upstream.wait_until(|seen| seen[0].is_over);
    assert!(seen[0].reset.is_some(), "{seen:?}");
    answers.add_permits(2);
    assert_eq!(get(&harness, "/v1/next"), 200);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(harness.in_flight(), 0);
}

#[test]
fn what_is_left_of_a_request_ends_with_its_answer() {
    let (ended, end) = mpsc::channel();
    let upstream = Raw::start(&[], move |peer: &mut Peer| {
        let stream = peer.request().unwrap();
        peer.next(DATA).unwrap();
        peer.answer(stream);
        let answered = Instant::now();
        peer.next(RST_STREAM).unwrap();
        ended.send(answered.elapsed()).unwrap();
        peer.answer_all();
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Content-Length: 10\r\n") + "half");
    assert_eq!(client.reply().status, 200);
    let took = end.recv_timeout(PATIENCE).unwrap();
    assert!(took < Duration::from_millis(500), "{took:?}: it does not wait for the client");
    assert_eq!(get(&harness, "/v1/next"), 200);
    assert_eq!(upstream.requests(), [2]);
}

/// A call of one message of one byte.
pub(crate) fn call(client: &mut Client, content_type: &str, bearer: &str) -> Answer {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "orders.internal"),
        (":path", "/v1/pkg.Service/Call"),
        ("authorization", bearer),
        ("content-type", content_type),
        ("te", "trailers"),
    ];
    let stream = client.open(&fields, 0);
    client.data(stream, b"\0\0\0\0\x01m", 1);
    client.answer(stream)
}

#[test]
fn grpc_gets_its_trailers_and_nobody_elses() {
    let upstream = Served::start(Builder::new(), |seen, respond| {
        Box::pin(async move {
            let mut head = Response::new(());
            if let Some(content_type) = seen.head.headers.get("content-type") {
                head.headers_mut().insert("content-type", content_type.clone());
            }
            let names = ["grpc-status", "grpc-message", "x-leastgate-subject", "connection-x", "set-cookie"];
            let trailers: HeaderMap = names.iter().map(|name| (name.parse().unwrap(), "0".parse().unwrap())).collect();
            say_with_trailers(respond, head, trailers).await;
        })
    });
    let harness = before(upstream.address, "");
    let mut client = Client::open_with(harness.connect().stream, &[]);
    let bearer = format!("Bearer {}", harness.token);
    for (content_type, te, trailers) in [
        ("application/grpc+proto", Some("trailers"), vec!["connection-x", "grpc-message", "grpc-status"]),
        ("application/json", None, vec![]),
    ] {
        let answer = call(&mut client, content_type, &bearer);
        assert_eq!((answer.status, &answer.body[..]), (200, &b"\0\0\0\0\x01m"[..]));
        let mut names: Vec<_> = answer.trailers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, trailers, "{content_type}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.head.headers.get("te").map(|te| te.to_str().unwrap()), te);
    }
    assert_eq!(harness.events(2).iter().filter(|event| event.contains("\"status\":200")).count(), 2);
}

#[test]
fn a_call_whose_trailers_are_over_their_limits_is_cut_and_on_record_as_the_upstreams_fault() {
    for (fields, length, is_whole) in [(32, 1, true), (33, 1, false), (2, 4_000, true), (2, 4_096, false)] {
        let upstream = Served::start(Builder::new(), move |seen, respond| {
            Box::pin(async move {
                let mut head = Response::new(());
                head.headers_mut().insert("content-type", seen.head.headers["content-type"].clone());
                let value = "v".repeat(length);
                let named = |number: usize| (format!("x-{number:02}").parse().unwrap(), value.parse().unwrap());
                say_with_trailers(respond, head, (0..fields).map(named).collect()).await;
            })
        });
        let harness = before(upstream.address, "");
        let mut client = Client::open_with(harness.connect().stream, &[]);
        let bearer = format!("Bearer {}", harness.token);
        let answer = call(&mut client, "application/grpc", &bearer);
        let trailers = if is_whole { fields } else { 0 };
        assert_eq!((answer.is_whole, answer.trailers.len()), (is_whole, trailers), "{fields} of {length}");
        let event = harness.events(1).remove(0);
        assert_eq!(event.contains("upstream_protocol"), !is_whole, "{event}");
    }
}

#[test]
fn an_upstream_that_does_not_speak_it_never_hears_of_the_request() {
    let answering = |upstream: &mut Connection| {
        upstream.read_head();
        upstream.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        upstream.wait_until_closed();
    };
    let silent = |upstream: &mut Connection| upstream.wait_until_closed();
    // What is seen to be wrong is not waited for; the client of the test would not wait as long.
    for (upstream, keys) in
        [(Upstream::start(answering), "connect_timeout: 60s"), (Upstream::start(silent), "connect_timeout: 500ms")]
    {
        let harness = before(upstream.address, keys);
        let started = Instant::now();
        assert_eq!(get(&harness, "/v1/a"), 503);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert!(!upstream.all().contains("/v1/a"), "{}", upstream.all());
    }
}

/// An end in a frame of its own is an end all the same, and what is said where nothing may be said is not passed on.
#[test]
fn a_response_without_a_body_is_whole_without_one() {
    let upstream = Served::start(Builder::new(), |seen, mut respond| {
        Box::pin(async move {
            let status: u16 = seen.head.uri.path().rsplit('/').next().unwrap().parse().unwrap();
            let said = if seen.head.uri.path().contains("chatty") { &b"said"[..] } else { b"" };
            let head = Response::builder().status(status).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let _ = stream.send_data(Bytes::from_static(said), true);
        })
    });
    let harness = before(upstream.address, "");
    let requests = [("HEAD", "/v1/200"), ("GET", "/v1/204"), ("GET", "/v1/304"), ("HEAD", "/v1/chatty/200")];
    for (method, path) in requests {
        let mut client = harness.connect();
        client.send(harness.head(&format!("{method} {path}"), "Connection: close\r\n"));
        let answer = client.rest();
        assert!(answer.ends_with("\r\n\r\n"), "{method} {path}: {answer}");
        assert!(answer.contains("\r\nvia: 2.0 leastgate\r\n"), "{answer}");

        let mut client = crate::http2::connect(&harness, &[]);
        let stream = crate::http2::request(&harness, &mut client, method, path);
        let answer = client.answer(stream);
        assert!(answer.is_whole && answer.body.is_empty(), "{method} {path}: {answer:?}");
    }
    let outcomes = harness.events(2 * requests.len());
    assert!(!outcomes.iter().any(|event| event.contains("broken_off")), "{outcomes:#?}");
}

#[test]
fn interim_answers_are_swallowed() {
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        while let Some(stream) = peer.request() {
            // `:status` by its index, and a literal value.
            peer.send(HEADERS, 4, stream, b"\x08\x03100");
            peer.send(HEADERS, 4, stream, b"\x08\x03103");
            peer.answer(stream);
        }
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    for _ in 0..2 {
        client.send(harness.head("GET /v1/a", ""));
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn what_is_no_response_is_a_502() {
    for head in [&b"\x08\x03101"[..], b"\x88\x00\x0aconnection\x05close", b"\x88\x00\x02X-\x01a", b"\x00\x01a\x01b"] {
        let upstream = Raw::start(&[], move |peer: &mut Peer| {
            let stream = peer.request().unwrap();
            peer.send(HEADERS, 5, stream, head);
            while peer.frames.read().is_some() {}
        });
        let harness = before(upstream.address, "");
        assert_eq!(get(&harness, "/v1/a"), 502, "{head:?}");
    }
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let (ended, end) = mpsc::channel();
    let upstream = Raw::start(&[], move |peer: &mut Peer| {
        peer.answer_all();
        ended.send(()).unwrap();
    });
    let harness = before_with(upstream.address, "", |limits| limits.keep_alive_upstream = Duration::from_millis(100));
    assert_eq!(get(&harness, "/v1/a"), 200);
    end.recv_timeout(PATIENCE).expect("it is closed without a request");
}
