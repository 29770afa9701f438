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

/// More parameters than this are not read: PHP stops at 1,000 of them (`max_input_vars`), as Node and Express do, and what
/// stands behind is there for some readers only.
const MOST: usize = 256;

/// Looks `name` up in a raw query.
pub(crate) fn look_up(query: &str, name: &str) -> Parameter {
    let mut found = Parameter::Absent;
    let loose_name = loosen_name(name.as_bytes());
    for (number, pair) in query.split('&').enumerate() {
        if number == MOST {
            return Parameter::Unknown;
        }
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(own), Some(value)) = (decode(raw_name), decode(raw_value)) else {
            return Parameter::Unknown;
        };
        if !has_plain_brackets(&own) {
            return Parameter::Unknown;
        }
        if own.as_slice() == name.as_bytes() && found == Parameter::Absent {
            found = Parameter::Once(value);
        } else if loosen_name(&own) == loose_name {
            found = Parameter::Unknown;
        }
    }
    found
}

/// Whether the brackets of a name are an index, `a[b][c]`, to every reader. One that leads, stays open or closes nothing is
/// part of a name to some: PHP takes `a[b` for `a_b`, Express `[a]` for `a`.
fn has_plain_brackets(name: &[u8]) -> bool {
    let mut is_open = false;
    let name = String::from_utf8_lossy(name);
    let plain = name.trim_start().bytes().enumerate().all(|(place, byte)| match byte {
        b'[' => place > 0 && !std::mem::replace(&mut is_open, true),
        b']' => std::mem::replace(&mut is_open, false),
        _ => true,
    });
    plain && !is_open
}

/// Whether some framework takes the query for another method than the request's own: Symfony, and Laravel with it, look
/// there for the `_method` of a POST, WordPress for that of any request, ASP.NET for the header's name (P8). However oddly
/// it is spelled: it is never rewritten, so it can only be refused.
pub(crate) fn overrides_method(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        // What the name begins with, or what may stand for it, or before it.
        pair.starts_with(['_', '.', '[', '%', '+', ' ', '?', 'x', 'X'])
            && is_method(pair.split('=').next().unwrap_or_default())
    })
}

fn is_method(raw: &str) -> bool {
    const NAME: &[u8] = b"_method";
    const FIELD: &[u8] = b"x-http-method-override";
    let mut name = Decoded::new();
    let mut rest = raw.as_bytes();
    while let Some((byte, tail)) = first_leniently(rest) {
        // PHP ends a name at its first zero.
        if byte == 0 {
            break;
        }
        name.push(if byte == b'+' && rest[0] == b'+' { b' ' } else { byte });
        rest = tail;
    }
    let name = name.trim_ascii();
    let name = name.strip_prefix(b"?").unwrap_or(name);
    // PHP takes these for `_`; Express reads the name between brackets, or behind a dot, and both take an index behind it.
    let folded =
        name.iter().map(|byte| if matches!(byte, b'.' | b' ' | b'[') { b'_' } else { byte.to_ascii_lowercase() });
    let inner = name.strip_prefix(b"[").or_else(|| name.strip_prefix(b".")).unwrap_or(name);
    let inner = inner.split(|byte| matches!(byte, b'[' | b']' | b'.')).next().unwrap_or_default();
    folded.eq(NAME.iter().copied()) || inner.eq_ignore_ascii_case(NAME) || name.eq_ignore_ascii_case(FIELD)
}

/// The first byte of what is left, out of its escape if it has a whole one, and what comes behind it.
fn first_leniently(raw: &[u8]) -> Option<(u8, &[u8])> {
    let (&byte, tail) = raw.split_first()?;
    let escaped = match (byte, tail) {
        (b'%', [high, low, ..]) => unhex(*high).zip(unhex(*low)).map(|(high, low)| high << 4 | low),
        _ => None,
    };
    Some(escaped.map_or((byte, tail), |escaped| (escaped, &tail[2..])))
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
    while let Some((byte, tail)) = first_leniently(rest) {
        decoded.push(byte);
        rest = tail;
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
            "[q]=1",
            "%5Bq%5D=2&q=1",
            "q=1&a[q=2",
            "q=1&a]=2",
            "q=1&a[b[c]]=2",
            &format!("{}q=1", "x=&".repeat(MOST)),
        ] {
            assert_eq!(look_up(query, "q"), Parameter::Unknown, "{query}");
        }
        assert_eq!(look_up(&format!("{}q=1", "x=&".repeat(MOST - 1)), "q"), once("1"));
        assert_eq!(look_up("a[b][]=1&q=1", "q"), once("1"));
        assert_eq!(look_up("a.b=1", "a_b"), Parameter::Unknown);
        assert_eq!(look_up("a+b=1", "a_b"), Parameter::Unknown);
    }

    #[test]
    fn a_method_in_a_query_is_one_of_its_own() {
        for query in [
            "_method=DELETE",
            "a=1&_METHOD=put",
            "%5fmethod=PUT",
            ".method=PUT",
            "[method=PUT",
            "+_method=PUT",
            "_method%00x=PUT",
            "a;_method=PUT",
            "_method",
            "[_method]=PUT",
            "%5B_method%5D=PUT",
            "_method[]=PUT",
            "_method[0]=PUT",
            "._method=PUT",
            "?_method=PUT",
            "X-HTTP-Method-Override=PUT",
        ] {
            assert!(overrides_method(query), "{query}");
        }
        for query in
            ["", "method=PUT", "a=_method", "_methods=1", "my_method=1", "a[_method]=1", "_=1", "%zz=1", "%", "["]
        {
            assert!(!overrides_method(query), "{query}");
        }
    }
}
