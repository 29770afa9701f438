//! What every upstream is tried with. The client is the strict raw one; what the upstream saw is in its own log.

use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::raw::{RawClient, Reply};
use leastgate_testkit::token::Token;

use crate::peer::{Wire, big};
use crate::seen::Seen;
use crate::upstreams::Bed;

type Scenario = fn(&mut Bed) -> String;

pub(crate) const REFUSAL: &str = "refusal of an unread upload";
pub(crate) const REFUSAL_SENT_ON: &str = "refusal while the client sends on";

pub(crate) const ALL: &[(&str, Scenario)] = &[
    ("GET", get),
    ("HEAD", head),
    ("204", |bed| without_body(bed, "/v1/empty", 204)),
    ("304", |bed| without_body(bed, "/v1/unchanged", 304)),
    ("POST with a length", |bed| post(bed, b"a body of known length", false)),
    ("POST chunked", |bed| post(bed, b"a body of unknown length", true)),
    ("10 MiB up", |bed| post(bed, &big(), false)),
    ("10 MiB up, chunked", |bed| post(bed, &big(), true)),
    ("10 MiB down", download),
    ("chunked answer", chunked),
    ("trailers stay behind", trailers),
    ("103", hints),
    (REFUSAL, |bed| refusal(bed, 32 * 1024)),
    (REFUSAL_SENT_ON, |bed| refusal(bed, UPLOAD)),
    ("Expect", expect),
    ("HTTP/1.0", http10),
    ("pipelined", pipelined),
    ("restart", restart),
    ("stream", stream),
    ("WebSocket", websocket),
    ("identity", identity),
];

/// What is refused; more than fits between the two.
const UPLOAD: usize = 8 << 20;

/// Names a request for the upstream's log.
fn fresh_cell() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("cell-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request under the token WIDE: its cell, and its head with these further lines.
fn request(bed: &Bed, line: &str, more: &str) -> (String, String) {
    let cell = fresh_cell();
    let credential = bed.tokens.wide().header();
    let head = format!("{line}\r\nHost: orders.test\r\n{credential}\r\nX-Cell: {cell}\r\n{more}\r\n");
    (cell, head)
}

/// Sends GET on a connection of its own.
fn ask(bed: &Bed, target: &str) -> (Reply, Seen) {
    let (cell, head) = request(bed, &format!("GET {target} HTTP/1.1"), "");
    let reply = bed.gateway.exchange(head);
    (reply, judged(bed, &cell, "GET", target))
}

/// What the upstream saw of a cell: the judged request, the gateway's word on who asks, and nothing of the client's hop.
fn judged(bed: &Bed, cell: &str, method: &str, target: &str) -> Seen {
    let seen = bed.peer.wait_seen(cell, || {
        let (_, another) = request(bed, "GET /v1/after HTTP/1.1", "");
        hello(&bed.gateway.exchange(another));
    });
    assert_eq!((seen.method(), seen.target()), (method, target), "the bytes that were judged");
    assert_eq!((seen.subject(), seen.host()), ("wide", "orders.test"));
    assert_eq!((seen.authorization(), seen.expect(), seen.forwarded_for()), ("-", "-", "127.0.0.1"));
    if !target.ends_with("/ws") {
        assert_eq!((seen.upgrade(), seen.te()), ("-", "-"));
        assert!(["-", "keep-alive"].contains(&seen.connection()), "Connection: {}", seen.connection());
    }
    if bed.wire == Wire::Http1 {
        assert!(seen.length() == "-" || seen.coding() == "-", "two framings: {seen:?}");
    }
    seen
}

/// 200 `hello`, which is how an upstream says that it took the request for what it was.
fn hello(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{:?}", reply.head.fields);
}

fn get(bed: &mut Bed) -> String {
    let query = "?a=1&b=%20%2f+&&c=%C3%A9&d[]=x;y&e='~!*()";
    let (reply, seen) = ask(bed, &format!("/v1/echo/caf%C3%A9/a%20b{query}"));
    hello(&reply);
    assert!(reply.head.one("content-length") == Some("5") || bed.wire != Wire::Http1, "{:?}", reply.head.fields);
    assert!(seen.decoded().ends_with("/a b"), "decoded once: {}", seen.decoded());
    String::new()
}

fn head(bed: &mut Bed) -> String {
    let (cell, head) = request(bed, "HEAD /v1/big HTTP/1.1", "");
    let mut client = bed.gateway.client();
    client.send(head);
    let reply = client.read_for("HEAD", PATIENCE).unwrap();
    assert_eq!(reply.status, 200);
    judged(bed, &cell, "HEAD", "/v1/big");
    // The next answer begins where this head ended.
    let (_, next) = request(bed, "GET /v1/after HTTP/1.1", "");
    client.send(next);
    hello(&client.read().unwrap());
    let length = reply.head.one("content-length");
    assert!(length.is_none() || length == Some("10485760"), "{length:?}");
    if length.is_none() { "the upstream gives no length".to_owned() } else { String::new() }
}

fn without_body(bed: &mut Bed, target: &str, status: u16) -> String {
    let mut client = bed.gateway.client();
    let (cell, head) = request(bed, &format!("GET {target} HTTP/1.1"), "");
    client.send(head);
    let reply = client.read().unwrap();
    assert_eq!(reply.status, status);
    assert!(!reply.head.has("transfer-encoding"), "{:?}", reply.head.fields);
    judged(bed, &cell, "GET", target);
    let (_, next) = request(bed, "GET /v1/after HTTP/1.1", "");
    client.send(next);
    hello(&client.read().unwrap());
    String::new()
}

fn post(bed: &mut Bed, body: &[u8], chunked: bool) -> String {
    let framing = if chunked {
        "Transfer-Encoding: chunked\r\n".to_owned()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let (cell, head) = request(bed, "POST /v1/sum HTTP/1.1", &framing);
    let mut client = bed.gateway.client();
    client.send(head);
    if chunked {
        send_chunks(&mut client, body);
    } else {
        client.send(body);
    }
    let reply = client.read_for("POST", PATIENCE * 3).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = judged(bed, &cell, "POST", "/v1/sum");
    if bed.wire == Wire::Http1 {
        let wanted = if chunked { ("-".to_owned(), "chunked") } else { (body.len().to_string(), "-") };
        assert_eq!((seen.length().to_owned(), seen.coding()), wanted, "framing");
    }
    let got = match seen.file() {
        "-" => reply.text(),
        file => sum(&std::fs::read(file).unwrap()),
    };
    assert_eq!(got, sum(body), "length and checksum of what arrived");
    String::new()
}

fn send_chunks(client: &mut RawClient, body: &[u8]) {
    for piece in body.chunks(40_000) {
        client.send(format!("{:x}\r\n", piece.len()));
        client.send(piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
}

/// Length and Adler-32 (RFC 1950), as the upstreams write it.
fn sum(body: &[u8]) -> String {
    let (a, b) = body.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    format!("{} {}", body.len(), (b << 16) | a)
}

fn download(bed: &mut Bed) -> String {
    let (reply, _) = ask(bed, "/v1/big");
    assert_eq!(reply.status, 200);
    assert!(reply.body == big(), "{} bytes came, or others", reply.body.len());
    String::new()
}

fn chunked(bed: &mut Bed) -> String {
    let (reply, _) = ask(bed, "/v1/chunked");
    assert_eq!((reply.status, reply.text().as_str()), (200, "one two three"));
    let is_chunked = reply.head.one("transfer-encoding") == Some("chunked");
    assert!(is_chunked || reply.head.has("content-length"), "{:?}", reply.head.fields);
    if is_chunked { String::new() } else { "the upstream gives a length".to_owned() }
}

/// They are no part of what was judged, and only gRPC's calls cannot do without them: the cells of grpcio look at those.
fn trailers(bed: &mut Bed) -> String {
    let (cell, head) = request(bed, "GET /v1/trailers HTTP/1.1", "TE: trailers\r\nConnection: TE\r\n");
    let mut client = bed.gateway.client();
    client.send(head);
    let (_, status, head) = client.read_head(PATIENCE).unwrap();
    assert_eq!(status, 200);
    let mut body = Vec::new();
    let trailers = client.read_framed(&head, PATIENCE, |piece| body.extend_from_slice(piece)).unwrap();
    assert_eq!((String::from_utf8_lossy(&body).as_ref(), trailers.len()), ("one two three", 0), "{trailers:?}");
    judged(bed, &cell, "GET", "/v1/trailers");
    let (_, next) = request(bed, "GET /v1/after HTTP/1.1", "");
    client.send(next);
    hello(&client.read().unwrap());
    String::new()
}

fn hints(bed: &mut Bed) -> String {
    let (reply, _) = ask(bed, "/v1/hints");
    hello(&reply);
    assert_eq!(reply.interim, [0_u16; 0], "an interim answer ends at the gateway");
    String::new()
}

/// The client stops in its upload, or never reads before its end; the answer comes all the same, and the next requests get
/// theirs.
fn refusal(bed: &mut Bed, sent: usize) -> String {
    let (cell, head) = request(bed, "POST /v1/refuse HTTP/1.1", &format!("Content-Length: {UPLOAD}\r\n"));
    let mut client = bed.gateway.client();
    client.send(head);
    client.send(vec![b'r'; sent]);
    let reply = client.read_for("POST", PATIENCE).unwrap();
    assert_eq!(reply.status, 413, "{}", reply.text());
    judged(bed, &cell, "POST", "/v1/refuse");
    for _ in 0..4 {
        hello(&bed.gateway.exchange(request(bed, "GET /v1/after HTTP/1.1", "").1));
    }
    drop(client);
    String::new()
}

fn expect(bed: &mut Bed) -> String {
    let (cell, head) = request(bed, "POST /v1/sum HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n");
    let mut client = bed.gateway.client();
    client.send(head);
    client.read_interim(100, PATIENCE);
    client.send("abcde");
    assert_eq!(client.read_for("POST", PATIENCE).unwrap().status, 200);
    judged(bed, &cell, "POST", "/v1/sum");
    String::new()
}

fn http10(bed: &mut Bed) -> String {
    for (target, body) in [("/v1/echo", "hello"), ("/v1/chunked", "one two three")] {
        let (cell, head) = request(bed, &format!("GET {target} HTTP/1.0"), "");
        let mut client = bed.gateway.client();
        client.send(head);
        let reply = client.read().unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, body));
        assert!(!reply.head.has("transfer-encoding"), "HTTP/1.0 has no chunks");
        assert!(reply.closes || client.expect_close(PATIENCE).is_ok(), "the connection ends");
        judged(bed, &cell, "GET", target);
    }
    String::new()
}

fn pipelined(bed: &mut Bed) -> String {
    let wanted = [("/v1/echo?1", "hello"), ("/v1/chunked", "one two three"), ("/v1/echo?3", "hello")];
    let sent: Vec<(String, String)> =
        wanted.iter().map(|(target, _)| request(bed, &format!("GET {target} HTTP/1.1"), "")).collect();
    let mut client = bed.gateway.client();
    client.send(sent.iter().map(|(_, head)| head.as_str()).collect::<String>());
    for ((target, body), (cell, _)) in wanted.iter().zip(&sent) {
        let reply = client.read().unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, *body), "in order");
        judged(bed, cell, "GET", target);
    }
    String::new()
}

/// The connections that the gateway keeps die with the upstream; whoever asks next gets a new one.
fn restart(bed: &mut Bed) -> String {
    let connections: Vec<String> = (0..6).map(|_| ask(bed, "/v1/echo").1.port().to_owned()).collect();
    let reused = connections.iter().collect::<std::collections::BTreeSet<_>>().len() < connections.len();
    bed.peer.stop();
    bed.peer.run_again();
    for _ in 0..4 {
        hello(&ask(bed, "/v1/echo").0);
    }
    assert!(reused, "no connection was used again: ports {connections:?}");
    String::new()
}

/// Events come as they are sent: the first one long before the last.
fn stream(bed: &mut Bed) -> String {
    let (cell, head) = request(bed, "GET /v1/stream HTTP/1.1", "");
    let mut client = bed.gateway.client();
    client.send(head);
    let (_, status, head) = client.read_head(PATIENCE).unwrap();
    assert_eq!(status, 200);
    let (mut times, mut text) = (Vec::new(), String::new());
    client
        .read_framed(&head, PATIENCE, |piece| {
            times.push(Instant::now());
            text.push_str(&String::from_utf8_lossy(piece));
        })
        .unwrap();
    assert!(text.starts_with("data: 0") && text.ends_with("\n\n"), "{text}");
    let spread = *times.last().unwrap() - times[0];
    assert!(spread > Duration::from_millis(400), "all of it within {spread:?}");
    judged(bed, &cell, "GET", "/v1/stream");
    String::new()
}

/// The key and the answer to it of RFC 6455, 1.3.
fn websocket(bed: &mut Bed) -> String {
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (cell, head) = request(bed, "GET /v1/ws HTTP/1.1", handshake);
    let mut client = bed.gateway.client();
    client.send(head);
    let (_, status, head) = client.read_head(PATIENCE).unwrap();
    assert_eq!((status, head.one("sec-websocket-accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), "{head:?}");
    client.send(b"\x81\x85\x01\x02\x03\x04igohn");
    assert_eq!(read_exactly::<7>(&client), *b"\x81\x05hello", "the echo");
    client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8");
    assert_eq!(client.read_rest(PATIENCE).unwrap(), b"\x88\x02\x03\xe8", "the close, and the end");
    let seen = judged(bed, &cell, "GET", "/v1/ws");
    assert_eq!(seen.upgrade().to_lowercase(), "websocket");
    String::new()
}

fn read_exactly<const N: usize>(client: &RawClient) -> [u8; N] {
    let (mut socket, mut bytes) = (client.socket(), [0; N]);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

/// What a client says of itself is not heard, in any spelling.
fn identity(bed: &mut Bed) -> String {
    let said = "X-Leastgate-Subject: admin\r\nx-leastgate-scopes: all\r\nX-Forwarded-For: 6.6.6.6\r\n\
                Forwarded: for=6.6.6.6\r\nX-HTTP-Method-Override: DELETE\r\n";
    let (cell, head) = request(bed, "GET /v1/echo HTTP/1.1", said);
    hello(&bed.gateway.exchange(head));
    judged(bed, &cell, "GET", "/v1/echo");
    let named = "X_Leastgate_Subject: admin\r\n";
    let (cell, head) = request(bed, "GET /v1/echo HTTP/1.1", named);
    assert_eq!(bed.gateway.exchange(head).status, 400);
    assert_eq!(refused(bed, bed.tokens.reader(), "/v1/echo"), 403);
    assert!(bed.peer.seen().iter().all(|seen| seen.cell() != cell), "what is refused arrives nowhere");
    String::new()
}

fn refused(bed: &Bed, token: &Token, target: &str) -> u16 {
    bed.gateway.get(token, target).status
}
