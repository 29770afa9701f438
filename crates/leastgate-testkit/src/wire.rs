//! HTTP/1.1 as bytes: a strict reader of one message, for both the recorder and the raw client.
//!
//! It accepts only what a gateway may emit: CRLF line ends, no folding, one framing. What it refuses is a finding.

use std::io::{self, Read};

/// A message head, exactly as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Every byte up to and with the empty line.
    pub bytes: Vec<u8>,
    /// The first line.
    pub start: String,
    /// Name and trimmed value of each field, in order, names as they came.
    pub fields: Vec<(String, String)>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No framing fields.
    Absent,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl Head {
    /// Splits the bytes of a head; latin-1, so that no byte is lost.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let body = text.strip_suffix("\r\n\r\n").ok_or("the head does not end in CRLF CRLF")?;
        let mut lines = body.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
        if text.chars().any(|c| (c < ' ' && !"\r\n\t".contains(c)) || c == '\x7f')
            || body.replace("\r\n", "").contains(['\r', '\n'])
        {
            return Err(format!("a control byte in the head: {text:?}"));
        }
        Ok(Self { bytes: bytes.to_vec(), start, fields })
    }

    /// The values of every field of that name, in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of the field, if there is exactly one.
    #[must_use]
    pub fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether some field has that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The framing, or what is ambiguous about it.
    pub fn framing(&self) -> Result<Framing, String> {
        let lengths: Vec<_> = self.all("content-length").collect();
        let codings: Vec<_> = self.all("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Framing::Absent),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse().map(Framing::Length).map_err(|_| format!("Content-Length: {length}"))
            }
            ([], ["chunked"]) => Ok(Framing::Chunked),
            _ => Err(format!("ambiguous framing: Content-Length {lengths:?}, Transfer-Encoding {codings:?}")),
        }
    }
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("not a field: {line:?}"))?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("not a field name: {name:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// Bytes of a connection, with what was read beyond the last message kept for the next.
#[derive(Debug)]
pub struct Buffered<R> {
    inner: R,
    ahead: Vec<u8>,
}

impl<R: Read> Buffered<R> {
    /// Nothing read yet.
    pub fn new(inner: R) -> Self {
        Self { inner, ahead: Vec::new() }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The stream below, to write to.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// What was read and belongs to no message yet.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more; `Ok(0)` is the end of the stream.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let read = self.inner.read(&mut chunk)?;
        self.ahead.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Everything up to and with `end`; `None` if the stream ends first. What came stays in `ahead`.
    pub fn through(&mut self, end: &[u8], cap: usize) -> io::Result<Option<Vec<u8>>> {
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(end.len());
            if let Some(at) = self.ahead[from..].windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.ahead.drain(..from + at + end.len()).collect()));
            }
            searched = self.ahead.len();
            if searched > cap {
                return Err(io::Error::other(format!("no {end:?} within {cap} bytes")));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Up to `limit` bytes, at least one; empty at the end of the stream.
    pub fn some(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        let take = usize::try_from(limit).unwrap_or(usize::MAX).min(self.ahead.len());
        if take == self.ahead.len() {
            // Bodies of a gigabyte go this way: no copy.
            return Ok(std::mem::take(&mut self.ahead));
        }
        Ok(self.ahead.drain(..take).collect())
    }

    /// Reads a body, handing each piece to `take`. Answers the trailer lines, or why it is not whole.
    pub fn body(&mut self, framing: Framing, mut take: impl FnMut(&[u8])) -> io::Result<Vec<String>> {
        match framing {
            Framing::Absent => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length, &mut take).map(|()| Vec::new()),
            Framing::Chunked => self.chunks(&mut take),
        }
    }

    fn exactly(&mut self, mut left: u64, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            let piece = self.some(left)?;
            if piece.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{left} bytes of the body are missing"),
                ));
            }
            left -= piece.len() as u64;
            take(&piece);
        }
        Ok(())
    }

    fn chunks(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<Vec<String>> {
        loop {
            let size = self.line()?;
            if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(io::Error::other(format!("not a plain chunk size: {size:?}")));
            }
            let size = u64::from_str_radix(&size, 16).map_err(io::Error::other)?;
            if size == 0 {
                return self.trailers();
            }
            self.exactly(size, take)?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(io::Error::other(format!("a chunk runs over its size: {end:?}")));
            }
        }
    }

    fn trailers(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push(line);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let bytes = self.through(b"\r\n", 64 * 1024)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(bytes[..bytes.len() - 2].iter().map(|byte| char::from(*byte)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(fields: &str) -> Result<Framing, String> {
        Head::parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())?.framing()
    }

    #[test]
    fn one_framing_is_read_and_two_are_refused() {
        assert_eq!(framing(""), Ok(Framing::Absent));
        assert_eq!(framing("content-length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Ok(Framing::Chunked));
        for two in [
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "content-length: +5\r\n",
        ] {
            framing(two).unwrap_err();
        }
    }

    #[test]
    fn odd_heads_are_findings() {
        for bytes in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n fold\r\n\r\n",
            "GET / HTTP/1.1\r\na: \0\r\n\r\n",
        ] {
            Head::parse(bytes.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn chunks_are_joined_and_the_next_message_is_left_alone() {
        let mut stream = Buffered::new(&b"3\r\nabc\r\n1\r\nd\r\n0\r\nx: y\r\n\r\nGET"[..]);
        let mut body = Vec::new();
        let trailers = stream.body(Framing::Chunked, |piece| body.extend_from_slice(piece)).unwrap();
        assert_eq!(
            (body.as_slice(), trailers.as_slice(), stream.ahead()),
            (&b"abcd"[..], &["x: y".to_owned()][..], &b"GET"[..])
        );
    }

    #[test]
    fn extensions_and_bare_line_feeds_in_chunks_are_refused() {
        for bytes in ["3;a=b\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n", "\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n"] {
            Buffered::new(bytes.as_bytes()).body(Framing::Chunked, |_| ()).unwrap_err();
        }
    }
}
