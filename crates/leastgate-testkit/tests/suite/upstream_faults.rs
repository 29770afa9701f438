//! Every way in which an upstream fails, with clients of both protocols: the right status or an end that the client sees,
//! nothing crossed, nothing leaked, and the next request is served (P20, P24, P28). The upstreams here speak HTTP/1.1.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true, within};
use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::http2::{SETTINGS, frame};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::recorder::{Answer, Gate, RecorderUpstream, Step};
use leastgate_testkit::results;
use leastgate_testkit::token::Token;

use crate::clients::{Asker, Protocol, Question, Seen};
use crate::fixtures::{Orders, setup};

/// A body that is longer than any buffer between a client and an upstream that does not read.
pub(crate) const UNREAD: u64 = 256 << 10;

/// How many connections to the upstream may be left for the next requests, which come one by one: a client may be faster
/// with its next than the last one's connection is back.
const KEPT: usize = 2;

/// How long it may take until an upstream that is back is asked again: the promise, where nothing else runs and the gateway
/// is the one that ships; ten times that in a run of all tests.
fn recovery() -> Duration {
    results::sized(PATIENCE, Duration::from_secs(1))
}

/// What a fault must come to.
#[derive(Clone, Copy)]
pub(crate) enum Promise {
    /// This status and this problem.
    Refused(u16, &'static str),
    /// An answer that the client sees is not whole.
    Cut,
    /// An answer with this text.
    Answered(&'static str),
}

use Promise::{Answered, Cut, Refused};

pub(crate) const PROTOCOL: Promise = Refused(502, "upstream-protocol");
pub(crate) const TIMEOUT: Promise = Refused(504, "upstream-timeout");
pub(crate) const UNREACHABLE: Promise = Refused(503, "upstream-unreachable");

impl Promise {
    fn is_kept(self, seen: &Seen) -> bool {
        match (self, seen) {
            (Refused(wanted, kind), Seen::Whole { status, problem, .. }) => {
                (*status, problem.as_deref()) == (wanted, Some(kind))
            }
            (Cut, Seen::Cut) => true,
            (Answered(text), Seen::Whole { status: 200, body, .. }) => body == text,
            _ => false,
        }
    }

    fn says(self) -> String {
        match self {
            Refused(status, kind) => format!("{status} {kind}"),
            Cut => "the client sees that it is cut".to_owned(),
            Answered(_) => "the answer".to_owned(),
        }
    }
}

/// A row: what the upstream does, told to it with a gate that opens when the client has the head of the answer.
pub(crate) struct Fault<A> {
    pub(crate) name: &'static str,
    pub(crate) promise: Promise,
    /// The length of the request's body.
    pub(crate) body: u64,
    /// How many connections a request may leave open that was sent once more.
    pub(crate) opens: usize,
    pub(crate) answer: Box<dyn Fn(Gate) -> A>,
}

impl<A> Fault<A> {
    pub(crate) fn new(name: &'static str, promise: Promise, answer: impl Fn(Gate) -> A + 'static) -> Self {
        Self { name, promise, body: 0, opens: 0, answer: Box::new(answer) }
    }

    pub(crate) fn with_body(self, body: u64) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn opening(self, opens: usize) -> Self {
        Self { opens, ..self }
    }
}

/// An upstream in its worst hours, and the gateway before it.
pub(crate) struct Stage<'a, A> {
    /// The protocol of the upstream, as the results name it.
    pub(crate) kind: &'static str,
    pub(crate) gateway: &'a TestGateway,
    pub(crate) token: &'a Token,
    pub(crate) on: &'a dyn Fn(&str, A),
    /// How many connections the upstream has open.
    pub(crate) open: &'a dyn Fn() -> usize,
}

/// The deadlines that these tests wait for, and one worker, whose connections to the upstream can be counted.
pub(crate) fn impatient(setup: Setup) -> Setup {
    setup.section("workers", "1").limit("upstream_response: 400ms").limit("upstream_total: 1200ms")
}

impl<A> Stage<'_, A> {
    /// Lets the upstream fail in each way, for clients of both protocols, and looks at what is left of it.
    pub(crate) fn play(&self, faults: &[Fault<A>]) {
        self.canary("begin", Protocol::Http1);
        let (idle, mut kept) = (self.files_at_rest(), KEPT);
        for (number, fault) in faults.iter().enumerate() {
            let measured = Protocol::BOTH.map(|protocol| self.suffer(fault, number, protocol)).join("; ");
            kept += fault.opens * Protocol::BOTH.len();
            self.assert_at_rest(fault.name, idle, kept);
            let promise = format!("{}; the next requests get their own answers, nothing leaks", fault.promise.says());
            let values = [("promise", promise), ("measured", measured)];
            results::record("faults", &format!("{} upstream: {}", self.kind, fault.name), &values);
        }
    }

    /// What it comes down to before anything has failed: a connection that has just ended is still counted for a moment.
    fn files_at_rest(&self) -> i64 {
        let (mut last, mut looks) = (0, 0);
        until_true("rest", PATIENCE, || {
            let now = files(self.gateway, self.open);
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            looks >= 5
        });
        last
    }

    /// Nothing is in flight, no connection is left over on either side.
    fn assert_at_rest(&self, what: &str, idle: i64, kept: usize) {
        let in_flight = || self.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]);
        until_true(&format!("{what}: the last request's end"), PATIENCE, || in_flight() == 0.0);
        let mut left = (0, 0);
        let is_at_rest = within(PATIENCE, || {
            left = ((self.open)(), files(self.gateway, self.open));
            (left.0 <= kept && left.1 == idle).then_some(())
        });
        let (open, files) = left;
        assert!(is_at_rest.is_some(), "{what}: {open} connections are left, and {files} other files, not {idle}");
    }

    fn suffer(&self, fault: &Fault<A>, number: usize, protocol: Protocol) -> String {
        let path = if fault.body > 0 { "/v1/orders".to_owned() } else { format!("/v1/orders/bad{number:02x}") };
        let gate = Gate::default();
        (self.on)(&path, (fault.answer)(gate.clone()));
        let (mut victim, mut other) = (self.asker(protocol), self.asker(Protocol::Http1));
        let what = format!("{}, {}", fault.name, protocol.name());
        assert_own(&what, &mut other, "/v1/orders/0e");
        let method = if fault.body > 0 { "POST" } else { "GET" };
        let question = Question { method, path: &path, probe: "victim", body: fault.body, on_head: gate };
        let (began, seen) = (Instant::now(), victim.ask(&question));
        let took = began.elapsed();
        assert!(fault.promise.is_kept(&seen), "{what}: {seen:?}");
        if fault.body > 0 {
            // What is left of a request that was answered early can't be told from the next: its connection may have ended.
            let seen = victim.ask(&Question::get("/v1/orders/0e", "next"));
            assert!(seen == Seen::Closed || seen.is_own("/v1/orders/0e", "next"), "{what}: {seen:?}");
        }
        let after = Instant::now();
        for round in 0..3 {
            assert_own(&what, &mut victim, &format!("/v1/orders/a{round}"));
            assert_own(&what, &mut other, &format!("/v1/orders/b{round}"));
        }
        let status = match seen {
            Seen::Whole { status, .. } => status.to_string(),
            Seen::Cut => "cut".to_owned(),
            Seen::Closed => "closed unanswered".to_owned(),
        };
        let [took, next] = [took, after.elapsed() / 6].map(milliseconds);
        format!("{} {status} after {took}, the next in {next}", protocol.name())
    }

    fn canary(&self, what: &str, protocol: Protocol) {
        assert_own(what, &mut self.asker(protocol), "/v1/orders/ca");
    }

    fn asker(&self, protocol: Protocol) -> Asker<'_> {
        Asker::new(self.gateway, self.token, protocol)
    }
}

/// A client gets its own answer, at the first attempt.
pub(crate) fn assert_own(what: &str, asker: &mut Asker<'_>, path: &str) {
    let probe = format!("own-{path}");
    let seen = asker.ask(&Question::get(path, &probe));
    assert!(seen.is_own(path, &probe), "{what}: {path} got {seen:?}");
}

/// The file descriptors of the gateway beside its connections to the upstream.
fn files(gateway: &TestGateway, open: &dyn Fn() -> usize) -> i64 {
    let files = gateway.metrics().sum("process_open_fds", &[]);
    format!("{files:.0}").parse::<i64>().unwrap() - i64::try_from(open()).unwrap()
}

pub(crate) fn milliseconds(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..10_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        micros => format!("{} ms", micros / 1_000),
    }
}

fn half(framing: &str, part: &str) -> Step {
    Step::send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}"))
}

fn whole(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

fn faults() -> Vec<Fault<Answer>> {
    let length = || half("content-length: 100", "half");
    let chunked = |part| half("transfer-encoding: chunked", part);
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let steps = |steps: Vec<Step>| Answer::steps(steps);
    vec![
        Fault::new("closed before the head", PROTOCOL, move |_| steps(vec![Step::Close])),
        Fault::new("reset before the head", PROTOCOL, move |_| steps(vec![Step::Reset])),
        Fault::new("killed in mid-response", Cut, move |gate| steps(vec![length(), Step::Wait(gate), Step::Reset])),
        Fault::new("hung before the head", TIMEOUT, move |_| steps(vec![Step::Hold])),
        Fault::new("hung in mid-body", Cut, move |_| steps(vec![length(), Step::Hold])),
        Fault::new("cut in a body of known length", Cut, move |_| steps(vec![length(), Step::Close])),
        Fault::new("cut in a chunked body", Cut, move |_| steps(vec![chunked("4\r\nhalf\r\n"), Step::Close])),
        Fault::new("a chunk that is none", Cut, move |_| steps(vec![chunked("4\r\nhalf\r\nXX\r\n"), Step::Hold])),
        Fault::new("garbage", PROTOCOL, |_| Answer::raw("garbage\r\n\r\n")),
        Fault::new("another protocol", PROTOCOL, |_| Answer::raw(frame(SETTINGS, 0, 0, &[]))),
        Fault::new("two framings", PROTOCOL, move |_| Answer::raw(both)),
        Fault::new("a head of 1 MiB", PROTOCOL, |_| {
            Answer::raw(format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(1 << 20)))
        }),
        Fault::new("a 101 that nobody asked for", PROTOCOL, |_| {
            Answer::raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: foo\r\nconnection: upgrade\r\n\r\n")
        }),
        Fault::new("two responses", Answered("first"), |_| Answer::raw(whole("first") + &whole("second"))),
        Fault::new("an answer before the request is read", Answered("early"), |_| {
            Answer::early([Step::send(whole("early")), Step::ReadBody])
        })
        .with_body(UNREAD),
    ]
}

#[test]
fn every_fault_of_an_http1_upstream_ends_as_it_must() {
    let orders = Orders::start_with(impatient);
    let stage = Stage {
        kind: "h1",
        gateway: &orders.gateway,
        token: orders.token("WRITER"),
        on: &|path, answer| orders.upstream.on(path, answer),
        open: &|| orders.upstream.open(),
    };
    stage.play(&faults());
}

#[test]
fn bytes_on_an_idle_connection_answer_nobody() {
    let orders = Orders::start_with(|setup| setup.section("workers", "1"));
    for protocol in Protocol::BOTH {
        let gate = Gate::default();
        let unasked = Step::send(whole("unasked"));
        orders.upstream.on("/v1/orders/1d1e", Answer::steps([Step::Echo, Step::Wait(gate.clone()), unasked]));
        let mut asker = Asker::new(&orders.gateway, orders.reader(), protocol);
        assert_own("before", &mut asker, "/v1/orders/1d1e");
        assert!(orders.upstream.open() > 0, "the connection is kept");
        gate.open();
        until_true("its end", PATIENCE, || orders.upstream.open() == 0);
        for round in 0..3 {
            assert_own("after", &mut asker, &format!("/v1/orders/a{round}"));
        }
        until_true("the next one's end", PATIENCE, || {
            orders.upstream.on("/v1/orders/e0", Answer::steps([Step::Echo, Step::Close]));
            assert_own("end", &mut asker, "/v1/orders/e0");
            orders.upstream.open() == 0
        });
    }
    let promise = "the connection is closed, the bytes are nobody's answer".to_owned();
    let measured = "closed at once; three requests after it each got their own answer, h1 and h2".to_owned();
    let name = "h1 upstream: bytes on an idle connection";
    results::record("faults", name, &[("promise", promise), ("measured", measured)]);
}

/// What each of both clients sees while nobody listens.
pub(crate) fn assert_unreachable(gateway: &TestGateway, token: &Token) {
    for protocol in Protocol::BOTH {
        let seen = Asker::new(gateway, token, protocol).ask(&Question::get("/v1/orders", "dead"));
        assert!(UNREACHABLE.is_kept(&seen), "{}: {seen:?}", protocol.name());
    }
}

/// How long it takes from here to the first answer.
fn until_served(gateway: &TestGateway, token: &Token) -> Duration {
    let began = Instant::now();
    let mut asker = Asker::new(gateway, token, Protocol::Http1);
    until_true("an answer", recovery(), || asker.ask(&Question::get("/v1/orders", "back")).status() == 200);
    began.elapsed()
}

/// An upstream that is started there, serves, and is killed, again and again.
pub(crate) fn come_and_go<U>(
    kind: &str,
    gateway: &TestGateway,
    token: &Token,
    address: SocketAddr,
    start: impl Fn() -> U,
) {
    const TIMES: usize = 5;
    let slowest = (0..TIMES).map(|_| {
        until_refused(address);
        assert_unreachable(gateway, token);
        let upstream = start();
        let time = until_served(gateway, token);
        drop(upstream);
        time
    });
    let slowest = slowest.max().unwrap();
    assert!(slowest <= recovery(), "{slowest:?}");
    let slowest = milliseconds(slowest);
    let promise = "503 upstream-unreachable; served again within 1 s of being back".to_owned();
    let measured = format!("503 to h1 and h2; served again after {slowest} at most");
    let name = format!("{kind} upstream: killed, and back, {TIMES} times");
    results::record("faults", &name, &[("promise", promise), ("measured", measured)]);
}

/// The next one can only listen once the last one has let go.
fn until_refused(address: SocketAddr) {
    until_true("the end of the listener", PATIENCE, || TcpStream::connect(address).is_err());
}

#[test]
fn an_http1_upstream_that_is_killed_is_503_and_serves_again_when_it_is_back() {
    let (tokens, address) = (orders_tokens(), RecorderUpstream::start().address());
    let gateway = setup(&tokens).upstream("orders", &format!("http://{address}")).start();
    come_and_go("h1", &gateway, &tokens["READER"], address, || RecorderUpstream::start_at(address));
}

#[test]
fn of_two_endpoints_the_one_that_is_killed_costs_nobody_an_answer() {
    let (tokens, first, second) = (orders_tokens(), RecorderUpstream::start(), RecorderUpstream::start());
    let gateway = setup(&tokens).upstream_of("orders", &[&first.url(), &second.url()]).start();
    let mut asker = Asker::new(&gateway, &tokens["READER"], Protocol::Http1);
    let ask = |asker: &mut Asker<'_>, count: usize| {
        (0..count).for_each(|number| assert_own("one of two", asker, &format!("/v1/orders/{number:x}")));
    };
    let until_asked = |asker: &mut Asker<'_>, second: &RecorderUpstream| {
        let began = Instant::now();
        until_true("a request at the second", recovery(), || {
            ask(asker, 10);
            second.count() > 0
        });
        began.elapsed()
    };
    let _ = until_asked(&mut asker, &second);
    let address = second.address();
    drop(second);
    until_refused(address);
    ask(&mut asker, 200);
    let second = RecorderUpstream::start_at(address);
    let back = until_asked(&mut asker, &second);
    assert!(back <= recovery(), "{back:?}");
    let back = milliseconds(back);
    let promise = "every GET is answered by the other; it is asked again within 1 s of being back".to_owned();
    let measured = format!("200 of 200 answered; asked again after {back}");
    results::record(
        "faults",
        "h1 upstream: one of two endpoints killed, and back",
        &[("promise", promise), ("measured", measured)],
    );
}
