//! Trailers: none is passed on, in either direction, and there may be only so many.

use crate::harness::{Connection, OK, harness};

/// Takes bodies of chunks.
fn take_chunks(upstream: &mut Connection) {
    while upstream.read_until("0\r\n\r\n") {
        upstream.write(OK);
    }
}

fn fields(count: usize) -> String {
    (0..count).map(|n| format!("x-{n}: v\r\n")).collect()
}

#[test]
fn trailers_of_a_request_stay_behind_whatever_they_are_called() {
    let harness = harness(take_chunks);
    let credential = format!("Authorization: Bearer {}", harness.token);
    let trailers = [
        "X-Plain: late",
        "Host: late",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: late",
        "Trailer: late",
        "TE: trailers",
        &credential,
        "Cookie: late",
        "X-Leastgate-Subject: late",
        "X_Leastgate_Subject: late",
        "X-Forwarded-For: late",
        "X-HTTP-Method-Override: late",
    ];
    let head = harness.head("POST /v1/a", "TE: trailers\r\nTrailer: x-plain, host\r\nTransfer-Encoding: chunked\r\n");
    let mut client = harness.connect();
    let one_by_one = trailers.iter().map(|trailer| format!("{trailer}\r\n"));
    let lots: Vec<String> = one_by_one.chain([trailers.join("\r\n") + "\r\n"]).collect();
    for lot in &lots {
        client.send(format!("{head}2\r\nhi\r\n0\r\n{lot}\r\n"));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{lot}: {reply:?}");
    }
    let received = harness.upstream.all().to_ascii_lowercase();
    assert_eq!(received.matches("\r\n\r\n2\r\nhi\r\n0\r\n\r\n").count(), lots.len(), "{received}");
    for gone in ["late", "trailer", "lgt_", "content-length"] {
        assert!(!received.contains(gone), "{gone} in {received}");
    }
}

#[test]
fn trailers_over_their_caps_end_the_request_before_the_upstream_has_it_whole() {
    let harness = harness(take_chunks);
    let sized = |bytes: usize| format!("x: {}\r\n", "v".repeat(bytes - 1));
    let lots = [
        (fields(32), 200, ""),
        (fields(33), 431, "head_too_large"),
        (sized(8 << 10), 200, ""),
        (sized((8 << 10) + 1), 431, "head_too_large"),
        // Beyond what hyper reads, it is no body any more.
        (fields(200), 400, "request_malformed"),
        (sized(64 << 10), 400, "request_malformed"),
        ("no field\r\n".into(), 400, "request_malformed"),
    ];
    let mut whole = 0;
    for (index, (trailers, status, reason)) in lots.iter().enumerate() {
        let mut client = harness.connect();
        let head = harness.head("POST /v1/a", "Transfer-Encoding: chunked\r\n");
        let next = if *status == 200 { String::new() } else { harness.head("GET /v1/smuggled", "") };
        client.send(format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n{next}"));
        let reply = client.reply();
        assert_eq!(reply.status, *status, "{} bytes of trailers: {reply:?}", trailers.len());
        if *status == 200 {
            whole += 1;
            continue;
        }
        assert!(reply.has("connection: close"));
        assert!(client.is_closed());
        assert!(harness.events(index + 1).iter().any(|event| event.contains(reason)));
        assert_eq!(harness.upstream.all().matches("0\r\n\r\n").count(), whole, "{} bytes", trailers.len());
    }
    assert!(!harness.upstream.all().contains("smuggled"));
}

#[test]
fn trailers_of_a_response_stay_behind_and_the_connection_serves_on() {
    let many = fields(50);
    let harness = harness(move |upstream| {
        upstream.answer_all(&format!(
            "HTTP/1.1 200 OK\r\ntrailer: set-cookie\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
             Set-Cookie: late\r\nX-Leastgate-Subject: late\r\nContent-Length: 5\r\n{many}\r\n"
        ));
    });
    let mut client = harness.connect();
    for _ in 0..3 {
        client.send(harness.head("GET /v1/a", "TE: trailers\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_str()), (200, "2\r\nok\r\n0\r\n\r\n"));
        assert!(!reply.head.contains("trailer"), "{}", reply.head);
    }
    assert_eq!(harness.upstream.received().len(), 1);
}

#[test]
fn trailers_of_a_response_without_end_break_it_off() {
    for trailers in [fields(200), format!("x: {}\r\n", "v".repeat(80 << 10))] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n");
        let harness = harness(move |upstream| upstream.answer_all(&answer));
        let mut client = harness.connect();
        client.send(harness.head("GET /v1/a", ""));
        let all = client.rest();
        assert!(all.contains("2\r\nok\r\n") && !all.contains("0\r\n\r\n"), "{all}");
        let event = harness.events(1).remove(0);
        assert!(event.contains("upstream_protocol"), "{event}");
    }
}
