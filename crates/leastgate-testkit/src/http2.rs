//! A client of raw HTTP/2 frames (RFC 9113): it says what no library would say.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::deadline::PATIENCE;
use crate::pattern::Pattern;

/// What a client says first (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The frame type `DATA` (§6).
pub const DATA: u8 = 0;
/// The frame type `HEADERS` (§6).
pub const HEADERS: u8 = 1;
/// The frame type `RST_STREAM` (§6).
pub const RST_STREAM: u8 = 3;
/// The frame type `SETTINGS` (§6).
pub const SETTINGS: u8 = 4;
/// The frame type `PING` (§6).
pub const PING: u8 = 6;
/// The frame type `GOAWAY` (§6).
pub const GOAWAY: u8 = 7;
/// The frame type `WINDOW_UPDATE` (§6).
pub const WINDOW_UPDATE: u8 = 8;
/// The frame type `CONTINUATION` (§6).
pub const CONTINUATION: u8 = 9;

/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a head.
pub const END_HEADERS: u8 = 4;

/// What may be sent unasked (§6.9.2), and the setting that changes it for streams (§6.5.2).
const WINDOW: i64 = 65_535;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Largest frame that may be sent unasked (§4.2).
const LARGEST_FRAME: usize = 16 * 1024;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream it is of; 0 is the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// What came of one stream.
#[derive(Debug, Default)]
pub struct Answer {
    /// 0 as long as no head came.
    pub status: u16,
    /// The fields of its head, pseudo-header fields apart.
    pub fields: Vec<(String, String)>,
    /// The fields after its body.
    pub trailers: Vec<(String, String)>,
    /// Its body so far.
    pub body: Vec<u8>,
    /// Whether its end came.
    pub is_whole: bool,
    /// The error code of the reset that ended it.
    pub reset: Option<u32>,
}

impl Answer {
    /// The first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Its body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn is_over(&self) -> bool {
        self.is_whole || self.reset.is_some()
    }
}

/// A connection, and what came over it.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    encoder: loona_hpack::Encoder<'static>,
    decoder: loona_hpack::Decoder<'static>,
    answers: BTreeMap<u32, Answer>,
    /// The last stream that will be served and the error code, once it is said.
    pub goaway: Option<(u32, u32)>,
    next: u32,
    windows: Windows,
    /// Whether what comes is acknowledged as a client does that reads everything.
    pub takes: bool,
}

/// What may still be sent of bodies.
#[derive(Debug)]
struct Windows {
    initial: i64,
    connection: i64,
    /// Over or under the initial one.
    streams: BTreeMap<u32, i64>,
}

impl Windows {
    fn of(&self, stream: u32) -> i64 {
        let own = self.initial + self.streams.get(&stream).copied().unwrap_or(0);
        own.min(self.connection)
    }

    fn widen(&mut self, stream: u32, by: i64) {
        match stream {
            0 => self.connection += by,
            _ => *self.streams.entry(stream).or_insert(0) += by,
        }
    }

    fn settle(&mut self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                self.initial = i64::from(word(&setting[2..]));
            }
        }
    }
}

/// The fields of a request to `orders.test`; `authorization` is the value of that field.
#[must_use]
pub fn head<'a>(method: &'a str, path: &'a str, authorization: &'a str) -> [(&'a str, &'a str); 5] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "orders.test"),
        (":path", path),
        ("authorization", authorization),
    ]
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

impl Client {
    /// A connection by prior knowledge, with settings of the client's: pairs of identifier and value.
    #[must_use]
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::open_with(TcpStream::connect(address).expect("the gateway listens"), settings)
    }

    /// The same over a socket that is connected already.
    #[must_use]
    pub fn open_with(stream: TcpStream, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(stream);
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        client.send(PREFACE);
        client.send(frame(SETTINGS, 0, 0, &payload));
        client
    }

    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn silent(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
        stream.set_nodelay(true).expect("a TCP socket has this option");
        Self {
            stream,
            buffer: Vec::new(),
            encoder: loona_hpack::Encoder::new(),
            decoder: loona_hpack::Decoder::new(),
            answers: BTreeMap::new(),
            goaway: None,
            next: 1,
            windows: Windows { initial: WINDOW, connection: WINDOW, streams: BTreeMap::new() },
            takes: true,
        }
    }

    /// What can't be written is not the test's business: the gateway may have closed before.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// How long sending may wait for the other side to read.
    pub fn set_write_patience(&mut self, limit: std::time::Duration) {
        self.stream.set_write_timeout(Some(limit)).expect("a positive time-out is accepted");
    }

    /// A head's fields as HPACK.
    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        self.encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// Opens a stream with these fields, pseudo-header fields among them.
    pub fn open(&mut self, fields: &[(&str, &str)], flags: u8) -> u32 {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        self.open_bytes(&fields, flags)
    }

    /// The same with any bytes. A head of more than a frame is continued in others.
    pub fn open_bytes(&mut self, fields: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)], flags: u8) -> u32 {
        let stream = self.next;
        self.next += 2;
        let block = self.encoder.encode(fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        let mut parts = block.chunks(LARGEST_FRAME).peekable();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
            self.send(frame(kind, end | if kind == HEADERS { flags } else { 0 }, stream, part));
            kind = CONTINUATION;
        }
        stream
    }

    /// A part of a body.
    pub fn data(&mut self, stream: u32, bytes: &[u8], flags: u8) -> bool {
        self.send(frame(DATA, flags, stream, bytes))
    }

    /// Sends a body to its end, as the windows allow; `false` if its answer was over before, or the connection.
    pub fn send_body(&mut self, stream: u32, body: &mut Pattern) -> bool {
        while body.left() > 0 {
            if self.answers.get(&stream).is_some_and(Answer::is_over) {
                return false;
            }
            let Ok(most @ 1..) = usize::try_from(self.windows.of(stream)) else {
                if self.read().is_none() {
                    return false;
                }
                continue;
            };
            let part = body.next(most.min(LARGEST_FRAME));
            let taken = i64::try_from(part.len()).expect("a frame is short");
            let bytes = frame(DATA, 0, stream, part);
            self.windows.widen(0, -taken);
            self.windows.widen(stream, -taken);
            if !self.send(bytes) {
                return false;
            }
        }
        self.data(stream, &[], END_STREAM)
    }

    /// What has come of a stream's body since the last call.
    pub fn take_body(&mut self, stream: u32) -> Vec<u8> {
        self.answers.get_mut(&stream).map(|answer| std::mem::take(&mut answer.body)).unwrap_or_default()
    }

    /// What has come of a stream so far.
    #[must_use]
    pub fn so_far(&self, stream: u32) -> Option<&Answer> {
        self.answers.get(&stream)
    }

    /// Whether the stream is over, whole or not.
    #[must_use]
    pub fn is_over(&self, stream: u32) -> bool {
        self.answers.get(&stream).is_some_and(Answer::is_over)
    }

    /// Reads on until the stream is over, and takes its answer.
    pub fn answer(&mut self, stream: u32) -> Answer {
        while !self.answers.get(&stream).is_some_and(Answer::is_over) {
            if self.read().is_none() {
                break;
            }
        }
        self.answers.remove(&stream).unwrap_or_default()
    }

    /// Reads one frame and keeps what it says; `None` at the end of the connection.
    pub fn read(&mut self) -> Option<Frame> {
        let frame = self.frame()?;
        if frame.kind == SETTINGS && frame.flags & 1 == 0 {
            self.windows.settle(&frame.payload);
            self.send(self::frame(SETTINGS, 1, 0, &[]));
        }
        if frame.kind == WINDOW_UPDATE {
            self.windows.widen(frame.stream, i64::from(word(&frame.payload)));
        }
        if frame.kind == PING && frame.flags & 1 == 0 && self.takes {
            self.send(self::frame(PING, 1, 0, &frame.payload));
        }
        if frame.kind == GOAWAY {
            self.goaway = Some((word(&frame.payload), word(&frame.payload[4..])));
        }
        if frame.stream != 0 {
            self.note(&frame);
        }
        Some(frame)
    }

    fn note(&mut self, frame: &Frame) {
        let answer = self.answers.entry(frame.stream).or_default();
        match frame.kind {
            HEADERS => {
                assert_ne!(frame.flags & END_HEADERS, 0, "the gateway's heads are short");
                let decoded = self.decoder.decode(&frame.payload).expect("HPACK");
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the gateway's fields are text");
                let fields = decoded.into_iter().map(|(name, value)| (text(name), text(value)));
                let (head, fields): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| name == ":status");
                match head.first() {
                    Some((_, status)) => {
                        (answer.status, answer.fields) = (status.parse().expect("a status is a number"), fields);
                    }
                    None => answer.trailers = fields,
                }
            }
            DATA => {
                answer.body.extend_from_slice(&frame.payload);
                if self.takes && !frame.payload.is_empty() {
                    let taken = u32::try_from(frame.payload.len()).expect("a frame is short").to_be_bytes();
                    self.stream.write_all(&self::frame(WINDOW_UPDATE, 0, 0, &taken)).ok();
                    self.stream.write_all(&self::frame(WINDOW_UPDATE, 0, frame.stream, &taken)).ok();
                }
            }
            RST_STREAM => answer.reset = Some(word(&frame.payload)),
            _ => {}
        }
        answer.is_whole |= matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
    }

    fn frame(&mut self) -> Option<Frame> {
        self.fill(9)?;
        let length = usize::try_from(word(&self.buffer) >> 8).expect("24 bits fit");
        self.fill(9 + length)?;
        let rest = self.buffer.split_off(9 + length);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let (kind, flags, stream) = (bytes[3], bytes[4], word(&bytes[5..]) & 0x7fff_ffff);
        Some(Frame { kind, flags, stream, payload: bytes[9..].to_vec() })
    }

    fn fill(&mut self, length: usize) -> Option<()> {
        while self.buffer.len() < length {
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("nothing came for {PATIENCE:?}: {error}"),
            }
        }
        Some(())
    }

    /// Reads to the end of the connection; a test in which it doesn't come fails.
    pub fn read_to_end(&mut self) {
        while self.read().is_some() {}
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("answers", &self.answers).field("goaway", &self.goaway).finish_non_exhaustive()
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}
