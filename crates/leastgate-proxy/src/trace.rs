//! W3C Trace Context, level 1: a valid `traceparent` goes on with a span of ours, anything else begins a new trace.

use std::hash::{BuildHasher, RandomState};

use http::{HeaderMap, HeaderValue};

const LENGTH: usize = 55;

/// The trace a request belongs to, and the gateway's own span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    text: [u8; LENGTH],
    /// Whether the caller began it: only then its `tracestate` has a meaning.
    pub(crate) continued: bool,
}

impl Trace {
    /// Continues the caller's trace, or begins one.
    pub(crate) fn of(headers: &HeaderMap, ids: &mut SpanIds) -> Self {
        let mut lines = headers.get_all("traceparent").iter();
        let caller = match (lines.next(), lines.next()) {
            (Some(line), None) => parse(line.as_bytes()),
            _ => None,
        };
        let mut trace = Self { text: *b"00-00000000000000000000000000000000-0000000000000000-00", continued: false };
        match caller {
            Some(parent) => {
                trace.text = parent;
                trace.continued = true;
            }
            None => {
                hex(ids.next(), &mut trace.text[3..19]);
                hex(ids.next(), &mut trace.text[19..35]);
            }
        }
        hex(ids.next(), &mut trace.text[36..52]);
        trace
    }

    fn as_str(&self) -> &str {
        // Only ASCII was ever written into it.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The trace's id, 32 hex digits.
    pub(crate) fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }

    /// The gateway's span, 16 hex digits.
    pub(crate) fn span_id(&self) -> &str {
        &self.as_str()[36..52]
    }

    /// The field that goes upstream.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text).unwrap_or(HeaderValue::from_static("00"))
    }
}

/// A `traceparent` this version of the specification can read, as version 00 (§3.2.2).
fn parse(line: &[u8]) -> Option<[u8; LENGTH]> {
    let mut text: [u8; LENGTH] = line.get(..LENGTH)?.try_into().ok()?;
    let is_longer = line.len() > LENGTH;
    let version = &text[..2];
    let fits = match version {
        b"ff" => false,
        b"00" => !is_longer,
        _ => !is_longer || line[LENGTH] == b'-',
    };
    let shaped = text[2] == b'-' && text[35] == b'-' && text[52] == b'-';
    let ids = [&text[..2], &text[3..35], &text[36..52], &text[53..]];
    let is_hex = ids.iter().all(|id| id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let is_zero = |id: &[u8]| id.iter().all(|byte| *byte == b'0');
    if !fits || !shaped || !is_hex || is_zero(&text[3..35]) || is_zero(&text[36..52]) {
        return None;
    }
    text[..2].copy_from_slice(b"00");
    Some(text)
}

fn hex(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Draws the ids of one worker. They are names, not secrets: the standard library's per-thread hash keys, which the
/// system's random source feeds, are start enough, and `SplitMix64` visits every state once.
#[derive(Debug)]
pub(crate) struct SpanIds {
    state: u64,
}

impl SpanIds {
    pub(crate) fn new() -> Self {
        Self { state: RandomState::new().hash_one(std::thread::current().id()) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(lines: &[&str]) -> Trace {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("traceparent", line.parse().unwrap());
        }
        Trace::of(&headers, &mut SpanIds::new())
    }

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_parent_is_continued_with_a_span_of_ours() {
        let trace = trace(&[VALID]);
        assert!(trace.continued);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.span_id(), "00f067aa0ba902b7");
        assert!(trace.header().to_str().unwrap().ends_with("-01"));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert!(trace(&["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what"]).continued);
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
        let refused = [
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00",
            "",
        ];
        for line in refused {
            assert!(!trace(&[line]).continued, "{line}");
        }
        assert!(!trace(&[VALID, VALID]).continued);
        assert_ne!(trace(&[]).trace_id(), trace(&[]).trace_id());
        assert_eq!(trace(&[]).header().len(), LENGTH);
    }
}
