//! §3, the canonical path, one sentence after the other.

use unicode_normalization::UnicodeNormalization;

/// Decoded segments and whether the path ends in `/`; `/` itself is no segment and no final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathView {
    pub(crate) segments: Vec<String>,
    pub(crate) slash: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathFault {
    TooLong,
    Ambiguous,
}

/// The path and the query of a target in origin-form.
pub(crate) fn split(target: &str) -> (&str, Option<&str>) {
    match target.find('?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

pub(crate) fn canonical(path: &str) -> Result<PathView, PathFault> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(PathFault::Ambiguous);
    };
    if rest.is_empty() {
        return Ok(PathView { segments: Vec::new(), slash: false });
    }
    let mut raw: Vec<&str> = rest.split('/').collect();
    let slash = raw.last() == Some(&"");
    if slash {
        raw.pop();
    }
    if raw.len() > 128 {
        return Err(PathFault::TooLong);
    }
    let mut segments = Vec::new();
    for part in raw {
        segments.push(segment(part).ok_or(PathFault::Ambiguous)?);
    }
    Ok(PathView { segments, slash })
}

/// One segment, decoded, or nothing if §3 refuses it.
pub(crate) fn segment(raw: &str) -> Option<String> {
    for byte in raw.bytes() {
        if !byte.is_ascii_alphanumeric() && !b"-._~!$&'()*+,=:@%".contains(&byte) {
            return None;
        }
    }
    let decoded = String::from_utf8(decode(raw.as_bytes())?).ok()?;
    if refused_text(&decoded) {
        return None;
    }
    if !decoded.is_ascii() {
        let folded: String = decoded.nfkc().collect();
        if refused_text(&folded) {
            return None;
        }
    }
    Some(decoded)
}

/// Percent-decoding, once; nothing for a bad escape.
pub(crate) fn decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'%' {
            let high = char::from(*raw.get(at + 1)?).to_digit(16)?;
            let low = char::from(*raw.get(at + 2)?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
            at += 3;
        } else {
            out.push(raw[at]);
            at += 1;
        }
    }
    Some(out)
}

/// Decoded text that a segment may not be.
fn refused_text(text: &str) -> bool {
    let separators = ['/', '\\', ';', '?', '#', '%'];
    text.is_empty()
        || text.chars().any(|c| (c as u32) < 0x20 || c as u32 == 0x7f || separators.contains(&c))
        || text.chars().all(|c| c == '.' || c == ' ')
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.ends_with('.')
}

/// The text all case and compatibility variants of a segment share.
pub(crate) fn loosen(segment: &str) -> String {
    let mut text = segment.to_owned();
    loop {
        let composed: String = text.nfkc().collect();
        let upper: String = composed.chars().flat_map(char::to_uppercase).collect();
        let lower: String = upper.chars().flat_map(char::to_lowercase).collect();
        let next: String = lower.nfkc().collect();
        if next == text {
            return next;
        }
        text = next;
    }
}
