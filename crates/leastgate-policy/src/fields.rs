//! Field names: which mean what to a proxy, and how upstreams read those that are spelled otherwise.
//!
//! CGI makes a variable of each field, with `_` for each `-` (RFC 3875 §4.1.18); WSGI, PHP and Rack do as CGI does. PHP takes
//! `.` for the same, lighttpd whatever is no letter and no digit. So a name of such bytes is another field's alias
//! somewhere: here they all count as `-`, and a request with such a name is refused, unless its upstream tells them apart.

use http::HeaderName;

/// Longer than every listed name and prefix: what comes after can't change what a name is.
const LONGEST: usize = 64;

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For this connection only (RFC 9110 §7.6.1), or framing and expectation, which are made anew.
    HopByHop,
    /// Lets a caller change the method or target that an upstream sees, or where an upstream itself goes (P8).
    Override,
    /// The gateway's to say (P10).
    Identity,
    /// What a proxy says about the client before it (P14).
    Forwarding,
    /// Anything else.
    Plain,
}

/// Whether each byte is a letter, a digit or `-`: every byte of every name is looked up here.
const PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0_u8);
    while byte < 128 {
        plain[byte as usize] = matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        byte += 1;
    }
    plain
};

/// Whether a name is one to every upstream: of letters, digits and `-`.
#[must_use]
pub fn is_plain(name: &HeaderName) -> bool {
    has_plain_bytes(name.as_str())
}

/// Classifies a name, which http keeps in lower case, in whatever spelling.
#[must_use]
pub fn kind(name: &HeaderName) -> Kind {
    kind_of(name.as_str())
}

fn has_plain_bytes(name: &str) -> bool {
    name.bytes().fold(true, |plain, byte| plain & PLAIN[usize::from(byte)])
}

fn kind_of(name: &str) -> Kind {
    if has_plain_bytes(name) {
        return kind_of_dashed(name);
    }
    let mut dashed_name = [0; LONGEST];
    let beginning = name.as_bytes().iter().zip(&mut dashed_name);
    let length = beginning.map(|(from, to)| *to = dashed(*from)).count();
    kind_of_dashed(std::str::from_utf8(&dashed_name[..length]).unwrap_or_default())
}

/// Whether a name is another, or some upstream takes it for that.
#[must_use]
pub fn is_spelling_of(name: &HeaderName, known: &HeaderName) -> bool {
    let (name, known) = (name.as_str().as_bytes(), known.as_str().as_bytes());
    name.len() == known.len() && name.iter().map(|byte| dashed(*byte)).eq(known.iter().map(|byte| dashed(*byte)))
}

/// Whether a name is another's, and not spelled as that is.
#[must_use]
pub fn is_alias_of(name: &HeaderName, known: &HeaderName) -> bool {
    name != known && is_spelling_of(name, known)
}

/// Whether the gateway itself removes, replaces or writes a field, so that no condition may read it: what a client sent
/// there is not what the upstream gets.
#[must_use]
pub fn is_gateway_field(name: &str) -> bool {
    matches!(name, "host" | "traceparent" | "tracestate" | "via" | "x-request-id") || kind_of(name) != Kind::Plain
}

fn dashed(byte: u8) -> u8 {
    if PLAIN[usize::from(byte)] { byte } else { b'-' }
}

/// Most names of a request are in no list; whether one begins with `x-` spares it the longer one.
fn kind_of_dashed(name: &str) -> Kind {
    match name.strip_prefix("x-") {
        Some(rest) => kind_of_extension(rest),
        None => kind_of_standard(name),
    }
}

fn kind_of_standard(name: &str) -> Kind {
    match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings"
        | "content-length"
        | "expect" => Kind::HopByHop,
        // `SCRIPT_NAME` and `PATH_INFO` are what CGI splits a path into; `HTTP_PROXY` is where many clients look for a proxy.
        "request-uri" | "base-url" | "destination" | "script-name" | "path-info" | "proxy" | "http-method-override" => {
            Kind::Override
        }
        "forwarded" | "true-client-ip" | "client-ip" | "cf-connecting-ip" | "cf-connecting-ipv6"
        | "fastly-client-ip" | "proxy-client-ip" | "wl-proxy-client-ip" | "cf-pseudo-ipv4" | "forwarded-for"
        | "front-end-https" => Kind::Forwarding,
        _ => Kind::Plain,
    }
}

/// What follows `x-`.
fn kind_of_extension(rest: &str) -> Kind {
    match rest {
        "http-method-override"
        | "http-method"
        | "method-override"
        | "override-method"
        | "original-method"
        | "forwarded-method"
        | "original-url"
        | "original-uri"
        | "original-path"
        | "rewrite-url"
        | "forwarded-uri"
        | "forwarded-url"
        | "forwarded-path"
        | "forwarded-prefix"
        | "replaced-path"
        | "request-uri"
        | "envoy-original-path"
        | "envoy-decorator-operation"
        | "script-name"
        | "path-info"
        | "accel-redirect"
        | "accel-mapping"
        | "sendfile"
        | "sendfile-type"
        | "proxy-url"
        | "http-destinationurl"
        | "middleware-subrequest"
        | "middleware-rewrite"
        | "waws-unencoded-url"
        | "ms-original-url"
        | "matched-path"
        | "now-route-matches"
        | "envoy-original-dst-host"
        | "apigateway-event"
        | "apigateway-context" => Kind::Override,
        "real-ip"
        | "client-ip"
        | "cluster-client-ip"
        | "originating-ip"
        | "remote-ip"
        | "remote-addr"
        | "azure-clientip"
        | "azure-socketip"
        | "envoy-external-address"
        | "original-forwarded-for"
        | "host"
        | "original-host"
        | "host-override"
        | "http-host-override"
        | "original-for"
        | "original-proto"
        | "scheme"
        | "url-scheme"
        | "appengine-user-ip"
        | "proxyuser-ip"
        | "nf-client-connection-ip"
        | "forwarded" => Kind::Forwarding,
        _ if rest.starts_with("invoke-") => Kind::Override,
        _ if rest.starts_with("leastgate-") => Kind::Identity,
        _ if rest.starts_with("forwarded-") => Kind::Forwarding,
        _ => Kind::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P8, as the design lists them, and some more.
    #[test]
    fn every_override_is_known() {
        let listed = "X-HTTP-Method-Override X-HTTP-Method X-Method-Override X-Override-Method X-Original-Method \
            X-Forwarded-Method X-Original-URL X-Original-URI X-Original-Path X-Rewrite-URL X-Forwarded-Uri \
            X-Forwarded-Url X-Forwarded-Path X-Forwarded-Prefix X-Replaced-Path X-Request-URI Request-URI \
            X-Envoy-Original-Path X-Envoy-Decorator-Operation X-Script-Name X-Path-Info X-Accel-Redirect X-Sendfile \
            X-Proxy-URL Base-URL X-HTTP-DestinationURL Destination X-Middleware-Subrequest X-Middleware-Rewrite \
            X-WAWS-Unencoded-URL Script-Name Path-Info Proxy X-Accel-Mapping X-Sendfile-Type X-MS-Original-URL \
            X-Matched-Path X-Now-Route-Matches HTTP-Method-Override X-Envoy-Original-Dst-Host X-Apigateway-Event";
        for name in listed.split_whitespace() {
            assert_eq!(kind(&name.parse().unwrap()), Kind::Override, "{name}");
            for other in ["_", "."] {
                assert_eq!(kind(&name.replace('-', other).parse().unwrap()), Kind::Override, "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_classified_in_every_spelling() {
        let kinds = [
            ("X-HTTP-Method-Override", Kind::Override),
            ("x_original_url", Kind::Override),
            ("X-Forwarded-Prefix", Kind::Override),
            ("X_Leastgate_Subject", Kind::Identity),
            ("x-leastgate-anything", Kind::Identity),
            ("X-Forwarded-For", Kind::Forwarding),
            ("x_forwarded_proto", Kind::Forwarding),
            ("Forwarded", Kind::Forwarding),
            ("TE", Kind::HopByHop),
            ("transfer_encoding", Kind::HopByHop),
            (&format!("x_leastgate_{}", "a".repeat(80)), Kind::Identity),
            (&format!("x_forwarded_{}", "a".repeat(80)), Kind::Forwarding),
            (&format!("x-forwarded-{}", "a".repeat(80)), Kind::Forwarding),
            (&format!("x_other_{}", "a".repeat(80)), Kind::Plain),
            ("x-leastgate.subject", Kind::Identity),
            ("x~leastgate!scopes", Kind::Identity),
            ("x-http-method.override", Kind::Override),
            ("x-forwarded.for", Kind::Forwarding),
            ("x-original-host", Kind::Forwarding),
            ("x-forwarded", Kind::Forwarding),
            ("forwarded-for", Kind::Forwarding),
            ("x-invoke-path", Kind::Override),
            ("x-leastgate", Kind::Plain),
            ("accept", Kind::Plain),
        ];
        for (name, expected) in kinds {
            assert_eq!(kind(&name.parse().unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn a_plain_name_has_letters_digits_and_dashes() {
        let plain = |text: &'static str| is_plain(&HeaderName::from_static(text));
        assert!(plain("x-a") && plain("b1") && plain("-"));
        for other in ["x_a", "x.a", "x~a", "x!a", "x#a", "x$a", "x%a", "x&a", "x'a", "x*a", "x+a", "x^a", "x`a", "x|a"]
        {
            assert!(!plain(other), "{other}");
        }
    }

    #[test]
    fn an_alias_is_another_name_for_the_same() {
        let name = |text: &str| text.parse::<HeaderName>().unwrap();
        for (alias, known) in [("x_api_key", "x-api-key"), ("x.api-key", "x-api-key"), ("a_b", "a.b")] {
            assert!(is_alias_of(&name(alias), &name(known)), "{alias}");
        }
        for (other, known) in [("x-api-key", "x-api-key"), ("x-api-key2", "x-api-key"), ("x-api1key", "x-api-key")] {
            assert!(!is_alias_of(&name(other), &name(known)), "{other}");
        }
        assert!(is_gateway_field("via") && is_gateway_field("x-sendfile-type") && !is_gateway_field("x-ticket"));
    }
}
