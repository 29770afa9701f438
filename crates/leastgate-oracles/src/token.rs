//! The text of tokens: two codecs agree on it, a typo is noticed, and a token is found wherever it does not belong.

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use leastgate_policy::token::{inspect, is_environment_name, mint};
use leastgate_policy::{Accessor, Decision, Reason, TokenKind};

use crate::fields::{fields, with_tokens};
use crate::reference::credential::checksum;
use crate::world::{BASE62, WORLD, request};

/// The first text is offered as a token; of the second one is made; the others are noise with a token in it.
pub(crate) fn body(bytes: &[u8]) {
    let mut texts = fields(bytes);
    check_offered(&with_tokens(texts.next().unwrap_or_default()));
    check_minted(texts.next().unwrap_or_default());
    for place in Place::ALL {
        check_found(place, texts.next().unwrap_or_default());
    }
}

/// Whatever is accepted is what minting writes.
fn check_offered(text: &[u8]) {
    let Ok(parsed) = inspect(text) else { return };
    assert!(is_environment_name(parsed.environment));
    check_sum(std::str::from_utf8(text).unwrap());
    // 43 digits can say a little more than 256 bits; such a text has a checksum, and no table holds it.
    let Some(secret) = number(secret_of(text)) else { return };
    let minted = mint(parsed.kind, parsed.environment, parsed.accessor, &secret);
    assert_eq!(minted.expose().as_bytes(), text);
}

fn check_sum(text: &str) {
    let (body, sum) = text.rsplit_once('_').unwrap();
    assert_eq!(sum, checksum(body), "{text}");
}

/// The digits of a token's secret.
fn secret_of(text: &[u8]) -> &[u8] {
    &text[text.len() - 50..text.len() - 7]
}

/// The 256 bits that base62 digits say.
fn number(digits: &[u8]) -> Option<[u8; 32]> {
    let mut number = [0_u8; 32];
    for digit in digits {
        let mut carry = u32::try_from(BASE62.iter().position(|own| own == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = u8::try_from(value & 0xFF).ok()?;
            carry = value >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(number)
}

fn check_minted(seed: &[u8]) {
    let byte = |at: usize| seed.get(at % seed.len().max(1)).copied().unwrap_or_default();
    let kind = if byte(0) & 1 == 0 { TokenKind::Token } else { TokenKind::Admin };
    let environment: String = (0..=byte(1) % 16).map(|at| char::from(b'a' + byte(usize::from(at)) % 26)).collect();
    let accessor = Accessor::from_random(u64::from_le_bytes(std::array::from_fn(|at| byte(2 + at))));
    let secret = std::array::from_fn(|at| byte(at * 7 + 3));
    let minted = mint(kind, &environment, accessor, &secret);
    let text = minted.expose();
    check_sum(text);
    assert_eq!(number(secret_of(text.as_bytes())), Some(secret), "{text} is another secret");
    assert!(text.starts_with(&format!("{}{environment}_{accessor}_", kind.prefix())), "{text}");
    let parsed = inspect(text.as_bytes()).unwrap();
    assert_eq!((parsed.kind, parsed.environment, parsed.accessor), (kind, environment.as_str(), accessor));
    let at = usize::from(byte(4)) % text.len();
    let mut typo = text.as_bytes().to_vec();
    typo[at] = byte(5);
    assert_eq!(inspect(&typo).is_ok(), typo == text.as_bytes(), "a typo at {at} of {text} is not noticed");
    let mut swapped = text.as_bytes().to_vec();
    swapped.swap(at, (at + 1) % text.len());
    assert_eq!(inspect(&swapped).is_ok(), swapped == text.as_bytes(), "two letters changed places in {text}");
    for len in 0..text.len() {
        assert!(inspect(&text.as_bytes()[..len]).is_err() && inspect(&text.as_bytes()[len + 1..]).is_err());
    }
}

/// Where a token does not belong.
#[derive(Clone, Copy, Debug)]
enum Place {
    Query,
    Header,
    Cookie,
    OtherScheme,
    Path,
}

impl Place {
    const ALL: [Self; 5] = [Self::Query, Self::Header, Self::Cookie, Self::OtherScheme, Self::Path];
}

/// If there is a token in the text, and the text can stand in the place, the request is refused for it.
fn check_found(place: Place, noise: &[u8]) {
    let text = with_tokens(noise);
    let has_token = text != noise;
    let target = match place {
        Place::Query => [b"/healthz?", text.as_slice()].concat(),
        // Escapes are taken off a path once, as readers do.
        Place::Path if !noise.contains(&b'%') => [b"/public/", text.as_slice()].concat(),
        _ => b"/healthz".to_vec(),
    };
    let Ok(target) = PathAndQuery::try_from(target.as_slice()) else { return };
    let mut parts = request("GET", &target, None);
    let field = match place {
        Place::Query if target.as_str().len() < text.len() => return, // a fragment, which goes no further
        Place::Query | Place::Path => None,
        Place::Header => Some(("x-note", text.clone())),
        Place::Cookie => Some(("cookie", [b"a=b; session=", text.as_slice()].concat())),
        Place::OtherScheme => Some(("authorization", [b"Basic ", text.as_slice()].concat())),
    };
    if let Some((name, value)) = field {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return };
        parts.headers.insert(HeaderName::from_static(name), value);
    }
    let Ok(facts) = WORLD.parse(&parts) else { return };
    let is_misplaced = match WORLD.decide(&facts) {
        Decision::Deny(denial) => denial.reason == Reason::CredentialMisplaced,
        Decision::Allow(_) | Decision::Answer(_) => false,
    };
    let stands = !matches!(place, Place::Path) || parts.uri.path().len() > text.len();
    assert!(is_misplaced || !(has_token && stands), "a token in {place:?} goes by in {}", text.escape_ascii());
}
