//! Tokens that stand anywhere in a head, by their form alone: where nobody looks for the caller's, a bait is noticed all the same.
//!
//! Each of them is hashed and looked up as the one in its own place is, whether it is a bait or not, and nothing of it
//! reaches the answer: a refusal costs the same and says the same.

use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use crate::case::Bait;
use crate::facts::unwrapped;
use crate::snapshot::PolicySnapshot;
use crate::token::{Digests, EnvironmentKey, TokenKind, tokens_in};

/// Most tokens of one head that are looked up, in their order, repeated or not: fields first, then the target. Whoever shows more hides no
/// more than an alarm, and gets the same answer.
pub const MOST: usize = 16;

/// The baits in a head, judged or not.
#[must_use]
pub fn baits(parts: &Parts, snapshot: &PolicySnapshot, key: &EnvironmentKey) -> Vec<Bait> {
    known(&digests(parts, key), snapshot)
}

/// The baits in bytes that never became a head, each piece by itself.
#[must_use]
pub fn baits_in(pieces: &[&[u8]], snapshot: &PolicySnapshot, key: &EnvironmentKey) -> Vec<Bait> {
    let mut found = Found::new(key);
    pieces.iter().for_each(|piece| found.look_through(piece));
    known(&found.digests, snapshot)
}

/// The digests of the tokens in a head, each once.
pub(crate) fn digests(parts: &Parts, key: &EnvironmentKey) -> Vec<Digests> {
    let mut found = Found::new(key);
    for (name, value) in &parts.headers {
        found.look_through(value.as_bytes());
        if is_credential(name)
            && let Some(decoded) = basic(value.as_bytes()).map(decoded)
        {
            found.look_through(&decoded);
        }
    }
    if let Some(authority) = parts.uri.authority() {
        found.look_through(authority.as_str().as_bytes());
    }
    if let Some(target) = parts.uri.path_and_query() {
        found.look_through(target.as_str().as_bytes());
    }
    found.digests
}

/// Whether a password is sent along, in which a token may hide: only there is it not in sight.
pub(crate) fn has_basic(headers: &HeaderMap) -> bool {
    let fields = |name| headers.get_all(name).iter();
    let mut credentials = fields(header::AUTHORIZATION).chain(fields(header::PROXY_AUTHORIZATION));
    credentials.any(|value| basic(value.as_bytes()).is_some())
}

struct Found<'a> {
    key: &'a EnvironmentKey,
    digests: Vec<Digests>,
    left: usize,
}

impl<'a> Found<'a> {
    fn new(key: &'a EnvironmentKey) -> Self {
        Self { key, digests: Vec::new(), left: MOST }
    }

    fn look_through(&mut self, bytes: &[u8]) {
        match unwrapped(bytes) {
            Some(unwrapped) => self.take(&unwrapped),
            None => self.take(bytes),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for (_, text) in tokens_in(bytes).filter(|(kind, _)| *kind == TokenKind::Token).take(self.left) {
            self.left -= 1;
            let digests = self.key.digests(text);
            if !self.digests.contains(&digests) {
                self.digests.push(digests);
            }
        }
    }
}

fn known(digests: &[Digests], snapshot: &PolicySnapshot) -> Vec<Bait> {
    digests.iter().filter_map(|digests| snapshot.tokens().bait(digests)).collect()
}

fn is_credential(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION || name == header::PROXY_AUTHORIZATION
}

/// What follows `Basic` (RFC 7617 §2).
fn basic(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(rest)
}

/// Base64 of either alphabet, as far as it is some.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0_u32, 0);
    for digit in text.trim_ascii().iter().map_while(|byte| sextet(*byte)) {
        (bits, held) = (bits << 6 | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_le_bytes()[0]);
        }
    }
    bytes
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Accessor, HASHED, Pepper, mint};

    fn key() -> EnvironmentKey {
        EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod")
    }

    fn token(number: u64) -> String {
        mint(TokenKind::Token, "prod", Accessor::from_random(number), &[2; 32]).expose().to_owned()
    }

    fn shown(uri: &str, fields: &[(&str, String)]) -> Vec<Digests> {
        let request =
            fields.iter().fold(http::Request::get(uri), |request, (name, value)| request.header(*name, value));
        digests(&request.body(()).unwrap().into_parts().0, &key())
    }

    #[test]
    fn a_token_is_found_wherever_it_stands_and_however_it_is_wrapped() {
        let (one, expected) = (token(1), vec![key().digests(token(1).as_bytes())]);
        for uri in [format!("/a?t={one}"), format!("/{one}/x"), format!("/a?{}", one.replace('_', "%255f"))] {
            assert_eq!(shown(&uri, &[]), expected, "{uri}");
        }
        for (name, value) in [
            ("cookie", format!("a=b; s={one}")),
            ("authorization", format!("Bearer {one}, Bearer x")),
            ("authorization", format!("Bearer  {one}x")),
            ("sec-websocket-protocol", format!("bearer, {one}")),
            ("referer", format!("https://a.test/?t={one}#x")),
        ] {
            assert_eq!(shown("/a", &[(name, value.clone())]), expected, "{name}: {value}");
        }
        assert_eq!(shown(&format!("/?{one}"), &[("cookie", one.clone()), ("x-a", one.clone())]), expected, "once");
        assert!(shown("/a", &[("cookie", one[..one.len() - 1].to_owned())]).is_empty());
        let admin = mint(TokenKind::Admin, "prod", Accessor::from_random(1), &[2; 32]);
        assert!(shown("/a", &[("cookie", admin.expose().to_owned())]).is_empty());
    }

    #[test]
    fn a_password_is_looked_into() {
        // RFC 7617 §2, and one in each alphabet.
        assert_eq!(decoded(b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), b"Aladdin:open sesame");
        assert_eq!((decoded(b"+/-_"), decoded(b"!"), decoded(b"")), (vec![0xFB, 0xFF, 0xBF], vec![], vec![]));
        let headers = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert!(has_basic(&headers("BASIC QWxh")) && !has_basic(&headers("Basics x")) && !has_basic(&headers("Bas")));
    }

    #[test]
    fn what_is_looked_up_is_bounded_and_hashed_whatever_it_is() {
        let tokens: Vec<String> = (0..1_000).map(token).collect();
        let before = HASHED.get();
        assert_eq!(shown("/a", &[("cookie", tokens.join("; "))]).len(), MOST);
        assert_eq!(HASHED.get() - before, MOST * tokens[0].len());
        let before = HASHED.get();
        assert_eq!(shown("/a", &[("cookie", tokens[0].repeat(99)), ("cookie", tokens[1].clone())]).len(), 1);
        assert_eq!(HASHED.get() - before, MOST * tokens[0].len(), "a repetition is one of them");
    }
}
