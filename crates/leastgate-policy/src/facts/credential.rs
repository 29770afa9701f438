//! The credential of a request: where it stands, where one must not stand, and the digest that is left of it.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::path::CanonicalPath;
use crate::query;
use crate::token::{self, CodecError, Digests, EnvironmentKey, TokenKind};

/// What the credential's header held. A presented text is always hashed, well-formed or not, so that refusals cost
/// the same.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// None, or one of another scheme.
    Missing,
    /// Something that is not a token.
    Malformed,
    /// A credential of the admin API, which is none here whatever its digest.
    Admin,
    /// A well-formed token of another environment: only its recorded reason differs.
    Foreign(Digests),
    /// A well-formed token.
    Presented(Digests),
}

/// The credential, and whether there is more than one in its own header.
pub(super) fn credential(
    headers: &HeaderMap,
    name: &HeaderName,
    key: &EnvironmentKey,
    environment: &str,
) -> (Credential, bool) {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return (Credential::Missing, false);
    };
    let Some(text) = presented(value, name) else {
        return (Credential::Missing, values.next().is_some());
    };
    let is_doubled = values.next().is_some() || text.contains(&b',');
    let digests = key.digests(text);
    let credential = match token::inspect(text) {
        Err(CodecError::Shape | CodecError::Checksum) => Credential::Malformed,
        Ok(parsed) if parsed.kind == TokenKind::Admin => Credential::Admin,
        Ok(parsed) if parsed.environment != environment => Credential::Foreign(digests),
        Ok(_) => Credential::Presented(digests),
    };
    (credential, is_doubled)
}

/// The presented text: after `Bearer ` in Authorization (RFC 6750 §2.1), the whole value in another header.
fn presented<'a>(value: &'a HeaderValue, name: &HeaderName) -> Option<&'a [u8]> {
    let value = value.as_bytes();
    if name != header::AUTHORIZATION {
        return Some(value);
    }
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest {
        [] => Some(rest),
        [b' ', text @ ..] => Some(text),
        _ => None,
    }
}

/// Whether a token stands where it would leak or be read by somebody else: doubled, in its own header under another
/// scheme, in the query, the path, a cookie or another header.
pub(super) fn misplaced(
    parts: &Parts,
    target: &PathAndQuery,
    path: &CanonicalPath,
    name: &HeaderName,
    is_doubled: bool,
) -> Option<&'static str> {
    if is_doubled {
        return Some("the token's header is there twice, or holds more than one credential: send one token");
    }
    if target.query().is_some_and(|query| holds_token(query.as_bytes())) {
        return Some("a token stands in the query, where it is logged: send it in its own header and replace it");
    }
    if path.segments().any(|segment| token::contains_token(segment.as_bytes())) {
        return Some("a token stands in the path, where it is logged: send it in its own header and replace it");
    }
    let (own, _) = parts.headers.iter().find(|(own, value)| {
        let its_own_place = *own == name && presented(value, name).is_some();
        !its_own_place && holds_token(value.as_bytes())
    })?;
    match own {
        own if own == name => Some("write `Bearer` and one space before the token"),
        _ if name == header::AUTHORIZATION => {
            Some("a token stands in another header than `Authorization: Bearer`, which is its place")
        }
        _ => Some("a token stands in another header than its own"),
    }
}

/// How often escapes are unwrapped in looking for a token: log readers and frameworks decode once, some twice.
const UNWRAPPED: usize = 3;

/// Whether a token stands here, escaped or not: nobody is helped by one that hides behind `%5F`.
fn holds_token(bytes: &[u8]) -> bool {
    if token::contains_token(bytes) {
        return true;
    }
    unwrapped(bytes).is_some_and(|unwrapped| token::contains_token(&unwrapped))
}

/// What is left without its escapes; `None` where it has none. What stands there in the open stays: it has no `%`, and does
/// not begin as what follows one.
pub(crate) fn unwrapped(bytes: &[u8]) -> Option<Vec<u8>> {
    let wrapped = bytes.contains(&b'%').then(|| bytes.to_vec())?;
    Some((0..UNWRAPPED).fold(wrapped, |wrapped, _| query::decode_leniently(&wrapped)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Accessor, HASHED, Pepper, mint};

    #[test]
    fn a_token_is_found_however_often_it_is_escaped() {
        let token = mint(TokenKind::Token, "prod", Accessor::from_random(1), &[2; 32]);
        for escaped in ["%5F", "%5f", "%255F", "%25255f"] {
            assert!(holds_token(format!("a={}", token.expose().replacen('_', escaped, 1)).as_bytes()), "{escaped}");
        }
        assert!(!holds_token(b"a=%5F%25%zz%"));
    }

    #[test]
    fn whoever_misplaces_a_token_learns_where_it_stands() {
        let secret = mint(TokenKind::Token, "prod", Accessor::from_random(1), &[2; 32]);
        let said = |uri: &str, header: &str, value: &str| {
            let request = http::Request::get(uri.replace("TOKEN", secret.expose()));
            let request = request.header(header, value.replace("TOKEN", secret.expose())).body(()).unwrap();
            let parts = request.into_parts().0;
            let target = parts.uri.path_and_query().unwrap();
            let path = CanonicalPath::parse(target).unwrap();
            misplaced(&parts, target, &path, &header::AUTHORIZATION, false)
        };
        assert_eq!(said("/a", "authorization", "Bearer TOKEN"), None);
        for (uri, header, value, words) in [
            ("/a", "authorization", "TOKEN", "`Bearer` and one space"),
            ("/a", "authorization", "Basic TOKEN", "`Bearer` and one space"),
            ("/a", "cookie", "session=TOKEN", "another header than `Authorization: Bearer`"),
            ("/a?access_token=TOKEN", "accept", "*/*", "in the query"),
            ("/a/TOKEN", "accept", "*/*", "in the path"),
        ] {
            assert!(said(uri, header, value).is_some_and(|said| said.contains(words)), "{uri} {header}");
        }
    }

    #[test]
    fn an_admin_credential_is_none_of_ours_even_if_its_digest_were_declared() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod");
        let read = |kind, environment| {
            let secret = mint(kind, environment, Accessor::from_random(1), &[2; 32]);
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, format!("Bearer {}", secret.expose()).parse().unwrap());
            credential(&headers, &header::AUTHORIZATION, &key, "prod").0
        };
        assert!(matches!(read(TokenKind::Token, "prod"), Credential::Presented(_)));
        assert!(matches!(read(TokenKind::Token, "staging"), Credential::Foreign(_)));
        assert!(matches!(read(TokenKind::Admin, "prod"), Credential::Admin));
    }

    /// P31: whatever is wrong with a presented text, it is hashed whole, so that no refusal is quicker than another.
    #[test]
    fn a_presented_text_is_always_hashed() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod");
        let both = key.clone().replacing(&EnvironmentKey::derive(&Pepper::new(vec![2; 32]).unwrap(), "prod"));
        let mint = |kind, environment| mint(kind, environment, Accessor::from_random(1), &[2; 32]).expose().to_owned();
        let (good, foreign) = (mint(TokenKind::Token, "prod"), mint(TokenKind::Token, "staging"));
        let other_sum = good[..good.len() - 1].to_owned() + if good.ends_with('0') { "1" } else { "0" };
        let texts = [
            good.clone(),
            foreign,
            mint(TokenKind::Admin, "prod"),
            other_sum,
            good[..good.len() - 1].to_owned(),
            good.clone() + "x",
            good.replacen("lgt_", "ghp_", 1),
            "x".to_owned(),
            "y".repeat(8_000),
        ];
        for text in texts {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, format!("Bearer {text}").parse().unwrap());
            let before = HASHED.get();
            credential(&headers, &header::AUTHORIZATION, &key, "prod");
            assert_eq!(HASHED.get() - before, text.len(), "{} bytes", text.len());
            let before = HASHED.get();
            credential(&headers, &header::AUTHORIZATION, &both, "prod");
            assert_eq!(HASHED.get() - before, 2 * text.len(), "under both keys, {} bytes", text.len());
        }
    }
}
