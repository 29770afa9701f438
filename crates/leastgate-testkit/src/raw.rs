//! A client that sends exactly the bytes it is given and reads one answer, independent of the gateway's HTTP library.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::deadline::{PATIENCE, left};
use crate::wire::{Buffered, Framing, Head};

/// One connection to the gateway.
#[derive(Debug)]
pub struct RawClient {
    stream: Buffered<Patient>,
    local: SocketAddr,
}

/// One final answer.
#[derive(Debug)]
pub struct Reply {
    /// The status codes of interim answers that came before it.
    pub interim: Vec<u16>,
    /// The status code.
    pub status: u16,
    /// The head.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the connection carries no further answer.
    pub closes: bool,
}

/// Why there is no whole answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NoReply {
    /// The connection was closed or reset before the first byte of an answer.
    Closed,
    /// Nothing came before the deadline.
    Silent,
    /// The answer broke off.
    Cut(String),
    /// The answer is not HTTP as the strict reader takes it.
    Malformed(String),
}

impl RawClient {
    /// Connects from 127.0.0.1.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_from(address, Ipv4Addr::LOCALHOST)
    }

    /// Connects from another loopback address, which the gateway sees as another source.
    #[must_use]
    pub fn connect_from(address: SocketAddr, source: Ipv4Addr) -> Self {
        Self::try_connect_from(address, source).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// The same, for tests of a gateway that may not listen.
    pub fn try_connect_from(address: SocketAddr, source: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE))?;
        let local = stream.local_addr()?;
        Ok(Self { stream: Buffered::new(Patient { stream, end: Instant::now() + PATIENCE }), local })
    }

    /// The socket, for a client that speaks something else.
    #[must_use]
    pub fn socket(&self) -> TcpStream {
        self.stream.get_ref().stream.try_clone().expect("a socket has a second handle")
    }

    /// The client's own address, as the gateway records it.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends bytes as they are. A peer that has already closed is no error here: its answer is what matters.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(bytes) {
            let gone = matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
            );
            assert!(gone, "cannot send: {error}");
        }
    }

    /// Sends bytes, or says why not: `WouldBlock` or `TimedOut` when the gateway takes nothing.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp().write_all(bytes.as_ref())
    }

    /// Writes what the socket takes of `bytes`, waiting for room as long as the write patience.
    pub fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp().write(bytes)
    }

    /// Closes one or both directions.
    pub fn shutdown(&mut self, how: Shutdown) {
        // A connection that is already gone has nothing to shut down.
        let _ = self.tcp().shutdown(how);
    }

    /// Reads one interim answer, which must have this status.
    pub fn read_interim(&mut self, wanted: u16, limit: Duration) {
        self.set_deadline(limit);
        let status = self.next_head().and_then(|head| status_of(&head));
        assert_eq!(status, Ok(wanted), "an interim answer");
    }

    /// How long a single write may block.
    pub fn set_write_patience(&mut self, limit: Duration) {
        self.stream.get_ref().stream.set_write_timeout(Some(limit)).expect("a positive time-out is accepted");
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        self.shutdown(Shutdown::Write);
    }

    /// Reads one answer to a request that was not HEAD.
    pub fn read(&mut self) -> Result<Reply, NoReply> {
        self.read_for("GET", PATIENCE)
    }

    /// Reads one answer to a request of `method`, interim ones collected, until `limit` has passed.
    pub fn read_for(&mut self, method: &str, limit: Duration) -> Result<Reply, NoReply> {
        let (interim, status, head) = self.read_head(limit)?;
        let mut body = Vec::new();
        let closes = self.read_body(method, status, &head, &mut body)?;
        Ok(Reply { interim, status, head, body, closes })
    }

    /// Reads only the final head.
    pub fn read_head(&mut self, limit: Duration) -> Result<(Vec<u16>, u16, Head), NoReply> {
        self.set_deadline(limit);
        let mut interim = Vec::new();
        loop {
            let head = self.next_head()?;
            let status = status_of(&head)?;
            if status / 100 != 1 || status == 101 {
                return Ok((interim, status, head));
            }
            interim.push(status);
        }
    }

    /// Reads what is left of the body after [`Self::read_head`] up to the end of the stream or an error.
    pub fn read_rest(&mut self, limit: Duration) -> io::Result<Vec<u8>> {
        self.set_deadline(limit);
        while self.stream.fill()? > 0 {}
        Ok(self.stream.ahead().to_vec())
    }

    /// Reads a framed body after [`Self::read_head`], piece by piece.
    pub fn read_framed(&mut self, head: &Head, limit: Duration, take: impl FnMut(&[u8])) -> io::Result<Vec<String>> {
        self.set_deadline(limit);
        let framing = head.framing().map_err(io::Error::other)?;
        self.stream.body(framing, take)
    }

    /// Waits for the gateway to close; an answer instead, or nothing in time, is an error.
    pub fn expect_close(&mut self, limit: Duration) -> Result<(), String> {
        self.set_deadline(limit);
        match self.stream.fill() {
            Ok(0) if self.stream.ahead().is_empty() => Ok(()),
            Ok(_) => Err(format!("bytes instead of the end: {}", String::from_utf8_lossy(self.stream.ahead()))),
            Err(error) if is_reset(&error) => Ok(()),
            Err(error) => Err(format!("still open after {limit:?}: {error}")),
        }
    }

    fn set_deadline(&mut self, limit: Duration) {
        self.stream.get_mut().end = Instant::now() + limit;
    }

    fn tcp(&mut self) -> &mut TcpStream {
        &mut self.stream.get_mut().stream
    }

    fn next_head(&mut self) -> Result<Head, NoReply> {
        match self.stream.through(b"\r\n\r\n", 1 << 20) {
            Ok(Some(bytes)) => Head::parse(&bytes).map_err(NoReply::Malformed),
            Ok(None) if self.stream.ahead().is_empty() => Err(NoReply::Closed),
            Err(error) if is_reset(&error) && self.stream.ahead().is_empty() => Err(NoReply::Closed),
            Err(error) if is_timeout(&error) && self.stream.ahead().is_empty() => Err(NoReply::Silent),
            Ok(None) => Err(NoReply::Cut(String::from_utf8_lossy(self.stream.ahead()).into_owned())),
            Err(error) => Err(NoReply::Cut(error.to_string())),
        }
    }

    fn read_body(&mut self, method: &str, status: u16, head: &Head, body: &mut Vec<u8>) -> Result<bool, NoReply> {
        let closes = head.all("connection").any(|value| value.to_ascii_lowercase().contains("close"));
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            return Ok(closes);
        }
        let framing = head.framing().map_err(NoReply::Malformed)?;
        if framing == Framing::Absent {
            while self.stream.fill().map_err(|error| NoReply::Cut(error.to_string()))? > 0 {}
            *body = self.stream.ahead().to_vec();
            return Ok(true);
        }
        let read = self.stream.body(framing, |piece| body.extend_from_slice(piece));
        read.map(|_| closes).map_err(|error| NoReply::Cut(error.to_string()))
    }
}

impl Reply {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What follows `urn:leastgate:problem:` in a refusal.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        value["type"].as_str()?.strip_prefix("urn:leastgate:problem:").map(str::to_owned)
    }
}

fn status_of(head: &Head) -> Result<u16, NoReply> {
    let code = head.start.strip_prefix("HTTP/1.1 ").or_else(|| head.start.strip_prefix("HTTP/1.0 "));
    code.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(|| NoReply::Malformed(head.start.clone()))
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A stream whose reads end at a fixed time, however many there are.
#[derive(Debug)]
struct Patient {
    stream: TcpStream,
    end: Instant,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let limit = left(self.end).ok_or(ErrorKind::TimedOut)?;
            self.stream.set_read_timeout(Some(limit))?;
            match self.stream.read(buffer) {
                // A child of this process has ended, say: that is no end of the connection.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// Sends one request on a connection of its own and reads the answer.
#[must_use]
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut client = RawClient::connect(address);
    client.send(&request);
    let method = request.as_ref().split(|byte| *byte == b' ').next().unwrap_or_default();
    let method = String::from_utf8_lossy(method).into_owned();
    client
        .read_for(&method, PATIENCE)
        .unwrap_or_else(|error| panic!("no answer to {:?}: {error:?}", String::from_utf8_lossy(request.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Answer, RecorderUpstream, Step};

    #[test]
    fn it_reads_interim_and_final_answers() {
        let upstream = RecorderUpstream::start();
        upstream.on("/early", Answer::steps([
            Step::send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        ]));
        let reply = exchange(upstream.address(), "GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((reply.interim.as_slice(), reply.status, reply.text().as_str()), (&[103][..], 200, "hi"));
    }

    #[test]
    fn silence_and_ends_are_told_apart() {
        let upstream = RecorderUpstream::start();
        upstream.on("/close", Answer::steps([Step::Close]));
        upstream
            .on("/half", Answer::steps([Step::send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), Step::Close]));
        upstream.on("/never", Answer::steps([Step::Hold]));
        let ask = |path: &str| {
            let mut client = RawClient::connect(upstream.address());
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client.read_for("GET", Duration::from_millis(200)).unwrap_err()
        };
        assert_eq!(ask("/close"), NoReply::Closed);
        assert_eq!(ask("/never"), NoReply::Silent);
        assert!(matches!(ask("/half"), NoReply::Cut(_)));
    }

    #[test]
    fn a_source_address_can_be_chosen() {
        let upstream = RecorderUpstream::start();
        let client = RawClient::connect_from(upstream.address(), Ipv4Addr::new(127, 9, 8, 7));
        assert_eq!(client.local().ip(), IpAddr::V4(Ipv4Addr::new(127, 9, 8, 7)));
    }
}
