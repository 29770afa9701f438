//! A thousand clients that hold a connection and do next to nothing with it, while others want to be served (P25, P27):
//! the slow ones go at their deadline, and cost little until then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway, request};
use leastgate_testkit::http2::{Client, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, head};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::{Answer, RecorderUpstream, Step};
use leastgate_testkit::results;
use leastgate_testkit::token::Token;
use leastgate_testkit::vitals::{Watch, may_open};
use socket2::{Domain, Socket, Type};

use crate::clients::{Asker, Protocol};
use crate::fixtures::{Orders, setup};
use crate::upstream_faults::{assert_own, milliseconds};

/// What one of them may cost the gateway.
const BOUND: u64 = 64 << 10;

/// What one may cost that has a connection to the upstream.
const BOUND_SENDING: u64 = 128 << 10;

/// What one may cost that takes no answer: so far that is read ahead, and as much waits to be written.
const BOUND_UNREAD: u64 = 512 << 10;

/// In seconds: the deadlines of these tests; that of an HTTP/2 connection without a stream; how long one that is told to
/// go may take; how long what a client still sends is read away, so that it sees why it was closed.
const DEADLINE: u64 = 2;
const IDLE: u64 = 1;
const GOODBYE: u64 = 5;
const LINGER: u64 = 5;

/// In seconds too: until the last byte is on its way of what the gateway and both systems keep for a thousand clients that
/// read none of an endless answer. Their deadline begins with it.
const FILLING: u64 = 3;

/// In seconds: what the looks at the gateway and a busy machine may add where results are kept; and in a run of all tests.
fn slack() -> u64 {
    results::sized(PATIENCE.as_secs(), 1)
}

/// From one byte of a slow client to its next.
const TRICKLE: Duration = Duration::from_millis(100);

/// How many connections to the upstream may be left, for those who come next.
const KEPT: usize = 2;

/// How many more files the gateway has open for a client that asks for one thing after the other.
const NEIGHBOUR: f64 = 3.0;

/// What the request for this is answered with goes on for ever.
const ENDLESS: &str = "/v1/orders/f100d";

fn count() -> usize {
    results::sized(200, 1_000)
}

/// How long other clients are watched before.
fn calm() -> usize {
    results::sized(200, 2_000)
}

/// What a slow client says at first, and then again and again.
struct Slow {
    name: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
    bound: u64,
    /// When it is gone, in seconds: at its deadline; and then the gateway may wait for it to hear that it is to go.
    gone: u64,
}

/// A gateway with short deadlines, and an upstream that lends each of them a connection: what others get must not depend
/// on how many it has.
struct Scene {
    gateway: TestGateway,
    upstream: RecorderUpstream,
    tokens: BTreeMap<&'static str, Token>,
}

impl Scene {
    fn set() -> Self {
        let (tokens, upstream) = (orders_tokens(), RecorderUpstream::start());
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
        upstream.on(ENDLESS, Answer::steps([Step::send(head), Step::Flood(1 << 40)]));
        let limits = ["first_byte: 2s", "head_timeout: 2s", "body_idle: 2s", "body_grace: 1s", "response_stall: 2s"];
        let setup = limits.into_iter().fold(setup(&tokens), Setup::limit);
        let setup = setup.limit("body_min_rate: 1000B/s").limit("http2_idle: 1s").limit("connections_per_source: 5000");
        let gateway = setup.upstream_with("orders", &upstream.url(), ", max_connections: 5000").start();
        Self { gateway, upstream, tokens }
    }
}

/// What other clients see.
pub(crate) struct Neighbour<'a> {
    pub(crate) gateway: &'a TestGateway,
    pub(crate) token: &'a Token,
}

impl Neighbour<'_> {
    /// Asks as long as it is wanted, each time for its own; gives the time of each answer, in order of length.
    pub(crate) fn ask_while(&self, mut goes_on: impl FnMut(usize) -> bool) -> Vec<Duration> {
        let mut asker = Asker::new(self.gateway, self.token, Protocol::Http1);
        let mut times = Vec::new();
        while goes_on(times.len()) {
            let began = Instant::now();
            assert_own("a neighbour", &mut asker, &format!("/v1/orders/{:x}", times.len()));
            times.push(began.elapsed());
        }
        times.sort();
        times
    }
}

/// Sets a flag on the way out, and the way out of a test that fails too.
pub(crate) struct Stops<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// The segments of an Ethernet: by those of the loopback interface, the gateway's system would keep megabytes for each.
const SEGMENT: u32 = 1_460;

/// A client whose system takes no more than it must.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.into()
}

/// How long each client stays: by the system's list of the gateway's sockets, for one that reads nothing hears of no end.
struct Stays {
    gateway: SocketAddr,
    /// When each came that is there, by its port.
    came: BTreeMap<u16, Instant>,
    longest: Duration,
    looked: Instant,
}

impl Stays {
    fn at(gateway: SocketAddr) -> Self {
        Self { gateway, came: BTreeMap::new(), longest: Duration::ZERO, looked: Instant::now() }
    }

    fn come(&mut self, client: &TcpStream, came: Instant) {
        self.came.insert(client.local_addr().unwrap().port(), came);
        if self.looked.elapsed() > TRICKLE {
            self.look();
        }
    }

    /// Notes who has gone since the last look, as if it were just now: nobody is taken to have stayed shorter than they did.
    fn look(&mut self) {
        let there = sockets_at(self.gateway.port());
        self.looked = Instant::now();
        let gone = self.came.iter().filter(|(port, _)| !there.contains(port)).map(|(_, came)| *came);
        self.longest = gone.map(|came| self.looked - came).max().unwrap_or_default().max(self.longest);
        self.came.retain(|port, _| there.contains(port));
    }
}

/// The ports of those who are connected to this one, accepted or not yet: what the process has closed has no inode, even if
/// the system still says good-bye.
fn sockets_at(port: u16) -> BTreeSet<u16> {
    // ESTABLISHED, SYN_RECV.
    const WAITING: [&str; 2] = ["01", "03"];
    let text = fs::read_to_string("/proc/net/tcp").unwrap();
    let port_of = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
    let client = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().take(10).collect();
        let [_, local, remote, state, .., inode] = columns[..] else { return None };
        let is_open = WAITING.contains(&state) || inode != "0";
        (port_of(local) == Some(port) && is_open).then(|| port_of(remote))?
    };
    text.lines().filter_map(client).collect()
}

/// Goes on saying what is said again on every connection, until the gateway has none of them any more.
fn trickle(clients: &mut [TcpStream], stays: &mut Stays, slow: &Slow, left: impl Fn() -> Option<f64>) {
    let end = Instant::now() + Duration::from_secs(slow.gone) + PATIENCE;
    loop {
        stays.look();
        let (there, left) = (stays.came.len(), left());
        if there == 0 && left.is_none() {
            return;
        }
        assert!(Instant::now() < end, "{there} slow clients are still connected, {left:?} files more");
        for client in &mut *clients {
            // Who is closed already can't be written to.
            let _ = client.write(&slow.again);
        }
        thread::sleep(TRICKLE);
    }
}

/// More than the systems of both sides keep for a client that reads nothing.
const MOST_BUFFERED: usize = 32 << 20;

/// The other end of a connection that the gateway has ended.
fn assert_ended(client: &mut TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut buffer, mut taken) = ([0; 64 * 1024], 0);
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => taken += read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the client never hears of the end: {error}"),
        }
        assert!(taken < MOST_BUFFERED, "{taken} bytes and no end: the gateway has not ended this one");
    }
}

fn endure(make: impl FnOnce(&Scene) -> Slow) {
    assert!(may_open(4 * count() as u64), "the tests need more open files");
    let scene = Scene::set();
    let slow = make(&scene);
    let neighbour = Neighbour { gateway: &scene.gateway, token: &scene.tokens["READER"] };
    let before = neighbour.ask_while(|asked| asked < calm());
    let files = || scene.gateway.metrics().sum("process_open_fds", &[]);
    let (few, over) = (files() + NEIGHBOUR, AtomicBool::new(false));

    let (watch, mut clients) = (Watch::of(scene.gateway.id()), Vec::new());
    let (stays, meanwhile) = thread::scope(|scope| {
        let asking = scope.spawn(|| neighbour.ask_while(|_| !over.load(Ordering::SeqCst)));
        let _stops = Stops(&over);
        let mut stays = Stays::at(scene.gateway.data());
        for _ in 0..count() {
            let began = Instant::now();
            let mut client = connect(scene.gateway.data());
            client.write_all(&slow.first).unwrap();
            stays.come(&client, began);
            clients.push(client);
        }
        trickle(&mut clients, &mut stays, &slow, || Some(files() - few).filter(|left| *left > 0.0));
        over.store(true, Ordering::SeqCst);
        (stays, asking.join().unwrap())
    });
    let each = watch.growth() / count() as u64;
    // A client that reads again is slow no more: none may be left that the gateway still waits for.
    until_true("the last request's end", PATIENCE, || {
        scene.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]) == 0.0
    });
    clients.iter_mut().for_each(assert_ended);
    until_true("the end of the upstream's connections", PATIENCE, || scene.upstream.open() <= KEPT);
    assert!(each <= slow.bound, "{}: {each} bytes for each", slow.name);
    let longest = stays.longest;
    assert!(longest <= Duration::from_secs(slow.gone + slack()), "{}: one was gone after {longest:?}", slow.name);
    record(&slow, longest, each, &before, &meanwhile);
}

fn record(slow: &Slow, longest: Duration, each: u64, before: &[Duration], meanwhile: &[Duration]) {
    let ratio = p99(meanwhile).as_secs_f64() / p99(before).as_secs_f64();
    let bound = slow.bound >> 10;
    let promise = format!(
        "each is gone {} s after its connect at the latest and costs {bound} KiB at most; everybody else is served",
        slow.gone + slack()
    );
    let measured = format!(
        "gone {} after its connect at the latest; {} each; {} requests of another client answered, p99 {ratio:.1} times that of an idle gateway",
        milliseconds(longest),
        results::bytes(each),
        meanwhile.len(),
    );
    let name = format!("slow clients: {}, {}", count(), slow.name);
    results::record("faults", &name, &[("promise", promise), ("measured", measured)]);
}

fn text(name: &'static str, first: &str, again: &str) -> Slow {
    Slow { name, first: first.as_bytes().to_vec(), again: again.as_bytes().to_vec(), bound: BOUND, gone: DEADLINE }
}

/// HTTP/2: what a client says up to its first head, with no room for the body of an answer; and the head.
fn http2(scene: &Scene, method: &str, path: &str) -> (Vec<u8>, Vec<u8>) {
    let bearer = format!("Bearer {}", scene.tokens["WRITER"].secret());
    // Only its encoder is needed.
    let block = Client::silent(scene.gateway.client().socket()).block(&head(method, path, &bearer));
    let no_window = [0, 4, 0, 0, 0, 0];
    ([PREFACE, &frame(SETTINGS, 0, 0, &no_window)].concat(), block)
}

#[test]
fn silent_clients_are_closed_and_delay_nobody() {
    endure(|_| text("silent", "", ""));
}

#[test]
fn clients_with_half_a_preface_are_closed_and_delay_nobody() {
    endure(|_| text("half a preface", "PRI * HTTP/2.0\r\n\r\nSM\r", ""));
}

#[test]
fn clients_with_a_slow_head_are_closed_and_delay_nobody() {
    endure(|_| text("slow head", "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nX-Slow: ", "a"));
}

#[test]
fn clients_with_a_slow_body_are_closed_and_delay_nobody() {
    endure(|scene| {
        let head = "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\nContent-Length: 100000\r\n";
        let first = format!("{head}{}\r\n\r\npart", scene.tokens["WRITER"].header());
        Slow { bound: BOUND_SENDING, gone: DEADLINE + LINGER, ..text("slow body", &first, "b") }
    });
}

#[test]
fn clients_that_read_nothing_are_closed_and_delay_nobody() {
    endure(|scene| {
        let head =
            format!("GET {ENDLESS} HTTP/1.1\r\nHost: orders.test\r\n{}\r\n\r\n", scene.tokens["READER"].header());
        Slow { bound: BOUND_UNREAD, gone: DEADLINE + FILLING, ..text("reads nothing", &head, "") }
    });
}

#[test]
fn http2_clients_with_half_a_head_are_closed_and_delay_nobody() {
    endure(|scene| {
        let (begin, block) = http2(scene, "GET", "/v1/orders");
        let first = [begin, frame(HEADERS, END_STREAM, 1, &block[..10])].concat();
        Slow { name: "h2, half a head", first, again: Vec::new(), bound: BOUND, gone: IDLE + GOODBYE }
    });
}

#[test]
fn http2_clients_with_a_slow_body_are_closed_and_delay_nobody() {
    endure(|scene| {
        let (begin, block) = http2(scene, "POST", "/v1/orders");
        let first = [begin, frame(HEADERS, END_HEADERS, 1, &block)].concat();
        Slow {
            name: "h2, slow body",
            first,
            again: frame(DATA, 0, 1, b"b"),
            bound: BOUND_SENDING,
            // Twice: what it is answered has no room either.
            gone: 2 * DEADLINE + IDLE + GOODBYE + LINGER,
        }
    });
}

#[test]
fn http2_clients_that_read_nothing_are_closed_and_delay_nobody() {
    endure(|scene| {
        let (begin, block) = http2(scene, "GET", ENDLESS);
        let first = [begin, frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat();
        Slow {
            name: "h2, reads nothing",
            first,
            again: Vec::new(),
            bound: BOUND_UNREAD,
            gone: DEADLINE + FILLING + IDLE + GOODBYE,
        }
    });
}

/// What one address gets unless it is told otherwise.
#[test]
fn an_address_has_256_connections_by_default() {
    const DEFAULT: usize = 256;
    let orders = Orders::start();
    let mut clients: Vec<RawClient> = (0..DEFAULT + 44).map(|_| orders.gateway.client()).collect();
    let is_refused =
        |client: &mut RawClient| client.expect_close(Duration::from_millis(1)).is_err_and(|what| what.contains("503"));
    let mut refused = 0;
    until_true("the rest to be refused", PATIENCE, || {
        clients.retain_mut(|client| !is_refused(client));
        refused = DEFAULT + 44 - clients.len();
        refused >= 44
    });
    assert_eq!(refused, 44);
    let mut other = RawClient::connect_from(orders.gateway.data(), std::net::Ipv4Addr::new(127, 83, 0, 1));
    other.send(request("GET", "/v1/orders", Some(orders.reader())));
    assert_eq!(other.read().expect("an answer").status, 200, "another address has its own");
    let promise = "256 connections, the next get 503".to_owned();
    let measured = format!("{} held, {refused} of 300 refused", clients.len());
    results::record(
        "faults",
        "slow clients: connections of one address, by default",
        &[("promise", promise), ("measured", measured)],
    );
}
