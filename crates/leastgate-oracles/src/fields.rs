//! How bytes of a fuzzer become several texts, and how tokens come into them: a fuzzer does not find a checksum, so
//! `{READER}` stands for a token, `{%READER}` for its bytes escaped, and so on.

use crate::world::Holder;

/// The texts between record separators (0x1E); empty ones for ever after the last.
pub(crate) fn fields(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0x1E).chain(std::iter::repeat(b"".as_slice()))
}

/// `bytes` with every `{NAME}` replaced by that token, in the disguise that the marks before the name ask for.
pub(crate) fn with_tokens(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match placeholder(rest) {
            Some((text, width)) => {
                out.extend(text);
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

/// A token behind more escapes is promised to nobody.
const LAYERS: usize = 3;

fn placeholder(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let inner = text.strip_prefix(b"{")?;
    let inner = &inner[..inner.iter().take(16).position(|byte| *byte == b'}')?];
    let letters = inner.iter().position(u8::is_ascii_uppercase)?;
    let (marks, name) = inner.split_at(letters);
    let holder = Holder::ALL.into_iter().find(|holder| holder.placeholder().as_bytes() == name)?;
    let mut token = holder.token().as_bytes().to_vec();
    if marks.len() > LAYERS {
        return None;
    }
    for mark in marks.iter().rev() {
        token = disguised(&token, *mark)?;
    }
    Some((token, inner.len() + 2))
}

/// `%` escapes every byte, `+` every byte in lower case, `~` every third, `2` every `%`.
fn disguised(token: &[u8], mark: u8) -> Option<Vec<u8>> {
    let escaped = |at: usize, byte: u8| match mark {
        b'%' => Some(format!("%{byte:02X}")),
        b'+' => Some(format!("%{byte:02x}")),
        b'~' if at.is_multiple_of(3) => Some(format!("%{byte:02X}")),
        b'2' if byte == b'%' => Some("%25".to_owned()),
        b'~' | b'2' => Some(char::from(byte).to_string()),
        _ => None,
    };
    let parts: Option<Vec<String>> = token.iter().enumerate().map(|(at, byte)| escaped(at, *byte)).collect();
    parts.map(|parts| parts.concat().into_bytes())
}
