//! What servers, proxies and frameworks are known to do to a path, each step by itself and on bytes. They share no
//! code with the product, and no two products put them together in the same order, so [`readings`] tries all orders.

use std::collections::BTreeSet;

pub(crate) type Reader = fn(&[u8]) -> Vec<u8>;

/// The steps that statement P2 of the design names.
pub(crate) const READERS: &[(&str, Reader)] = &[
    ("percent-decoding", percent_decoded),
    ("%u escapes", |path| decoded(path, percent_u)),
    ("overlong UTF-8", |path| decoded(path, overlong)),
    ("backslashes", |path| path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()),
    ("merged slashes", merge_slashes),
    ("dot segments", remove_dot_segments),
    ("parameters", |path| each_segment(path, |segment| cut(segment, b";"))),
    ("trailing dots and spaces", |path| each_segment(path, strip_trailing)),
    ("cut at ?", |path| cut(path, b"?").to_vec()),
    ("cut at #", |path| cut(path, b"#").to_vec()),
    ("cut at NUL", |path| cut(path, b"\0").to_vec()),
    ("cut at CR or LF", |path| cut(path, b"\r\n").to_vec()),
];

/// Every text that `raw` can become by the readers, in any order and however often, `raw` itself included; nothing for
/// more than `most`.
pub(crate) fn readings(raw: &[u8], most: usize) -> Option<BTreeSet<Vec<u8>>> {
    let mut seen = BTreeSet::from([raw.to_vec()]);
    let mut left = vec![raw.to_vec()];
    while let Some(path) = left.pop() {
        for (_, reader) in READERS {
            let read = reader(&path);
            if seen.insert(read.clone()) {
                left.push(read);
            }
        }
        if seen.len() > most {
            return None;
        }
    }
    Some(seen)
}

/// Percent-decoding, once; a bad escape stays as it is.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    decoded(text, percent)
}

/// What stands at the start of a text for something else, and how long it is.
type Escape = fn(&[u8]) -> Option<(Vec<u8>, usize)>;

fn decoded(path: &[u8], escape: Escape) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        match escape(rest) {
            Some((bytes, width)) => {
                out.extend(bytes);
                rest = &rest[width..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn percent(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    Some((vec![u8::try_from(number(digits)?).ok()?], 3))
}

/// `%u002e`, as IIS read it.
fn percent_u(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let digits = text.strip_prefix(b"%u").or_else(|| text.strip_prefix(b"%U"))?.get(..4)?;
    Some((char::from_u32(number(digits)?)?.to_string().into_bytes(), 6))
}

/// ASCII in two to four bytes (RFC 3629 §3 forbids them).
fn overlong(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (first, width) = match text {
        [0xC0 | 0xC1, ..] => (u32::from(text[0] & 1), 2),
        [0xE0, 0x80..=0x81, ..] => (0, 3),
        [0xF0, 0x80, 0x80..=0x81, ..] => (0, 4),
        _ => return None,
    };
    let tail = text.get(1..width)?;
    let is_tail = tail.iter().all(|byte| byte & 0xC0 == 0x80);
    let value = tail.iter().fold(first, |value, byte| value << 6 | u32::from(byte & 0x3F));
    is_tail.then_some(())?;
    u8::try_from(value).ok().filter(u8::is_ascii).map(|byte| (vec![byte], width))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// RFC 3986 §5.2.4.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    for (at, part) in parts.iter().enumerate() {
        match *part {
            b"." => {}
            b".." => {
                out.pop();
            }
            part => out.push(part),
        }
        if at + 1 == parts.len() && matches!(*part, b"." | b"..") {
            out.push(b"");
        }
    }
    rooted(&out)
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| *next == b'/' && *before == b'/');
    merged
}

fn each_segment(path: &[u8], read: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).map(read).collect();
    rooted(&parts)
}

fn rooted(parts: &[&[u8]]) -> Vec<u8> {
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

fn strip_trailing(segment: &[u8]) -> &[u8] {
    let len = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    &segment[..len]
}

fn cut<'a>(text: &'a [u8], at: &[u8]) -> &'a [u8] {
    text.split(|byte| at.contains(byte)).next().unwrap_or_default()
}
