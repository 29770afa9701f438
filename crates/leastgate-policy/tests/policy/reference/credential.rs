//! §7, tokens: their form, and where one may not stand.

use super::path::split;
use super::readers::percent_decoded;
use super::{GatewayView, RawRequest};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What the text of a well-formed token says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenText {
    pub(crate) admin: bool,
    pub(crate) environment: String,
}

/// `lgt_<env>_<accessor:10>_<secret:43>_<crc:6>` with a checksum that fits.
pub(crate) fn inspect(text: &[u8]) -> Option<TokenText> {
    let text = std::str::from_utf8(text).ok()?;
    let parts: Vec<&str> = text.split('_').collect();
    let [prefix, environment, accessor, secret, crc] = parts.as_slice() else {
        return None;
    };
    let admin = match *prefix {
        "lgt" => false,
        "lga" => true,
        _ => return None,
    };
    let base62 = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| BASE62.contains(&b));
    let named = (1..=16).contains(&environment.len())
        && environment.starts_with(|c: char| c.is_ascii_lowercase())
        && environment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !named || !base62(accessor, 10) || !base62(secret, 43) || !base62(crc, 6) {
        return None;
    }
    let body = &text[..text.len() - 7];
    (checksum(body) == *crc).then(|| TokenText { admin, environment: (*environment).to_owned() })
}

/// Six base62 digits of the CRC32, left-padded.
pub(crate) fn checksum(body: &str) -> String {
    let mut left = crc32(body.as_bytes());
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.push(BASE62[(left % 62) as usize]);
        left /= 62;
    }
    digits.reverse();
    String::from_utf8_lossy(&digits).into_owned()
}

/// CRC32 (IEEE), a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// The text offered as credential in its own place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Nothing,
    Text(Vec<u8>),
}

pub(crate) fn offered(gateway: &GatewayView, request: &RawRequest) -> Offered {
    match request.values(&gateway.credential_header).first() {
        Some(line) => presented(gateway, line),
        None => Offered::Nothing,
    }
}

/// What a line of the credential's header presents: after `Bearer` in Authorization, else all of it.
fn presented(gateway: &GatewayView, line: &[u8]) -> Offered {
    if !gateway.credential_header.eq_ignore_ascii_case("authorization") {
        return Offered::Text(line.to_vec());
    }
    if line.eq_ignore_ascii_case(b"bearer") {
        return Offered::Text(Vec::new());
    }
    match line.split_first_chunk::<7>() {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case(b"bearer ") => Offered::Text(text.to_vec()),
        _ => Offered::Nothing,
    }
}

/// Whether a token stands where none may: two lines, a list, the path, the query, a cookie, any other header, or its
/// own under another scheme.
pub(crate) fn misplaced(gateway: &GatewayView, request: &RawRequest) -> bool {
    let lines = request.values(&gateway.credential_header);
    if lines.len() > 1 {
        return true;
    }
    for line in lines {
        match presented(gateway, line) {
            Offered::Text(text) if text.contains(&b',') => return true,
            Offered::Nothing if holds_token(line) => return true,
            Offered::Text(_) | Offered::Nothing => {}
        }
    }
    let (path, query) = split(&request.target);
    if holds_token(path.as_bytes()) || query.is_some_and(|query| holds_token(query.as_bytes())) {
        return true;
    }
    request
        .headers
        .iter()
        .any(|(name, value)| !name.eq_ignore_ascii_case(&gateway.credential_header) && holds_token(value))
}

/// Whether a well-formed token stands anywhere in the text, behind up to three layers of escapes.
fn holds_token(text: &[u8]) -> bool {
    let mut text = text.to_vec();
    for _ in 0..3 {
        if holds_plain_token(&text) {
            return true;
        }
        text = percent_decoded(&text);
    }
    holds_plain_token(&text)
}

fn holds_plain_token(text: &[u8]) -> bool {
    for start in 0..text.len() {
        if text[start..].starts_with(b"lgt_") || text[start..].starts_with(b"lga_") {
            for end in start + 66..=(start + 82).min(text.len()) {
                if inspect(&text[start..end]).is_some() {
                    return true;
                }
            }
        }
    }
    false
}
