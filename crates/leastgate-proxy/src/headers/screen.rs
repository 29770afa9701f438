//! What is refused before anything is decided: framing and hygiene (P11, P16, P21 of the HTTP statements). hyper has
//! already refused what it refuses; this looks at what it lets through.

use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use leastgate_policy::Reason;

use super::table::{self, Kind};

/// Longest Content-Length: 15 digits are a petabyte, and fit every integer an upstream may use.
const LENGTH_DIGITS: usize = 15;

/// What no Connection may name, besides what the table knows by kind: what a decision looked at, and Content-Type, by which
/// an upstream reads a body.
const KEPT: [HeaderName; 11] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ORIGIN,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
];

/// A head that must not be judged, and which rule it broke.
pub(crate) type Refused = (Reason, &'static str);

/// What the screen needs to know besides the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen<'a> {
    /// The header that carries the credential.
    pub(crate) credential: &'a HeaderName,
    /// Headers that a condition of the policy reads.
    pub(crate) conditions: &'a [HeaderName],
    /// Most fields; hyper counts those of HTTP/1.1 itself.
    pub(crate) fields: usize,
    /// Largest field, name and value, in bytes.
    pub(crate) field_bytes: usize,
    /// Largest target and most segments; the policy has caps of its own that these can only lower.
    pub(crate) target_bytes: usize,
    pub(crate) path_segments: usize,
}

/// Refuses a head whose framing is ambiguous, or which tries to make a proxy remove what it must not.
pub(crate) fn screen(parts: &Parts, screen: &Screen<'_>) -> Result<(), Refused> {
    target(parts, screen)?;
    if parts.headers.len() > screen.fields {
        return Err((Reason::HeadTooLarge, "the head has too many fields"));
    }
    field_sizes(&parts.headers, screen.field_bytes)?;
    transfer_encoding(&parts.headers)?;
    content_length(&parts.headers)?;
    connection(&parts.headers, screen)?;
    expect(&parts.headers)
}

/// Whether the client waits for a 100 before it sends its body.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

fn target(parts: &Parts, screen: &Screen<'_>) -> Result<(), Refused> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > screen.target_bytes {
        return Err((Reason::UriTooLong, "the request target is over its limit"));
    }
    let segments = parts.uri.path().bytes().filter(|byte| *byte == b'/').count();
    if segments > screen.path_segments { Err((Reason::UriTooLong, "the path has too many segments")) } else { Ok(()) }
}

fn field_sizes(headers: &HeaderMap, limit: usize) -> Result<(), Refused> {
    let oversized = headers.iter().any(|(name, value)| name.as_str().len() + value.len() > limit);
    if oversized { Err((Reason::HeadTooLarge, "a header field is over its limit")) } else { Ok(()) }
}

/// `gzip, chunked`, `,chunked` and several lines pass hyper; two readers of them can disagree.
fn transfer_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(line), None) if line.as_bytes() == b"chunked" => Ok(()),
        _ => Err((Reason::RequestMalformed, "Transfer-Encoding must be one \"chunked\"")),
    }
}

/// hyper merges equal lines into one and refuses differing ones; it takes any number of digits.
fn content_length(headers: &HeaderMap) -> Result<(), Refused> {
    let refused = Err((Reason::RequestMalformed, "Content-Length must be 1 to 15 digits"));
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(line), None) => {
            let digits = line.as_bytes();
            let fits = (1..=LENGTH_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
            if fits { Ok(()) } else { refused }
        }
        _ => refused,
    }
}

fn connection(headers: &HeaderMap, screen: &Screen<'_>) -> Result<(), Refused> {
    if !headers.contains_key(header::CONNECTION) {
        return Ok(());
    }
    let Some(names) = table::connection_names(headers) else {
        return Err((Reason::RequestMalformed, "Connection is not a list of names"));
    };
    if names.iter().any(|name| is_kept_from_connection(name, screen)) {
        return Err((Reason::RequestMalformed, "Connection names a field it may not remove"));
    }
    Ok(())
}

/// Fields that an upstream or a decision relies on, so that no client may have them removed after they were judged.
fn is_kept_from_connection(name: &HeaderName, screen: &Screen<'_>) -> bool {
    KEPT.iter().chain([screen.credential]).chain(screen.conditions).any(|kept| table::is_spelling_of(name, kept))
        || matches!(table::kind(name), Kind::Identity | Kind::Forwarding | Kind::Override)
}

fn expect(headers: &HeaderMap) -> Result<(), Refused> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let all = headers.get_all(header::EXPECT).iter().all(known);
    if all { Ok(()) } else { Err((Reason::ExpectationUnsupported, "only \"Expect: 100-continue\" is supported")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(fields: &[(&str, &str)]) -> Option<Reason> {
        let mut request = http::Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let (parts, ()) = request.into_parts();
        let credential = HeaderName::from_static("x-api-key");
        let conditions = [HeaderName::from_static("x-change-ticket")];
        let screen = Screen {
            credential: &credential,
            conditions: &conditions,
            fields: 100,
            field_bytes: 1024,
            target_bytes: 64,
            path_segments: 4,
        };
        super::screen(&parts, &screen).err().map(|refused| refused.0)
    }

    #[test]
    fn ordinary_heads_pass() {
        assert_eq!(judge(&[]), None);
        assert_eq!(judge(&[("transfer-encoding", "chunked")]), None);
        assert_eq!(judge(&[("content-length", "0")]), None);
        assert_eq!(judge(&[("connection", "keep-alive, Upgrade, , close, x-mine")]), None);
        assert_eq!(judge(&[("expect", "100-Continue")]), None);
    }

    #[test]
    fn ambiguous_framing_is_malformed() {
        for value in
            ["gzip, chunked", ",chunked", "chunked,", "Chunked", "identity", "", "chunked, chunked", "\u{b}chunked"]
        {
            let Ok(_) = value.parse::<http::HeaderValue>() else { continue };
            assert_eq!(judge(&[("transfer-encoding", value)]), Some(Reason::RequestMalformed), "{value:?}");
        }
        assert!(judge(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).is_some());
        for value in ["", "+5", "-1", "0x10", "1 ", "5, 5", "1000000000000000", "٣"] {
            let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) else { continue };
            assert!(content_length(&HeaderMap::from_iter([(header::CONTENT_LENGTH, value)])).is_err());
        }
    }

    #[test]
    fn connection_may_not_take_away_what_an_upstream_relies_on() {
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "content_type",
            "Transfer-Encoding",
            "AUTHORIZATION",
            "x-api-key",
            "X_Api_Key",
            "Cookie",
            "X-Forwarded-For",
            "x_forwarded_proto",
            "Forwarded",
            "X-Leastgate-Subject",
            "x_leastgate_scopes",
            "X-Real-IP",
            "X-Change-Ticket",
            "not a token",
        ] {
            assert_eq!(judge(&[("connection", name)]), Some(Reason::RequestMalformed), "{name}");
            assert!(judge(&[("connection", "close"), ("connection", &format!("keep-alive , {name}"))]).is_some());
        }
        let long = format!("x_leastgate_{}", "a".repeat(80));
        assert_eq!(judge(&[("connection", &long)]), Some(Reason::RequestMalformed));
    }

    #[test]
    fn other_expectations_and_fat_fields_have_their_own_reasons() {
        assert_eq!(judge(&[("expect", "y 100-continue")]), Some(Reason::ExpectationUnsupported));
        assert_eq!(judge(&[("expect", "100-continue"), ("expect", "later")]), Some(Reason::ExpectationUnsupported));
        assert_eq!(judge(&[("x-big", &"a".repeat(1024))]), Some(Reason::HeadTooLarge));
    }
}
