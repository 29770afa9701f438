//! One connection to the recorder: read a request, note it, take the steps of its answer.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::{Recorded, Shared, Step};
use crate::pattern::Pattern;
use crate::wire::{Buffered, Framing, Head};

/// A connection nobody uses any more ends after this long, should the test forget it.
const IDLE: Duration = Duration::from_secs(120);

/// How much of a body is kept; the rest is only counted and hashed.
const KEPT: usize = 1 << 20;

pub(super) fn serve(stream: TcpStream, number: usize, shared: &Shared) {
    // A socket that refuses these options is already closed: the first read says so.
    let _ = stream.set_read_timeout(Some(IDLE));
    let _ = stream.set_write_timeout(Some(IDLE));
    let _ = stream.set_nodelay(true);
    let mut connection = Connection { stream: Buffered::new(stream), number, shared };
    while connection.exchange().unwrap_or(ControlFlow::Break(())).is_continue() {}
    let socket = connection.stream.get_ref();
    // A reset is sent by closing a socket that does not linger, and only while its end was not sent before.
    if SockRef::from(socket).linger().ok().flatten().is_none() {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

struct Connection<'a> {
    stream: Buffered<TcpStream>,
    number: usize,
    shared: &'a Shared,
}

impl Connection<'_> {
    fn exchange(&mut self) -> io::Result<ControlFlow<()>> {
        let Some(bytes) = self.stream.through(b"\r\n\r\n", 1 << 20)? else {
            self.note_leftover();
            return Ok(ControlFlow::Break(()));
        };
        let parsed = Head::parse(&bytes).and_then(|head| head.framing().map(|framing| (head, framing)));
        let (head, framing) = match parsed {
            Ok(parsed) => parsed,
            Err(fault) => {
                self.note(Head { bytes, ..Head::default() }, Some(fault));
                return Ok(ControlFlow::Break(()));
            }
        };
        let at = self.note(head, None);
        self.answer(at, framing)
    }

    fn note_leftover(&mut self) {
        if !self.stream.ahead().is_empty() {
            let bytes = self.stream.ahead().to_vec();
            self.note(Head { bytes, ..Head::default() }, Some("the stream ends within a head".to_owned()));
        }
    }

    fn note(&mut self, head: Head, fault: Option<String>) -> usize {
        let mut requests = self.shared.requests();
        requests.push(Recorded {
            connection: self.number,
            head,
            body: Vec::new(),
            body_length: 0,
            body_hash: blake3::hash(b"").to_hex().to_string(),
            trailers: Vec::new(),
            complete: false,
            fault,
        });
        requests.len() - 1
    }

    fn answer(&mut self, at: usize, framing: Framing) -> io::Result<ControlFlow<()>> {
        let request = self.shared.requests()[at].clone();
        let answer = self.shared.answer(request.path());
        let mut unread = Some(framing);
        if !answer.early {
            self.read_body(at, unread.take(), None)?;
        }
        for step in &answer.steps {
            match step {
                Step::ReadBody => self.read_body(at, unread.take(), None)?,
                Step::ReadSlowly(each, pause) => self.read_body(at, unread.take(), Some((*each, *pause)))?,
                Step::Close => return Ok(ControlFlow::Break(())),
                Step::Reset => return self.reset(),
                Step::Hold => return self.hold(),
                step => self.take(step, &request)?,
            }
        }
        self.read_body(at, unread.take(), None)?;
        Ok(if asks_to_close(&request.head) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn take(&mut self, step: &Step, request: &Recorded) -> io::Result<()> {
        match step {
            Step::Send(bytes) => self.stream.get_mut().write_all(bytes),
            Step::Flood(length) => self.flood(*length),
            Step::Echo => self.stream.get_mut().write_all(&echo(request)),
            Step::Wait(gate) => {
                gate.wait();
                Ok(())
            }
            Step::Pause(length) => {
                thread::sleep(*length);
                Ok(())
            }
            Step::Pattern(length) => self.pattern(*length),
            Step::ReadBody | Step::ReadSlowly(..) | Step::Hold | Step::Close | Step::Reset => Ok(()),
        }
    }

    fn read_body(&mut self, at: usize, framing: Option<Framing>, pace: Option<(usize, Duration)>) -> io::Result<()> {
        let Some(framing) = framing else {
            return Ok(());
        };
        let mut hasher = blake3::Hasher::new();
        let shared = self.shared;
        let mut taken = 0;
        let read = self.stream.body(framing, |piece| {
            hasher.update(piece);
            taken += piece.len();
            if let Some((_, pause)) = pace.filter(|(each, _)| taken >= *each) {
                taken = 0;
                thread::sleep(pause);
            }
            let request = &mut shared.requests()[at];
            let room = KEPT.saturating_sub(request.body.len()).min(piece.len());
            request.body.extend_from_slice(&piece[..room]);
            request.body_length += piece.len() as u64;
        });
        let request = &mut shared.requests()[at];
        request.body_hash = hasher.finalize().to_hex().to_string();
        match read {
            Ok(trailers) => {
                request.trailers = trailers;
                request.complete = true;
                Ok(())
            }
            Err(error) => {
                request.fault = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn flood(&mut self, mut left: u64) -> io::Result<()> {
        let block = [b'x'; 64 * 1024];
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.stream.get_mut().write_all(&block[..take])?;
            left -= take as u64;
        }
        Ok(())
    }

    fn pattern(&mut self, length: u64) -> io::Result<()> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(head.as_bytes())?;
        let mut pattern = Pattern::new(length);
        while pattern.left() > 0 {
            self.stream.get_mut().write_all(pattern.next(usize::MAX))?;
        }
        Ok(())
    }

    fn hold(&mut self) -> io::Result<ControlFlow<()>> {
        while self.stream.fill()? > 0 {}
        Ok(ControlFlow::Break(()))
    }

    fn reset(&mut self) -> io::Result<ControlFlow<()>> {
        SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))?;
        Ok(ControlFlow::Break(()))
    }
}

fn asks_to_close(head: &Head) -> bool {
    head.all("connection").any(|value| value.eq_ignore_ascii_case("close"))
}

fn echo(request: &Recorded) -> Vec<u8> {
    let body = serde_json::json!({ "method": request.method(), "target": request.target() }).to_string();
    let probe = request.head.one("x-probe").unwrap_or("-");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-upstream: recorder\r\nx-echo: {probe}\r\ncontent-length: {length}\r\n\r\n"
    );
    if request.method() == "HEAD" { head.into_bytes() } else { (head + &body).into_bytes() }
}
