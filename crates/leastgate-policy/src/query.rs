//! The query string, as far as conditions ask about it (§4). It is never rewritten.

use smallvec::SmallVec;

use crate::path::unhex;

/// Decoded bytes of a name or value; short ones stay on the stack.
pub(crate) type Decoded = SmallVec<[u8; 64]>;

/// What a query says of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// It is not there.
    Absent,
    /// It is there once, spelled exactly so.
    Once(Decoded),
    /// Readers could differ: repeated, spelled otherwise, or the query is malformed.
    Unknown,
}

/// Looks `name` up in a raw query.
pub(crate) fn look_up(query: &str, name: &str) -> Parameter {
    let mut found = Parameter::Absent;
    let loose_name = loosen_name(name.as_bytes());
    for pair in query.split('&') {
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(own), Some(value)) = (decode(raw_name), decode(raw_value)) else {
            return Parameter::Unknown;
        };
        if own.as_slice() == name.as_bytes() && found == Parameter::Absent {
            found = Parameter::Once(value);
        } else if loosen_name(&own) == loose_name {
            found = Parameter::Unknown;
        }
    }
    found
}

/// One decoding, `+` as a space; `None` where readers disagree: `;`, a bad escape, `%00`.
pub(crate) fn decode(raw: &str) -> Option<Decoded> {
    let mut decoded = Decoded::new();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b';' => return None,
            b'+' => b' ',
            b'%' => match unhex(bytes.next()?)? << 4 | unhex(bytes.next()?)? {
                0 => return None,
                escaped => escaped,
            },
            plain => plain,
        });
    }
    Some(decoded)
}

/// Every escape decoded, whatever else is wrong: for finding a token that hides in a query.
pub(crate) fn decode_leniently(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => unhex(*high).zip(unhex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

/// The form in which frameworks may take two names for one: trimmed, lower-cased, cut at the first `[`, with `.`
/// and space as `_`.
fn loosen_name(name: &[u8]) -> Decoded {
    let text = String::from_utf8_lossy(name);
    let cut = text.trim().split('[').next().unwrap_or_default();
    let mut loose = Decoded::new();
    for c in cut.chars().flat_map(char::to_lowercase) {
        let c = if matches!(c, '.' | ' ') { '_' } else { c };
        loose.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    loose
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(value: &str) -> Parameter {
        Parameter::Once(value.as_bytes().into())
    }

    #[test]
    fn a_parameter_is_read_once_decoded() {
        assert_eq!(look_up("a=1&currency=e%75r", "currency"), once("eur"));
        assert_eq!(look_up("q=a+b", "q"), once("a b"));
        assert_eq!(look_up("q", "q"), once(""));
        assert_eq!(look_up("", "q"), Parameter::Absent);
        assert_eq!(look_up("x=1", "q"), Parameter::Absent);
    }

    #[test]
    fn what_readers_disagree_on_is_unknown() {
        for query in [
            "q=1&q=2",
            "q=1&Q=2",
            "Q=1",
            "q[]=1",
            "q[a]=1&q=1",
            "%20q=1",
            "q=1;x",
            "x=%00&q=1",
            "x=%zz&q=1",
            "x=%2&q=1",
        ] {
            assert_eq!(look_up(query, "q"), Parameter::Unknown, "{query}");
        }
        assert_eq!(look_up("a.b=1", "a_b"), Parameter::Unknown);
        assert_eq!(look_up("a+b=1", "a_b"), Parameter::Unknown);
    }
}
