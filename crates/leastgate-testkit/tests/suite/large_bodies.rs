//! Bodies that no memory should hold: a gigabyte either way, with a reader that pauses on the far side. What arrives is
//! told by its checksum, what the gateway keeps by its memory.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::authority::{Authority, params};
use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::http2::{Client, END_STREAM, head};
use leastgate_testkit::http2_upstream::{self, Http2Upstream, Move};
use leastgate_testkit::pattern::Pattern;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::{Answer, RecorderUpstream, Step};
use leastgate_testkit::results;
use leastgate_testkit::token::Token;
use leastgate_testkit::vitals::Watch;

use crate::clients::Protocol;
use crate::fixtures::setup;
use crate::tls_relay::Relay;

/// What the gateway may take for it, however much it is.
const BOUND: u64 = 16 << 20;

/// How often a slow reader pauses, and for how long: the pauses are what these tests are about. What it left unread
/// meanwhile is more than the bound, unless somebody holds the sender back.
const PAUSES: u64 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// The longest that a gigabyte may take on a machine that does other things too.
const LONG: Duration = Duration::from_secs(300);

fn length() -> u64 {
    results::sized(64 << 20, 1 << 30)
}

/// So much is moved before, so that what is kept for good is there already.
const WARM: u64 = 8 << 20;

enum Upstream {
    Http1(RecorderUpstream),
    Http2(Http2Upstream),
}

impl Upstream {
    fn start(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(RecorderUpstream::start()),
            Protocol::Http2 => Self::Http2(Http2Upstream::start()),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(upstream) => upstream.address(),
            Self::Http2(upstream) => upstream.address(),
        }
    }

    fn offer(&self, path: &str, length: u64) {
        match self {
            Self::Http1(upstream) => upstream.on(path, Answer::steps([Step::Pattern(length)])),
            Self::Http2(upstream) => upstream.on(path, http2_upstream::Answer::moves([Move::Pattern(length)])),
        }
    }

    fn take_slowly(&self, each: u64) {
        match self {
            Self::Http1(upstream) => {
                let each = usize::try_from(each).unwrap();
                upstream.on("/v1/orders", Answer::early([Step::ReadSlowly(each, PAUSE), Step::Echo]));
            }
            Self::Http2(upstream) => upstream.take_slowly(each, PAUSE),
        }
    }

    /// Length and checksum of the last body that came whole.
    fn taken(&self) -> (u64, String) {
        match self {
            Self::Http1(upstream) => {
                let got = upstream.requests().into_iter().rfind(|request| request.complete).unwrap();
                (got.body_length, got.body_hash)
            }
            Self::Http2(upstream) => {
                let got = upstream.requests().into_iter().rfind(|request| request.is_complete).unwrap();
                (got.body_length, got.body_hash)
            }
        }
    }
}

/// A gateway between the two, with tokens that may read and write.
struct Way {
    gateway: TestGateway,
    /// Where clients go.
    front: SocketAddr,
    upstream: Upstream,
    token: Token,
    client: Protocol,
    name: String,
    /// Who speaks TLS for the client and for the upstream.
    _relays: Option<[Relay; 2]>,
}

impl Way {
    fn of(client: Protocol, server: Protocol) -> Self {
        let (tokens, upstream) = (orders_tokens(), Upstream::start(server));
        let http2 = if server == Protocol::Http2 { ", http2: true" } else { "" };
        let gateway = setup(&tokens)
            .limit("body: 2GiB")
            .upstream_with("orders", &format!("http://{}", upstream.address()), http2)
            .start();
        let (front, name) = (gateway.data(), format!("{} to {}", client.name(), server.name()));
        Self { gateway, front, upstream, token: tokens["WRITER"].clone(), client, name, _relays: None }
    }

    /// The same with TLS on both sides.
    fn over_tls(client: Protocol, server: Protocol) -> Self {
        let (tokens, upstream, authority) = (orders_tokens(), Upstream::start(server), Authority::new("authority"));
        let signed = authority.sign(&params(&["orders.test"], 2040));
        let behind = Relay::before(upstream.address(), &signed, server.alpn());
        let url = format!("https://{}", behind.address());
        let http2 = if server == Protocol::Http2 { ", http2: true" } else { "" };
        let keys = format!(", tls: {{ ca: ca.pem, name: orders.test }}{http2}");
        let setup = setup(&tokens).limit("body: 2GiB").upstream_with("orders", &url, &keys);
        authority.write(setup.path(), "ca.pem");
        signed.write(setup.path(), "web");
        let gateway = setup.data_tls("cert: web.pem, key: web.key").start();
        let ahead = Relay::to(gateway.data(), &authority, "orders.test", client.alpn());
        let (front, name) = (ahead.address(), format!("{} to {}, TLS on both sides", client.name(), server.name()));
        let token = tokens["WRITER"].clone();
        Self { gateway, front, upstream, token, client, name, _relays: Some([ahead, behind]) }
    }

    /// Every way in the clear, and either protocol over TLS.
    fn all() -> impl Iterator<Item = Self> {
        let clear = Protocol::BOTH.into_iter().flat_map(|client| Protocol::BOTH.map(|server| Self::of(client, server)));
        clear.chain(Protocol::BOTH.into_iter().map(|protocol| Self::over_tls(protocol, protocol)))
    }

    /// What a transfer of that much does to the gateway's memory, told to the results.
    fn measure(&self, what: &str, slow: &str, transfer: impl Fn(u64, bool)) {
        transfer(WARM, false);
        for is_slow in [false, true] {
            let (watch, began) = (Watch::of(self.gateway.id()), Instant::now());
            transfer(length(), is_slow);
            let (growth, took) = (watch.growth(), began.elapsed());
            let pace = if is_slow { slow } else { "both as fast as they can" };
            let what = format!("{what} of {} MiB, {}, {pace}", length() >> 20, self.name);
            assert!(growth <= BOUND, "{what}: {growth} bytes more");
            let promise = "every byte arrives, in at most 16 MiB of memory more".to_owned();
            let speed = length() * 1_000 / u64::try_from(took.as_millis().max(1)).unwrap();
            let measured =
                format!("checksums equal; {} more, {} a second", results::bytes(growth), results::bytes(speed));
            results::record("faults", &what, &[("promise", promise), ("measured", measured)]);
        }
    }

    /// Reads an answer of that length, with pauses or without.
    fn download(&self, length: u64, is_slow: bool) {
        let path = format!("/v1/orders/{length:x}");
        self.upstream.offer(&path, length);
        let mut reader = Reader { hasher: blake3::Hasher::new(), taken: 0, each: is_slow.then_some(length / PAUSES) };
        match self.client {
            Protocol::Http1 => self.download_http1(&path, &mut reader),
            Protocol::Http2 => self.download_http2(&path, &mut reader),
        }
        assert_eq!((reader.taken, reader.checksum()), (length, Pattern::checksum(length)), "{}", self.name);
    }

    fn download_http1(&self, path: &str, reader: &mut Reader) {
        let mut client = RawClient::connect(self.front);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: orders.test\r\n{}\r\n\r\n", self.token.header()));
        let (_, status, head) = client.read_head(PATIENCE).unwrap();
        assert_eq!(status, 200);
        client.read_framed(&head, LONG, |part| reader.take(part)).unwrap();
    }

    fn download_http2(&self, path: &str, reader: &mut Reader) {
        let mut client = Client::connect(self.front, &[]);
        let stream = self.open(&mut client, "GET", path, END_STREAM);
        loop {
            reader.take(&client.take_body(stream));
            if client.is_over(stream) {
                break;
            }
            assert!(client.read().is_some(), "the connection ends within the body");
        }
        let answer = client.answer(stream);
        assert!(answer.status == 200 && answer.is_whole, "{answer:?}");
    }

    /// Sends a body of that length to an upstream that pauses, or does not.
    fn upload(&self, length: u64, is_slow: bool) {
        if is_slow {
            self.upstream.take_slowly(length / PAUSES);
        }
        let status = match self.client {
            Protocol::Http1 => self.upload_http1(length),
            Protocol::Http2 => self.upload_http2(length),
        };
        assert_eq!((status, self.upstream.taken()), (200, (length, Pattern::checksum(length))), "{}", self.name);
    }

    fn upload_http1(&self, length: u64) -> u16 {
        let mut client = RawClient::connect(self.front);
        let head = format!("POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\nContent-Length: {length}\r\n");
        client.send(format!("{head}{}\r\n\r\n", self.token.header()));
        let mut pattern = Pattern::new(length);
        while pattern.left() > 0 {
            client.try_send(pattern.next(usize::MAX)).unwrap();
        }
        client.read_for("POST", PATIENCE).unwrap().status
    }

    fn upload_http2(&self, length: u64) -> u16 {
        let mut client = Client::connect(self.front, &[]);
        let stream = self.open(&mut client, "POST", "/v1/orders", 0);
        assert!(client.send_body(stream, &mut Pattern::new(length)));
        client.answer(stream).status
    }

    fn open(&self, client: &mut Client, method: &str, path: &str, flags: u8) -> u32 {
        let bearer = format!("Bearer {}", self.token.secret());
        client.open(&head(method, path, &bearer), flags)
    }
}

/// Whoever takes a body.
struct Reader {
    hasher: blake3::Hasher,
    taken: u64,
    /// How much it takes between two pauses.
    each: Option<u64>,
}

impl Reader {
    fn take(&mut self, part: &[u8]) {
        self.hasher.update(part);
        let before = self.taken;
        self.taken += part.len() as u64;
        if self.each.is_some_and(|each| before / each != self.taken / each) {
            thread::sleep(PAUSE);
        }
    }

    fn checksum(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

#[test]
fn a_download_of_any_size_arrives_whole_and_waits_for_its_reader() {
    for way in Way::all() {
        way.measure("download", "the client pauses", |length, is_slow| way.download(length, is_slow));
    }
}

#[test]
fn an_upload_of_any_size_arrives_whole_and_waits_for_the_upstream() {
    for way in Way::all() {
        way.measure("upload", "the upstream pauses", |length, is_slow| way.upload(length, is_slow));
    }
}
