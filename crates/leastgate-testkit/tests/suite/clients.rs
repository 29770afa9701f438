//! A client that asks for one thing after the other and says what it saw, in the same words under either protocol.

use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::http2::{self, END_STREAM};
use leastgate_testkit::pattern::Pattern;
use leastgate_testkit::raw::{NoReply, RawClient};
use leastgate_testkit::recorder::Gate;
use leastgate_testkit::token::Token;
use serde_json::Value;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }

    /// Its name in ALPN.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A client with a connection of its own, and with a new one once that has ended.
pub(crate) struct Asker<'a> {
    gateway: &'a TestGateway,
    token: &'a Token,
    protocol: Protocol,
    connection: Option<Connection>,
}

enum Connection {
    Http1(RawClient),
    Http2(Box<http2::Client>),
}

/// What is asked for.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// What an upstream that is well gives back.
    pub(crate) probe: &'a str,
    /// The length of a body.
    pub(crate) body: u64,
    /// Opened when the head of the answer has come.
    pub(crate) on_head: Gate,
}

impl<'a> Question<'a> {
    pub(crate) fn get(path: &'a str, probe: &'a str) -> Self {
        Self { method: "GET", path, probe, body: 0, on_head: Gate::default() }
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Whole {
        status: u16,
        /// The type of a problem.
        problem: Option<String>,
        /// What the upstream gave back of the probe.
        echo: Option<String>,
        body: String,
    },
    /// The client knows that the answer is not whole.
    Cut,
    /// The connection ended before an answer began.
    Closed,
}

impl Seen {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Whole { status, .. } => *status,
            Self::Cut | Self::Closed => 0,
        }
    }

    /// Whether it is the recorder's own answer to this question.
    pub(crate) fn is_own(&self, path: &str, probe: &str) -> bool {
        matches!(self, Self::Whole { status: 200, echo: Some(echo), body, .. }
            if echo == probe && body.contains(&format!("\"{path}\"")))
    }
}

impl<'a> Asker<'a> {
    pub(crate) fn new(gateway: &'a TestGateway, token: &'a Token, protocol: Protocol) -> Self {
        Self { gateway, token, protocol, connection: None }
    }

    /// Asks and reads the answer.
    pub(crate) fn ask(&mut self, question: &Question<'_>) -> Seen {
        let connection = self.connection.take().unwrap_or_else(|| self.connect());
        match connection {
            Connection::Http1(client) => self.ask_http1(client, question),
            Connection::Http2(client) => self.ask_http2(client, question),
        }
    }

    fn connect(&self) -> Connection {
        match self.protocol {
            Protocol::Http1 => Connection::Http1(self.gateway.client()),
            Protocol::Http2 => Connection::Http2(Box::new(http2::Client::connect(self.gateway.data(), &[]))),
        }
    }

    fn ask_http1(&mut self, mut client: RawClient, question: &Question<'_>) -> Seen {
        let Question { method, path, probe, body, on_head } = question;
        let length = if *body > 0 { format!("Content-Length: {body}\r\n") } else { String::new() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: orders.test\r\nX-Probe: {probe}\r\n{length}");
        client.send(format!("{head}{}\r\n\r\n", self.token.header()));
        let mut pattern = Pattern::new(*body);
        while pattern.left() > 0 {
            client.send(pattern.next(usize::MAX));
        }
        let (_, status, head) = match client.read_head(PATIENCE) {
            Ok(read) => read,
            Err(NoReply::Closed) => return Seen::Closed,
            Err(NoReply::Cut(_)) => return Seen::Cut,
            Err(other) => panic!("{method} {path}: {other:?}"),
        };
        on_head.open();
        let mut bytes = Vec::new();
        if client.read_framed(&head, PATIENCE, |part| bytes.extend_from_slice(part)).is_err() {
            return Seen::Cut;
        }
        if !head.all("connection").any(|value| value.eq_ignore_ascii_case("close")) {
            self.connection = Some(Connection::Http1(client));
        }
        seen(status, head.one("x-echo"), &bytes)
    }

    fn ask_http2(&mut self, mut client: Box<http2::Client>, question: &Question<'_>) -> Seen {
        let Question { method, path, probe, body, on_head } = question;
        let bearer = format!("Bearer {}", self.token.secret());
        let fields = [&http2::head(method, path, &bearer)[..], &[("x-probe", *probe)]].concat();
        let stream = client.open(&fields, if *body > 0 { 0 } else { END_STREAM });
        if *body > 0 {
            client.send_body(stream, &mut Pattern::new(*body));
        }
        let has_head = |client: &http2::Client| client.so_far(stream).is_some_and(|answer| answer.status > 0);
        while !has_head(&client) && !client.is_over(stream) && client.read().is_some() {}
        on_head.open();
        let answer = client.answer(stream);
        if client.goaway.is_none() && (answer.is_whole || answer.reset.is_some()) {
            self.connection = Some(Connection::Http2(client));
        }
        match (answer.is_whole, answer.status, answer.reset) {
            (true, status, None | Some(0)) => seen(status, answer.field("x-echo"), &answer.body),
            (_, 0, None) => Seen::Closed,
            _ => Seen::Cut,
        }
    }
}

fn seen(status: u16, echo: Option<&str>, body: &[u8]) -> Seen {
    let problem = serde_json::from_slice::<Value>(body).ok();
    let problem =
        problem.and_then(|value| value["type"].as_str()?.strip_prefix("urn:leastgate:problem:").map(str::to_owned));
    Seen::Whole { status, problem, echo: echo.map(str::to_owned), body: String::from_utf8_lossy(body).into_owned() }
}
