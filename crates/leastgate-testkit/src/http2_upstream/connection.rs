//! One connection to the upstream: its thread reads frames, and each request's answer is written by a thread of its own.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::{Answer, Move, Shared};
use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use crate::pattern::Pattern;

/// A connection nobody uses any more ends after this long, should the test forget it.
const IDLE: Duration = Duration::from_secs(120);

/// What may be sent unasked (§6.9.2), and the largest frame (§4.2).
const WINDOW: i64 = 65_535;
const LARGEST_FRAME: usize = 16 * 1024;

/// The setting of the window of each stream (§6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

pub(super) fn serve(stream: TcpStream, number: usize, shared: &Arc<Shared>) {
    // A socket that refuses these options is already closed: the first read says so.
    let _ = stream.set_read_timeout(Some(IDLE));
    let _ = stream.set_write_timeout(Some(IDLE));
    let _ = stream.set_nodelay(true);
    let writer =
        Writer { stream: stream.try_clone().expect("a socket can be duplicated"), windows: Windows::default() };
    let out = Arc::new(Out { writer: Mutex::new(writer), changed: Condvar::new() });
    let mut connection = Connection {
        stream,
        out,
        number,
        shared: Arc::clone(shared),
        requests: HashMap::new(),
        decoder: loona_hpack::Decoder::new(),
    };
    connection.run();
    let _ = connection.stream.shutdown(Shutdown::Both);
    connection.out.end();
}

struct Connection {
    stream: TcpStream,
    out: Arc<Out>,
    number: usize,
    shared: Arc<Shared>,
    requests: HashMap<u32, Request>,
    decoder: loona_hpack::Decoder<'static>,
}

/// A request of which more may come.
struct Request {
    /// Its place in the record.
    at: usize,
    head: Vec<u8>,
    ends_with_head: bool,
    hasher: blake3::Hasher,
    /// What is still to be done for it.
    answer: Option<Answer>,
}

impl Connection {
    /// To the end of the connection, or to what a client may not say.
    fn run(&mut self) {
        let mut preface = [0; PREFACE.len()];
        if self.stream.read_exact(&mut preface).is_err() || preface != *PREFACE {
            return;
        }
        self.out.send(&frame(SETTINGS, 0, 0, &[]));
        while let Some(frame) = self.frame() {
            self.take(&frame);
            if frame.kind == GOAWAY {
                return;
            }
        }
    }

    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = usize::try_from(word(&head) >> 8).expect("24 bits fit");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream: word(&head[5..]) & 0x7fff_ffff, payload })
    }

    fn take(&mut self, frame: &Frame) {
        let is_acknowledged = frame.flags & 1 != 0;
        match frame.kind {
            SETTINGS if !is_acknowledged => {
                self.out.settle(&frame.payload);
                self.out.send(&self::frame(SETTINGS, 1, 0, &[]));
            }
            PING if !is_acknowledged => self.out.send(&self::frame(PING, 1, 0, &frame.payload)),
            WINDOW_UPDATE => self.out.widen(frame.stream, i64::from(word(&frame.payload))),
            HEADERS => self.begin(frame),
            CONTINUATION => self.go_on(frame),
            DATA => self.body(frame),
            RST_STREAM => {
                if let Some(request) = self.requests.remove(&frame.stream) {
                    self.shared.requests()[request.at].reset = Some(word(&frame.payload));
                }
                self.out.cancel(frame.stream);
            }
            _ => {}
        }
    }

    fn begin(&mut self, frame: &Frame) {
        let is_trailers = self.requests.contains_key(&frame.stream);
        if is_trailers {
            return self.complete(frame.stream);
        }
        let at = {
            let mut requests = self.shared.requests();
            requests.push(super::Recorded { connection: self.number, ..super::Recorded::default() });
            requests.len() - 1
        };
        let ends_with_head = frame.flags & END_STREAM != 0;
        let request = Request { at, head: Vec::new(), ends_with_head, hasher: blake3::Hasher::new(), answer: None };
        self.requests.insert(frame.stream, request);
        self.go_on(frame);
    }

    fn go_on(&mut self, frame: &Frame) {
        let Some(request) = self.requests.get_mut(&frame.stream) else { return };
        request.head.extend_from_slice(&frame.payload);
        if frame.flags & END_HEADERS == 0 {
            return;
        }
        let decoded = self.decoder.decode(&request.head).expect("the gateway's HPACK");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = {
            let recorded = &mut self.shared.requests()[request.at];
            recorded.fields = decoded.iter().map(|(name, value)| (text(name), text(value))).collect();
            recorded.path().to_owned()
        };
        let answer = self.shared.answer(&path);
        if answer.is_early {
            self.out.answer(&self.shared, request.at, frame.stream, answer);
        } else {
            request.answer = Some(answer);
        }
        if request.ends_with_head {
            self.complete(frame.stream);
        }
    }

    fn body(&mut self, frame: &Frame) {
        if let Some(request) = self.requests.get_mut(&frame.stream) {
            request.hasher.update(&frame.payload);
            let pace = *self.shared.pace.lock().expect("no holder panics");
            let length = frame.payload.len() as u64;
            let before = {
                let taken = &mut self.shared.requests()[request.at].body_length;
                *taken += length;
                *taken - length
            };
            if let Some((_, pause)) = pace.filter(|(each, _)| before / each != (before + length) / each) {
                thread::sleep(pause);
            }
        }
        let is_last = frame.flags & END_STREAM != 0;
        if !frame.payload.is_empty() {
            let taken = u32::try_from(frame.payload.len()).expect("a frame is short").to_be_bytes();
            self.out.send(&self::frame(WINDOW_UPDATE, 0, 0, &taken));
            if !is_last {
                self.out.send(&self::frame(WINDOW_UPDATE, 0, frame.stream, &taken));
            }
        }
        if is_last {
            self.complete(frame.stream);
        }
    }

    fn complete(&mut self, stream: u32) {
        let Some(request) = self.requests.remove(&stream) else { return };
        {
            let recorded = &mut self.shared.requests()[request.at];
            recorded.body_hash = request.hasher.finalize().to_hex().to_string();
            recorded.is_complete = true;
        }
        if let Some(answer) = request.answer {
            self.out.answer(&self.shared, request.at, stream, answer);
        }
    }
}

/// The way back, shared by the answers.
struct Out {
    writer: Mutex<Writer>,
    changed: Condvar,
}

struct Writer {
    stream: TcpStream,
    windows: Windows,
}

/// What may still be sent.
struct Windows {
    initial: i64,
    connection: i64,
    streams: HashMap<u32, i64>,
    cancelled: Vec<u32>,
    is_over: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self { initial: WINDOW, connection: WINDOW, streams: HashMap::new(), cancelled: Vec::new(), is_over: false }
    }
}

impl Out {
    /// What can't be written is not the upstream's business: the gateway has closed.
    fn send(&self, bytes: &[u8]) {
        let _ = self.writer.lock().expect("no holder panics").stream.write_all(bytes);
    }

    fn change(&self, change: impl FnOnce(&mut Windows)) {
        change(&mut self.writer.lock().expect("no holder panics").windows);
        self.changed.notify_all();
    }

    fn settle(&self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                let initial = i64::from(word(&setting[2..]));
                self.change(|windows| {
                    let more = initial - windows.initial;
                    windows.initial = initial;
                    windows.streams.values_mut().for_each(|window| *window += more);
                });
            }
        }
    }

    fn widen(&self, stream: u32, by: i64) {
        self.change(|windows| match stream {
            0 => windows.connection += by,
            _ => *windows.streams.entry(stream).or_insert(windows.initial) += by,
        });
    }

    fn cancel(&self, stream: u32) {
        self.change(|windows| windows.cancelled.push(stream));
    }

    fn end(&self) {
        self.change(|windows| windows.is_over = true);
    }

    fn answer(self: &Arc<Self>, shared: &Arc<Shared>, at: usize, stream: u32, answer: Answer) {
        let (out, shared) = (Arc::clone(self), Arc::clone(shared));
        thread::spawn(move || {
            for next in answer.moves {
                if !out.take(next, stream, &shared, at) {
                    return;
                }
            }
        });
    }

    /// Whether the next may follow.
    fn take(&self, next: Move, stream: u32, shared: &Shared, at: usize) -> bool {
        match next {
            Move::Head(status, fields, flags) => self.send(&head(stream, status, &fields, flags)),
            Move::Data(bytes, flags) => self.send(&frame(DATA, flags, stream, &bytes)),
            Move::Bytes(make) => self.send(&make(stream)),
            Move::Pattern(length) => return self.pattern(stream, length),
            Move::Echo => self.send(&echo(stream, &shared.requests()[at])),
            Move::Wait(gate) => gate.wait(),
            Move::Pause(length) => thread::sleep(length),
            Move::Reset(code) => self.send(&frame(RST_STREAM, 0, stream, &code.to_be_bytes())),
            Move::Close => {
                let _ = self.writer.lock().expect("no holder panics").stream.shutdown(Shutdown::Both);
                return false;
            }
        }
        true
    }

    fn pattern(&self, stream: u32, length: u64) -> bool {
        self.send(&head(stream, 200, &[("content-length".to_owned(), length.to_string())], 0));
        let mut pattern = Pattern::new(length);
        while pattern.left() > 0 {
            let mut writer = self.writer.lock().expect("no holder panics");
            let most = loop {
                let windows = &mut writer.windows;
                if windows.is_over || windows.cancelled.contains(&stream) {
                    return false;
                }
                let window = *windows.streams.entry(stream).or_insert(windows.initial);
                let most = window.min(windows.connection);
                if most > 0 {
                    break usize::try_from(most).unwrap_or(usize::MAX).min(LARGEST_FRAME);
                }
                writer = self.changed.wait_timeout(writer, IDLE).expect("no holder panics").0;
            };
            let part = pattern.next(most);
            let taken = i64::try_from(part.len()).expect("a frame is short");
            if writer.stream.write_all(&frame(DATA, 0, stream, part)).is_err() {
                return false;
            }
            writer.windows.connection -= taken;
            *writer.windows.streams.entry(stream).or_default() -= taken;
        }
        self.send(&frame(DATA, END_STREAM, stream, &[]));
        true
    }
}

fn echo(stream: u32, request: &super::Recorded) -> Vec<u8> {
    let target = request.field(":path").unwrap_or_default();
    let body = serde_json::json!({ "method": request.field(":method"), "target": target }).to_string();
    let probe = request.field("x-probe").unwrap_or("-");
    let fields = [("content-type", "application/json"), ("x-upstream", "http2"), ("x-echo", probe)];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    [head(stream, 200, &fields, 0), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

fn head(stream: u32, status: u16, fields: &[(String, String)], flags: u8) -> Vec<u8> {
    let status = (":status".to_owned(), status.to_string());
    let block: Vec<u8> = std::iter::once(&status).chain(fields).flat_map(literal).collect();
    frame(HEADERS, END_HEADERS | flags, stream, &block)
}

/// A field that enters no table (RFC 7541 §6.2.2): answers may be written in any order.
fn literal((name, value): &(String, String)) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}
