//! An upstream that keeps the exact bytes of every request it gets, and answers as it is told: well, badly, or never.

mod answer;
mod connection;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use answer::{Answer, Gate, Step};

use crate::deadline::until;
use crate::listening::Listening;
use crate::wire::Head;

/// The running upstream; it ends with the value.
#[derive(Debug)]
pub struct RecorderUpstream {
    listening: Listening,
    shared: Arc<Shared>,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// The head, byte for byte.
    pub head: Head,
    /// The first MiB of the decoded body.
    pub body: Vec<u8>,
    /// The length of the decoded body so far.
    pub body_length: u64,
    /// BLAKE3 of the decoded body so far.
    pub body_hash: String,
    /// The trailer lines.
    pub trailers: Vec<String>,
    /// Whether the whole request came.
    pub complete: bool,
    /// What a strict reader finds wrong with it.
    pub fault: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<Recorded>>,
}

impl RecorderUpstream {
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

    /// As an endpoint of `leastgate.yaml`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From now on requests for `path` (without query) are answered so. Others get 200 and an echo.
    pub fn on(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().expect("no holder panics").insert(path.to_owned(), answer);
    }

    /// Every request so far, in order of arrival of their heads.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests().clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.requests().len()
    }

    /// The requests that came after the first `seen`.
    #[must_use]
    pub fn since(&self, seen: usize) -> Vec<Recorded> {
        self.shared.requests()[seen..].to_vec()
    }

    /// Waits until a request for `path` has come whole, and answers the first.
    #[must_use]
    pub fn wait_for(&self, path: &str, limit: Duration) -> Recorded {
        until(&format!("a whole request for {path}"), limit, || {
            self.shared.requests().iter().find(|request| request.complete && request.path() == path).cloned()
        })
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.listening.accepted()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.listening.open()
    }
}

impl Recorded {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap_or_default()
    }

    /// The target, byte for byte.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// Head, body and trailers as one text, for searches.
    #[must_use]
    pub fn everything(&self) -> Vec<u8> {
        let mut all = self.head.bytes.clone();
        all.extend_from_slice(&self.body);
        all.extend_from_slice(self.trailers.join("\n").as_bytes());
        all
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
    use crate::deadline::PATIENCE;
    use crate::raw::{RawClient, exchange};

    #[test]
    fn it_keeps_the_bytes_it_got() {
        let upstream = RecorderUpstream::start();
        let sent = "POST /a%20b?q=1 HTTP/1.1\r\nHOST: x\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(exchange(upstream.address(), sent).status, 200);
        let got = upstream.wait_for("/a%20b", PATIENCE);
        assert_eq!(got.everything(), sent.as_bytes());
        assert_eq!((got.method(), got.target(), got.body_length), ("POST", "/a%20b?q=1", 3));
    }

    #[test]
    fn a_connection_carries_many_requests() {
        let upstream = RecorderUpstream::start();
        let mut client = RawClient::connect(upstream.address());
        for path in ["/1", "/2"] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Probe: {path}\r\n\r\n"));
            assert_eq!(client.read().unwrap().head.one("x-echo"), Some(path));
        }
        assert_eq!((upstream.count(), upstream.accepted()), (2, 1));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_kept() {
        let upstream = RecorderUpstream::start();
        let mut client = RawClient::connect(upstream.address());
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let fault = until("the request", PATIENCE, || upstream.requests().first().and_then(|got| got.fault.clone()));
        assert!(fault.contains("ambiguous framing"), "{fault}");
    }
}
