//! The WebSocket handshake (RFC 6455 §4): the fields of an upgrade, which go upstream for an admitted one only, and the one
//! answer that proves the upstream understood it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What every server appends to a client's key (RFC 6455 §1.3). SHA-1 keeps no secret here: it shows that the other side
/// speaks the protocol.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// A client's handshake, as far as an answer is checked against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Reads the key. `None`: there is not exactly one of 16 bytes, and nothing could be proven.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let key = line.to_str().ok()?;
        let is_key = BASE64.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
        is_key.then(|| Self {
            accept: BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes())),
        })
    }

    /// Whether the head of a 101 is the answer to it (§4.1).
    pub(crate) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        let mut upgrades = tokens(headers, &header::UPGRADE);
        let is_websocket = upgrades.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"));
        let mut accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        is_websocket
            && upgrades.next().is_none()
            && tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
            && accepts.next().is_some_and(|accept| accept == self.accept.as_str())
            && accepts.next().is_none()
    }
}

/// Whether a head speaks of a WebSocket at all.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    tokens(headers, &header::UPGRADE).any(|token| token.eq_ignore_ascii_case(b"websocket"))
}

/// Says the two fields that hop-by-hop processing has taken away: in a request that was admitted as a handshake, and in
/// the answer that was found to be one.
pub(crate) fn name_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    let tokens = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    tokens.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::map;

    /// The example of RFC 6455 §1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    #[test]
    fn a_key_is_16_bytes_and_there_is_one() {
        assert_eq!(Handshake::of(&map(&[("sec-websocket-key", KEY)])), Some(Handshake { accept: ACCEPT.into() }));
        for key in ["", "AAAA", "not base64 at all!!!!!==", "dGhlIHNhbXBsZSBub25jZQ"] {
            assert_eq!(Handshake::of(&map(&[("sec-websocket-key", key)])), None, "{key}");
        }
        assert_eq!(Handshake::of(&map(&[("sec-websocket-key", KEY), ("sec-websocket-key", KEY)])), None);
        assert_eq!(Handshake::of(&map(&[])), None);
    }

    #[test]
    fn only_the_right_answer_is_one() {
        let handshake = Handshake { accept: ACCEPT.into() };
        let right = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", ACCEPT)];
        assert!(handshake.is_answered_by(&map(&right)));
        for wrong in [
            ("upgrade", "h2c"),
            ("upgrade", "websocket, h2c"),
            ("connection", "keep-alive"),
            ("sec-websocket-accept", KEY),
            ("sec-websocket-accept", ""),
        ] {
            let fields = right.map(|field| if field.0 == wrong.0 { wrong } else { field });
            assert!(!handshake.is_answered_by(&map(&fields)), "{wrong:?}");
        }
        for missing in 0..3 {
            let mut fields = right.to_vec();
            fields.remove(missing);
            assert!(!handshake.is_answered_by(&map(&fields)), "without {:?}", right[missing]);
        }
        assert!(!handshake.is_answered_by(&map(&[&right[..], &right[2..]].concat())), "two answers");
    }
}
