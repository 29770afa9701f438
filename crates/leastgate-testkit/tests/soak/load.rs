//! The load that behaves: each visitor is a loop of one kind of request with a pause drawn from the seed.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use leastgate_testkit::token::Token;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use crate::churn::Life;
use crate::client::{Ask, Body, Got, HOST_CALLS, HOST_PLAIN, Protocol, Sender, Target};
use crate::ledger::bytes_of;
use crate::rng::Rng;
use crate::upstream::{MANY, event};
use crate::{misbehaving, sockets};

/// Requests on a connection before its client opens another one: more than a gateway lets through now and then.
const ON_ONE: u64 = 1500;

/// What the load may take to end, its longest requests included.
const ENDING: Duration = Duration::from_secs(60);

/// How long a stream may go on after its token's revocation was answered.
const CUT: Duration = Duration::from_secs(3);

/// One loop's view of a gateway.
pub(crate) struct Visitor {
    pub(crate) target: Arc<Target>,
    pub(crate) rng: Rng,
}

/// The loops of one gateway.
pub(crate) struct Crowd {
    target: Arc<Target>,
    seed: u64,
    visitors: JoinSet<()>,
}

impl Crowd {
    /// Starts every loop.
    pub(crate) fn start(target: &Arc<Target>, seed: u64) -> Self {
        let mut crowd = Self { target: Arc::clone(target), seed, visitors: JoinSet::new() };
        for protocol in [Protocol::One, Protocol::One, Protocol::One, Protocol::Two, Protocol::Two] {
            crowd.add(|visitor| keeps_alive(visitor, protocol));
        }
        for protocol in [Protocol::One, Protocol::Two] {
            crowd.add(|visitor| uploads(visitor, protocol));
            crowd.add(|visitor| streams(visitor, protocol));
            crowd.add(|visitor| is_refused(visitor, protocol));
            crowd.add(|visitor| passes(visitor, protocol));
            crowd.add(|visitor| is_cut(visitor, protocol));
            crowd.add(|visitor| carries(visitor, protocol));
        }
        crowd.add(comes_anew);
        crowd.add(flips);
        crowd.add(calls);
        crowd.add(calls);
        sockets::add_to(&mut crowd);
        misbehaving::add_to(&mut crowd);
        crowd
    }

    pub(crate) fn add<F: Future<Output = ()> + Send + 'static>(&mut self, visit: impl FnOnce(Visitor) -> F) {
        let number = self.visitors.len() as u64 + 1000 * self.target.place as u64;
        let visitor = Visitor { target: Arc::clone(&self.target), rng: Rng::of(self.seed, number) };
        self.visitors.spawn(visit(visitor));
    }

    /// Waits until each loop has seen that it is over; one that does not is a finding, and so is one that ends in a panic.
    pub(crate) async fn end(&mut self) {
        while !self.target.is_over() {
            sleep(ENDING / 100).await;
        }
        let end = tokio::time::Instant::now() + ENDING;
        while let Ok(Some(ended)) = timeout_at(end, self.visitors.join_next()).await {
            if let Err(error) = ended {
                self.target.ledger.find(format!("{}: a visitor: {error}", self.target.name));
            }
        }
        if !self.visitors.is_empty() {
            self.target.ledger.find(format!("{}: {} visitors hang", self.target.name, self.visitors.len()));
        }
    }
}

impl Visitor {
    /// Waits; `false` once the load is over.
    pub(crate) async fn goes_on(&mut self, mean: u64) -> bool {
        sleep(self.rng.around(Duration::from_millis(mean))).await;
        !self.target.is_over()
    }

    /// A connection that takes requests; the one at hand if it does.
    async fn connected(&self, sender: Option<Sender>, protocol: Protocol, host: &str) -> Option<Sender> {
        match sender.filter(|sender| !sender.is_closed()) {
            Some(sender) => Some(sender),
            None => self.target.open(protocol, host).await,
        }
    }

    fn size(&mut self) -> usize {
        let size = self.rng.one_of(&[0, 1, 200, 2_000, 16_384, 70_000]);
        size + usize::from(self.rng.one_in(2))
    }

    async fn echo(&mut self, sender: &mut Sender, token: &str) -> (Got, Vec<u8>) {
        let size = self.size();
        let got = self.target.exchange(sender, Ask::get(&format!("/v1/echo?size={size}"), token)).await;
        let wanted = bytes_of(got.number, size);
        (got, wanted)
    }
}

/// One connection for many requests, several at a time where the protocol can.
async fn keeps_alive(mut visitor: Visitor, protocol: Protocol) {
    while visitor.goes_on(100).await {
        let Some(mut sender) = visitor.target.open(protocol, HOST_PLAIN).await else { continue };
        let mut others = JoinSet::new();
        for _ in 0..3 {
            if let Some(other) = sender.share() {
                let rng = Rng::of(visitor.rng.next(), 1);
                let beside = Visitor { target: Arc::clone(&visitor.target), rng };
                others.spawn(async move { one_connection(beside, other).await });
            }
        }
        for _ in 0..ON_ONE {
            if sender.is_closed() || !visitor.goes_on(60).await {
                break;
            }
            let token = visitor.target.user.clone();
            let (got, wanted) = visitor.echo(&mut sender, &token).await;
            visitor.target.judge("keep-alive", &got, &wanted);
        }
        while others.join_next().await.is_some() {}
    }
}

async fn one_connection(mut visitor: Visitor, mut sender: Sender) {
    while !sender.is_closed() && visitor.goes_on(120).await {
        let token = visitor.target.user.clone();
        let (got, wanted) = visitor.echo(&mut sender, &token).await;
        visitor.target.judge("another stream", &got, &wanted);
    }
}

/// A connection for each request.
async fn comes_anew(mut visitor: Visitor) {
    while visitor.goes_on(120).await {
        let protocol = visitor.rng.one_of(&[Protocol::One, Protocol::One, Protocol::One, Protocol::Two]);
        let Some(mut sender) = visitor.target.open(protocol, HOST_PLAIN).await else { continue };
        let token = visitor.target.user.clone();
        let (got, wanted) = visitor.echo(&mut sender, &token).await;
        visitor.target.judge("new connection", &got, &wanted);
    }
}

/// Bodies of any size, with a length or without.
async fn uploads(mut visitor: Visitor, protocol: Protocol) {
    let mut connection = None;
    while visitor.goes_on(250).await {
        connection = visitor.connected(connection, protocol, HOST_PLAIN).await;
        let Some(sender) = &mut connection else { continue };
        let size = if visitor.rng.one_in(20) { 6 << 20 } else { visitor.size() };
        let target = Arc::clone(&visitor.target);
        let number = target.ledger.open();
        let bytes = bytes_of(number, size);
        let wanted = blake3::hash(&bytes).to_hex();
        let mut ask = Ask::post("/v1/upload", &target.user, number, Vec::new());
        ask.body = if visitor.rng.one_in(2) { unsized_body(&bytes) } else { http_body_util::Full::from(bytes).boxed() };
        let got = target.exchange(sender, ask).await;
        target.judge("upload", &got, wanted.as_bytes());
    }
}

fn unsized_body(bytes: &[u8]) -> Body {
    let parts: Vec<_> = bytes.chunks(8_000).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
    StreamBody::new(futures_util::stream::iter(parts)).boxed()
}

/// Answers that take a while, and long ones.
async fn streams(mut visitor: Visitor, protocol: Protocol) {
    let mut connection = None;
    while visitor.goes_on(300).await {
        connection = visitor.connected(connection, protocol, HOST_PLAIN).await;
        let Some(sender) = &mut connection else { continue };
        let target = Arc::clone(&visitor.target);
        if visitor.rng.one_in(8) {
            let size = 5 << 20;
            let got = target.exchange(sender, Ask::get(&format!("/v1/echo?size={size}"), &target.user)).await;
            target.judge("long answer", &got, &bytes_of(got.number, size));
            continue;
        }
        // Some live longer than the ten seconds after which a request is on record as a stream.
        let (count, pause) = visitor.rng.one_of(&[(5, 10), (20, 50), (20, 50), (24, 500)]);
        let path = format!("/v1/events?count={count}&pause={pause}");
        let got = target.exchange(sender, Ask::get(&path, &target.user)).await;
        let wanted: String = (0..count).map(|place| event(got.number, place)).collect();
        target.judge("events", &got, wanted.as_bytes());
    }
}

/// What no scope allows, and what no token stands behind.
async fn is_refused(mut visitor: Visitor, protocol: Protocol) {
    let (unknown, mut connection) = (Token::new("unknown", &[]).secret().to_owned(), None);
    while visitor.goes_on(150).await {
        connection = visitor.connected(connection, protocol, HOST_PLAIN).await;
        let Some(sender) = &mut connection else { continue };
        let target = Arc::clone(&visitor.target);
        let (path, method, token, wanted) = visitor.rng.one_of(&[
            ("/v1/secret", Method::GET.as_str(), Some(target.user.as_str()), 403),
            ("/v1/echo", "DELETE", Some(&target.user), 403),
            ("/elsewhere", "GET", Some(&target.user), 403),
            ("/v1/echo", "GET", Some(&target.nobody), 403),
            ("/v1/echo", "GET", None, 401),
            ("/v1/echo", "GET", Some(&unknown), 401),
            ("/v1/echo", "GET", Some("lgt_test_nonsense"), 401),
            ("/v1/%2e%2e/secret", "GET", Some(&target.user), 400),
            ("/v1/echo;a", "GET", Some(&target.user), 400),
            ("/v1/echo", "TRACE", Some(&target.user), 501),
        ]);
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let body = Empty::new().boxed();
        let ask = Ask { method, host: HOST_PLAIN, path, token, fields: &[], body, number: None };
        let got = target.exchange(sender, ask).await;
        target.judge_refusal("refused", &got, wanted);
    }
}

/// Tokens that come and go: valid ones serve, revoked ones never again.
async fn passes(mut visitor: Visitor, protocol: Protocol) {
    let mut connection = None;
    while visitor.goes_on(40).await {
        connection = visitor.connected(connection, protocol, HOST_PLAIN).await;
        let (Some(sender), tokens) = (&mut connection, visitor.target.churn.all()) else { continue };
        let pick = usize::try_from(visitor.rng.below(tokens.len() as u64)).unwrap_or_default();
        let Some(token) = tokens.get(pick) else { continue };
        let before = token.life();
        let (got, wanted) = visitor.echo(sender, &token.secret).await;
        let target = &visitor.target;
        match (before, token.life()) {
            (Life::Valid, Life::Valid) => target.judge("passing token", &got, &wanted),
            (Life::Revoked(_), _) => target.judge_refusal("revoked token", &got, 401),
            _ => {}
        }
    }
}

/// A stream whose token is revoked under it.
async fn is_cut(mut visitor: Visitor, protocol: Protocol) {
    while visitor.goes_on(500).await {
        let target = Arc::clone(&visitor.target);
        let Some(token) = target.churn.newest() else { continue };
        let Some(mut sender) = target.open(protocol, HOST_PLAIN).await else { continue };
        let number = target.ledger.open();
        let path = "/v1/events?count=300&pause=100";
        let request = target.request(protocol, number, Ask::get(path, &token.secret));
        let Ok(response) = sender.send(request).await else { continue };
        target.ledger.answered(number, response.status().as_u16());
        let mut body = response.into_body();
        let end = Instant::now() + Duration::from_secs(30);
        while let Ok(Some(Ok(_))) = timeout_at(end.into(), body.frame()).await {
            if token.is_gone_for(CUT) {
                target.ledger.find(format!("{} stream {number} outlives its token", target.name));
                break;
            }
            if target.is_over() {
                break;
            }
        }
    }
}

/// A rule that comes and goes with the policy.
async fn flips(mut visitor: Visitor) {
    let mut connection = None;
    while visitor.goes_on(60).await {
        connection = visitor.connected(connection, Protocol::One, HOST_PLAIN).await;
        let Some(sender) = &mut connection else { continue };
        let target = &visitor.target;
        let before = target.churn.flip();
        let got = target.exchange(sender, Ask::get("/flip", &target.user)).await;
        match (before, target.churn.flip() == before) {
            ((_, Some(true)), true) => target.judge("rule in force", &got, &bytes_of(got.number, 16)),
            ((_, Some(false)), true) => target.judge_refusal("rule not in force", &got, 403),
            _ => {}
        }
    }
}

/// Calls of gRPC, of one message and of several, and one that is refused.
async fn calls(mut visitor: Visitor) {
    let mut connection = None;
    while visitor.goes_on(80).await {
        connection = visitor.connected(connection, Protocol::Two, HOST_CALLS).await;
        let Some(sender) = &mut connection else { continue };
        let target = Arc::clone(&visitor.target);
        let (method, times) = visitor.rng.one_of(&[("Unary", 1), ("Unary", 1), ("Many", MANY), ("Never", 0)]);
        let number = target.ledger.open();
        let size = u32::try_from(visitor.size()).unwrap_or_default();
        let message = [&[0][..], &size.to_be_bytes(), &bytes_of(number, size as usize)].concat();
        let path = format!("/soak.Echo/{method}");
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        let ask = Ask { host: HOST_CALLS, fields: &fields, ..Ask::post(&path, &target.user, number, message.clone()) };
        let got = target.exchange(sender, ask).await;
        let said = |fields: &hyper::HeaderMap| fields.get("grpc-status").map(|status| status.as_bytes().to_vec());
        if times == 0 {
            let status = if said(&got.fields).as_deref() == Some(b"7") { 403 } else { 0 };
            target.judge_refusal("refused call", &Got { status, ..got }, 403);
        } else {
            let succeeded = got.broken.is_none() && said(&got.trailers).as_deref() == Some(b"0");
            target.judge_as("call", &got, &got.body, &message.repeat(times), succeeded);
        }
    }
}

/// HEAD, and requests whose fields fill a head.
async fn carries(mut visitor: Visitor, protocol: Protocol) {
    let mut connection = None;
    while visitor.goes_on(300).await {
        connection = visitor.connected(connection, protocol, HOST_PLAIN).await;
        let Some(sender) = &mut connection else { continue };
        let target = Arc::clone(&visitor.target);
        let long = "x".repeat(usize::try_from(visitor.rng.below(6000)).unwrap_or_default());
        let fields = [("x-long", long.as_str()), ("cookie", "a=b; c=d")];
        let method = if visitor.rng.one_in(2) { Method::HEAD } else { Method::GET };
        let wanted = if method == Method::HEAD { 0 } else { 500 };
        let ask = Ask { method, fields: &fields, ..Ask::get("/v1/echo?size=500", &target.user) };
        let got = target.exchange(sender, ask).await;
        target.judge("HEAD or long head", &got, &bytes_of(got.number, wanted));
    }
}
