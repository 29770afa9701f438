//! An upstream that speaks HTTP/2 by prior knowledge, keeps what it gets, and answers as it is told: well, badly, or never.

mod connection;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::listening::Listening;
use crate::recorder::Gate;

/// The running upstream; it ends with the value, and its connections with it.
#[derive(Debug)]
pub struct Http2Upstream {
    listening: Listening,
    shared: Arc<Shared>,
}

/// The answer to one path: moves, one after the other.
#[derive(Clone, Debug)]
pub struct Answer {
    is_early: bool,
    moves: Vec<Move>,
}

/// One move of a stream.
#[derive(Clone)]
pub enum Move {
    /// A head: a status, further fields, the frame's flags beside `END_HEADERS`.
    Head(u16, Vec<(String, String)>, u8),
    /// Part of a body, and the frame's flags. It asks for no window.
    Data(Vec<u8>, u8),
    /// Bytes of any kind, made for the stream they are sent on.
    Bytes(Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>),
    /// A head with this length, and the [`Pattern`](crate::pattern::Pattern) as its body, as the windows allow.
    Pattern(u64),
    /// The echo answer: 200, the target as JSON, `x-echo` the request's `x-probe`.
    Echo,
    /// Waits until the gate is open.
    Wait(Gate),
    /// Waits that long.
    Pause(Duration),
    /// Ends the stream with this error.
    Reset(u32),
    /// Ends the connection.
    Close,
}

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Its fields, pseudo-header fields among them.
    pub fields: Vec<(String, String)>,
    /// The length of its body so far.
    pub body_length: u64,
    /// BLAKE3 of its body, once it is whole.
    pub body_hash: String,
    /// Whether the whole request came.
    pub is_complete: bool,
    /// The error code with which the gateway took it back.
    pub reset: Option<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<Recorded>>,
    /// How much of a request's body it takes before it pauses, and for how long.
    pace: Mutex<Option<(u64, Duration)>>,
}

impl Http2Upstream {
    /// Starts on a free loopback port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Starts where another one was before.
    #[must_use]
    pub fn start_at(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let listening = Listening::start_at(address, move |stream, number| connection::serve(stream, number, &serving));
        Self { listening, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// As an endpoint of `leastgate.yaml`; the upstream needs `http2: true` too.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From now on requests for `path` (without query) are answered so. Others get 200 and an echo.
    pub fn on(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().expect("no holder panics").insert(path.to_owned(), answer);
    }

    /// From now on it pauses so long each time it has taken so much of a request's body.
    pub fn take_slowly(&self, each: u64, pause: Duration) {
        *self.shared.pace.lock().expect("no holder panics") = Some((each, pause));
    }

    /// Every request so far, in order of arrival of their heads.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests().clone()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.listening.open()
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.listening.accepted()
    }
}

impl Answer {
    /// The moves once the whole request is there.
    #[must_use]
    pub fn moves(moves: impl IntoIterator<Item = Move>) -> Self {
        Self { is_early: false, moves: moves.into_iter().collect() }
    }

    /// The moves as soon as its head is there.
    #[must_use]
    pub fn early(moves: impl IntoIterator<Item = Move>) -> Self {
        Self { is_early: true, moves: moves.into_iter().collect() }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::moves([Move::Echo])
    }
}

impl Move {
    /// A head without further fields.
    #[must_use]
    pub fn head(status: u16, flags: u8) -> Self {
        Self::Head(status, Vec::new(), flags)
    }

    /// A head with the length of its body.
    #[must_use]
    pub fn sized(status: u16, length: u64) -> Self {
        Self::Head(status, vec![("content-length".to_owned(), length.to_string())], 0)
    }

    /// Bytes of any kind, made for the stream they are sent on.
    pub fn bytes(make: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Bytes(Arc::new(make))
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head(..) => "Head",
            Self::Data(..) => "Data",
            Self::Bytes(_) => "Bytes",
            Self::Pattern(_) => "Pattern",
            Self::Echo => "Echo",
            Self::Wait(_) => "Wait",
            Self::Pause(_) => "Pause",
            Self::Reset(_) => "Reset",
            Self::Close => "Close",
        })
    }
}

impl Recorded {
    /// The first field of this name, as `:path`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.field(":path").unwrap_or_default().split('?').next().unwrap_or_default()
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.requests.lock().expect("no holder panics")
    }

    fn answer(&self, path: &str) -> Answer {
        self.answers.lock().expect("no holder panics").get(path).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::{Client, END_STREAM};
    use crate::pattern::Pattern;

    const FIELDS: [(&str, &str); 5] =
        [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/a?b"), ("x-probe", "7")];

    #[test]
    fn it_echoes_and_keeps_what_it_got() {
        let upstream = Http2Upstream::start();
        let mut client = Client::connect(upstream.address(), &[]);
        let stream = client.open(&FIELDS, 0);
        client.data(stream, b"abc", END_STREAM);
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.field("x-echo"), answer.is_whole), (200, Some("7"), true));
        let got = &upstream.requests()[0];
        assert_eq!((got.path(), got.body_length, got.is_complete), ("/a", 3, true));
        assert_eq!(got.body_hash, blake3::hash(b"abc").to_hex().to_string());
    }

    #[test]
    fn a_body_over_every_window_goes_both_ways() {
        let (upstream, length) = (Http2Upstream::start(), 300_000);
        upstream.on("/a", Answer::moves([Move::Pattern(length)]));
        let mut client = Client::connect(upstream.address(), &[]);
        let stream = client.open(&FIELDS, 0);
        assert!(client.send_body(stream, &mut Pattern::new(length)));
        let answer = client.answer(stream);
        assert_eq!((answer.is_whole, answer.body.len() as u64), (true, length));
        assert_eq!(blake3::hash(&answer.body).to_hex().to_string(), Pattern::checksum(length));
        assert_eq!(upstream.requests()[0].body_hash, Pattern::checksum(length));
    }
}
