//! The same from a client of HTTP/2: the bytes are the fields of a head, one a line, pseudo-header fields among them, in
//! whatever order and number. They reach hyper in frames, written out in full (RFC 7541 §6.2.2), so that every byte is
//! the fuzzer's.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use leastgate_policy::host;

use crate::fields::with_tokens;
use crate::head::{Wire, check, run};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const LARGEST_FRAME: usize = 16 * 1024;

/// The bytes are the fields of one request.
pub(crate) fn body(bytes: &[u8]) {
    let bytes = with_tokens(bytes);
    for mut parts in heads(&connection(&bytes)) {
        host::name_host(&mut parts);
        check(&bytes, &parts);
    }
}

/// All that a client sends with this one request.
fn connection(lines: &[u8]) -> Vec<u8> {
    let fields = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let block: Vec<u8> = fields.flat_map(literal).collect();
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut kind = HEADERS;
    let mut parts = block.chunks(LARGEST_FRAME).peekable();
    while let Some(part) = parts.next() {
        let ends = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let flags = if kind == HEADERS { ends | END_STREAM } else { ends };
        sent.extend(frame(kind, flags, 1, part));
        kind = CONTINUATION;
    }
    sent
}

/// A field that goes into no table: `name: value`, where a name may begin with a colon.
fn literal(line: &[u8]) -> Vec<u8> {
    let colon = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
    let (name, value) = line.split_at(colon);
    let value = value.strip_prefix(b":").unwrap_or_default();
    let value = value.strip_prefix(b" ").unwrap_or(value);
    [&[0], &text(name)[..], &text(value)].concat()
}

/// A length of a prefix of seven bits and the octets (RFC 7541 §5.1, §5.2).
fn text(octets: &[u8]) -> Vec<u8> {
    const PREFIX: usize = 0x7f;
    let mut out = Vec::with_capacity(octets.len() + 4);
    if octets.len() < PREFIX {
        out.push(low(octets.len(), PREFIX));
    } else {
        out.push(0x7f);
        let mut rest = octets.len() - PREFIX;
        while rest >= 0x80 {
            out.push(low(rest, 0x7f) | 0x80);
            rest >>= 7;
        }
        out.push(low(rest, 0x7f));
    }
    out.extend_from_slice(octets);
    out
}

fn low(number: usize, mask: usize) -> u8 {
    u8::try_from(number & mask).unwrap_or_default()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The heads that hyper reads, with the caps of the gateway.
fn heads(bytes: &[u8]) -> Vec<Parts> {
    let heads = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        heads.borrow_mut().push(request.into_parts().0);
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    let mut server = http2::Builder::new(Nowhere);
    server.max_header_list_size(16 * 1024).header_table_size(4 * 1024);
    // At the end of a connection, h2 forgets the requests that it has not handed over yet.
    run(server.serve_connection(Wire { rest: bytes, ends: false }, service), 8);
    heads.take()
}

/// Answers are of no interest: a stream's task is dropped as soon as its request was handed over.
#[derive(Clone, Copy, Debug)]
struct Nowhere;

impl<F: Future> hyper::rt::Executor<F> for Nowhere {
    fn execute(&self, _: F) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_hyper_reads() {
        let long = "x".repeat(700);
        let lines =
            format!(":method: GET\n:scheme: http\n:path: /v1/orders?a=b\n:authority: orders.test\nlong: {long}\n");
        let read = heads(&connection(lines.as_bytes()));
        let [parts] = &read[..] else { panic!("{read:?}") };
        assert_eq!(parts.uri.to_string(), "http://orders.test/v1/orders?a=b");
        assert_eq!(parts.headers["long"], long);
        assert!(heads(&connection(b":method: GET\n:path: /\nupper Case: x")).is_empty());
    }

    /// A corpus that hyper refuses to the last file would show nothing.
    #[test]
    fn some_get_through() {
        let allowed = b":method: GET\n:scheme: http\n:path: /healthz\n:authority: orders.test\n";
        let mut read = heads(&connection(allowed));
        host::name_host(&mut read[0]);
        assert_eq!(read[0].headers["host"], "orders.test");
        body(allowed);
    }
}
