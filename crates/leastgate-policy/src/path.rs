//! The canonical path: reject, do not repair (§3).
//!
//! A path is accepted only if every decoder reads it the same way, so that the bytes that were judged can be
//! forwarded as they came. Nothing here rewrites: there is no dot-segment removal, no merging, no case folding.

use std::fmt;

use http::uri::PathAndQuery;
use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;

use crate::loosen::is_plainly_loose;

/// Longest target (path and query) in bytes.
pub const MAX_TARGET: usize = 8 * 1024;
/// Most segments of a path.
pub const MAX_SEGMENTS: usize = 128;

/// Why a path was refused, in words a caller may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The target or the number of segments is over its cap.
    TooLong(&'static str),
    /// The rule of §3 that it broke.
    Ambiguous(&'static str),
}

/// A path that means the same to everybody: non-empty decoded segments, and whether it ends in `/`.
#[derive(Clone)]
pub struct CanonicalPath {
    text: Text,
    ends: Ends,
    trailing_slash: bool,
    is_loose: bool,
}

/// Where each segment ends in a text `/a/b`; it begins behind the slash after the one before.
pub(crate) type Ends = SmallVec<[u32; 16]>;

/// The segments of a text `/a/b` as a trie reads them: in bytes, which need no check for whole characters.
#[derive(Clone, Copy)]
pub(crate) struct Segments<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) ends: &'a [u32],
}

impl<'a> Segments<'a> {
    /// Segment `index`, counted from 0.
    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(index)? as usize;
        self.text.get(start_of(self.ends, index)..end)
    }
}

fn start_of(ends: &[u32], index: usize) -> usize {
    index.checked_sub(1).map_or(1, |before| ends[before] as usize + 1)
}

/// The segments' text: the received target where it has no escape, else its segments decoded.
#[derive(Clone)]
enum Text {
    Received(PathAndQuery),
    Decoded(Box<str>),
}

impl CanonicalPath {
    /// Judges the path of a received target. The query is not looked at, but counts for the length.
    ///
    /// # Errors
    /// The rule of §3 that the path breaks.
    pub fn parse(target: &PathAndQuery) -> Result<Self, PathError> {
        if target.as_str().len() > MAX_TARGET {
            return Err(PathError::TooLong("the target is over 8 KiB"));
        }
        let path = target.path();
        if !path.contains('%') {
            let (ends, trailing_slash) = ends_of(path)?;
            for segment in segments(path, &ends) {
                check_raw(segment)?;
                check_decoded(segment)?;
            }
            let is_loose = is_plainly_loose(path);
            return Ok(Self { text: Text::Received(target.clone()), ends, trailing_slash, is_loose });
        }
        let mut decoded = String::with_capacity(path.len());
        let (raw, trailing_slash) = ends_of(path)?;
        let mut ends = Ends::new();
        for segment in segments(path, &raw) {
            decoded.push('/');
            decode_segment(segment, &mut decoded)?;
            ends.push(end_at(decoded.len()));
        }
        let is_loose = is_plainly_loose(&decoded);
        Ok(Self { text: Text::Decoded(decoded.into_boxed_str()), ends, trailing_slash, is_loose })
    }

    /// The decoded segments, none of them empty.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        segments(self.text(), &self.ends)
    }

    /// Segment `index`, counted from 0.
    #[must_use]
    pub fn segment(&self, index: usize) -> Option<&str> {
        self.segments().nth(index)
    }

    /// Number of segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it is `/`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether it ends in `/`; `/` itself does not count as such.
    #[must_use]
    pub fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    pub(crate) fn bytes(&self) -> Segments<'_> {
        Segments { text: self.text().as_bytes(), ends: &self.ends }
    }

    /// Whether it is plainly its own loose form; one that is not may be so all the same.
    pub(crate) fn is_loose(&self) -> bool {
        self.is_loose
    }

    fn text(&self) -> &str {
        match &self.text {
            Text::Received(target) => target.path(),
            Text::Decoded(text) => text,
        }
    }
}

impl fmt::Display for CanonicalPath {
    /// The decoded path, as it is recorded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in self.segments() {
            write!(f, "/{segment}")?;
        }
        if self.is_empty() || self.trailing_slash { f.write_str("/") } else { Ok(()) }
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalPath({self})")
    }
}

fn segments<'a>(text: &'a str, ends: &'a [u32]) -> impl ExactSizeIterator<Item = &'a str> + Clone {
    (0..ends.len()).map(move |index| &text[start_of(ends, index)..ends[index] as usize])
}

/// Where the raw segments end, and whether the path ends in `/`.
fn ends_of(path: &str) -> Result<(Ends, bool), PathError> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(PathError::Ambiguous("the path does not begin with `/`"));
    };
    let mut ends = Ends::new();
    if rest.is_empty() {
        return Ok((ends, false));
    }
    let trailing_slash = rest.ends_with('/');
    let body = rest.strip_suffix('/').unwrap_or(rest);
    let slashes = memchr::memchr_iter(b'/', body.as_bytes()).chain([body.len()]);
    for slash in slashes {
        if ends.len() == MAX_SEGMENTS {
            return Err(PathError::TooLong("the path has over 128 segments"));
        }
        ends.push(end_at(1 + slash));
    }
    Ok((ends, trailing_slash))
}

/// A place in a text as [`Ends`] keep it.
#[expect(clippy::cast_possible_truncation, reason = "a target is at most 8 KiB; its loose form is a few times that")]
pub(crate) fn end_at(place: usize) -> u32 {
    place as u32
}

/// Decodes one raw segment of a path or a template and appends it to `out`.
///
/// # Errors
/// The rule of §3 that the segment breaks.
pub(crate) fn decode_segment(raw: &str, out: &mut String) -> Result<(), PathError> {
    check_raw(raw)?;
    if !raw.contains('%') {
        check_decoded(raw)?;
        out.push_str(raw);
        return Ok(());
    }
    let mut bytes: SmallVec<[u8; 64]> = SmallVec::new();
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let escaped = match tail {
            [high, low, ..] => unhex(*high).zip(unhex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let escaped = escaped.ok_or(PathError::Ambiguous("a `%` that is not an escape"))?;
        if is_forbidden(escaped) {
            return Err(PathError::Ambiguous("an escape of a control byte, `/`, `\\`, `;`, `?`, `#` or `%`"));
        }
        bytes.push(escaped);
        rest = &tail[2..];
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| PathError::Ambiguous("escapes that are not valid UTF-8"))?;
    check_decoded(text)?;
    out.push_str(text);
    Ok(())
}

/// The raw bytes a segment may have: RFC 3986 pchar without `;`.
const RAW: [bool; 256] = {
    let mut raw = [false; 256];
    let bytes = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@%";
    let mut at = 0;
    while at < bytes.len() {
        raw[bytes[at] as usize] = true;
        at += 1;
    }
    raw
};

fn check_raw(raw: &str) -> Result<(), PathError> {
    let is_plain = raw.bytes().fold(true, |plain, byte| plain & RAW[usize::from(byte)]);
    if is_plain { Ok(()) } else { Err(PathError::Ambiguous("a byte that must not stand in a path")) }
}

/// What a decoded segment must not be, in its own form and, where it is not ASCII, in its NFKC form: full-width
/// dots and slashes become plain ones in readers that normalize.
fn check_decoded(segment: &str) -> Result<(), PathError> {
    check_shape(segment)?;
    if segment.is_ascii() {
        return Ok(());
    }
    let normal: String = segment.nfkc().collect();
    if normal.bytes().any(is_forbidden) {
        return Err(PathError::Ambiguous("a character that normalizes to a delimiter"));
    }
    check_shape(&normal)
}

fn check_shape(segment: &str) -> Result<(), PathError> {
    let ambiguous = |rule| Err(PathError::Ambiguous(rule));
    if segment.is_empty() {
        return ambiguous("an empty segment");
    }
    if segment.bytes().all(|byte| matches!(byte, b'.' | b' ')) {
        return ambiguous("a segment of dots or spaces");
    }
    if segment.starts_with(' ') || segment.ends_with(' ') {
        return ambiguous("a segment that begins or ends with a space");
    }
    if segment.ends_with('.') {
        return ambiguous("a segment that ends with a dot");
    }
    Ok(())
}

/// Bytes that no escape may stand for.
fn is_forbidden(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, 0x7F | b'/' | b'\\' | b';' | b'?' | b'#' | b'%')
}

/// The value of a hexadecimal digit, in either case.
pub(crate) fn unhex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<CanonicalPath, PathError> {
        CanonicalPath::parse(&path.parse().unwrap())
    }

    #[track_caller]
    fn accepts(path: &str, segments: &[&str], trailing_slash: bool) {
        let canonical = parse(path).unwrap();
        assert_eq!(canonical.segments().collect::<Vec<_>>(), segments);
        assert_eq!(canonical.has_trailing_slash(), trailing_slash);
    }

    #[test]
    fn plain_paths_are_lists_of_segments() {
        accepts("/", &[], false);
        accepts("/?a=/../b", &[], false);
        accepts("/v1/orders", &["v1", "orders"], false);
        accepts("/v1/orders/?x", &["v1", "orders"], true);
        accepts("/a.b/.c/~d/e@f:8,g=1", &["a.b", ".c", "~d", "e@f:8,g=1"], false);
    }

    #[test]
    fn escapes_are_decoded_once() {
        accepts("/caf%C3%A9/%41b%2A", &["café", "Ab*"], false);
        accepts("/a%20b/%2e%2ea", &["a b", "..a"], false);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for path in [
            "//",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/../b",
            "/%2e%2e/",
            "/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%3bb",
            "/a;b",
            "/..;/a",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/a%3f",
            "/a%23",
            "/a%25",
            "/a%2",
            "/a%zz",
            "/a%",
            "/%c0%ae",
            "/%ff",
            "/a.",
            "/a%20",
            "/%20a",
            "/...",
            "/%20",
            "/.%20.",
            "/a\\b",
            "/a|b",
            "/a^b",
            "/a`b",
            "/a\"b",
            "/a{b}",
            "/a[b]",
            "/%EF%BC%8E%EF%BC%8E",
            "/a%EF%BC%8Fb",
            "/%E2%84%80x",
            "/x%C2%A0",
            "/%EF%BC%85",
        ] {
            match path.parse::<PathAndQuery>() {
                Ok(target) => assert!(matches!(CanonicalPath::parse(&target), Err(PathError::Ambiguous(_))), "{path}"),
                Err(_) => continue,
            }
        }
    }

    #[test]
    fn caps_are_told_apart() {
        assert!(matches!(parse(&format!("/{}", "a".repeat(MAX_TARGET))), Err(PathError::TooLong(_))));
        assert!(parse(&format!("/{}", "a".repeat(MAX_TARGET - 1))).is_ok());
        assert!(parse(&"/a".repeat(MAX_SEGMENTS)).is_ok());
        assert!(matches!(parse(&"/a".repeat(MAX_SEGMENTS + 1)), Err(PathError::TooLong(_))));
    }
}
