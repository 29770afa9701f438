//! The lists: which names mean what.

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

/// Longer than every listed name and prefix: what comes after can't change what a name is.
const LONGEST: usize = 64;

/// Names collected for removal. A request rarely has more than a handful.
pub(super) type Names = SmallVec<[HeaderName; 8]>;

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For this connection only (RFC 9110 §7.6.1), or framing and expectation, which are made anew.
    HopByHop,
    /// Lets a caller change the method or target an upstream sees (P8).
    Override,
    /// Ours to say (P10).
    Identity,
    /// What a proxy says about the client before it (P14).
    Forwarding,
    /// Anything else.
    Plain,
}

/// Classifies a name, which http keeps in lower case; `_` counts as `-`, because WSGI, CGI, PHP and Rack read it so.
pub(super) fn kind(name: &HeaderName) -> Kind {
    let name = name.as_str();
    if !name.contains('_') {
        return kind_of_dashed(name);
    }
    let mut dashed_name = [0; LONGEST];
    let beginning = name.as_bytes().iter().zip(&mut dashed_name);
    let length = beginning.map(|(from, to)| *to = dashed(*from)).count();
    kind_of_dashed(std::str::from_utf8(&dashed_name[..length]).unwrap_or_default())
}

/// Whether a name is another, or becomes it where `_` is read as `-`.
pub(super) fn is_spelling_of(name: &HeaderName, known: &HeaderName) -> bool {
    name.as_str().bytes().map(dashed).eq(known.as_str().bytes())
}

fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
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
        "request-uri" | "base-url" | "destination" => Kind::Override,
        "forwarded" | "true-client-ip" => Kind::Forwarding,
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
        | "forwarded-path"
        | "forwarded-prefix"
        | "replaced-path"
        | "request-uri"
        | "envoy-original-path"
        | "envoy-decorator-operation"
        | "script-name"
        | "path-info"
        | "accel-redirect"
        | "sendfile"
        | "proxy-url"
        | "http-destinationurl"
        | "middleware-subrequest"
        | "middleware-rewrite"
        | "waws-unencoded-url" => Kind::Override,
        "real-ip" | "client-ip" | "cluster-client-ip" => Kind::Forwarding,
        _ if rest.starts_with("leastgate-") => Kind::Identity,
        _ if rest.starts_with("forwarded-") => Kind::Forwarding,
        _ => Kind::Plain,
    }
}

/// The names a Connection field lists. `None` where it is not a list of names.
pub(super) fn connection_names(headers: &HeaderMap) -> Option<Names> {
    let mut names = Names::new();
    for line in headers.get_all(header::CONNECTION) {
        for token in line.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if !token.is_empty() {
                names.push(HeaderName::from_bytes(token).ok()?);
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P8, as the design lists them.
    #[test]
    fn every_override_is_known() {
        let listed = "X-HTTP-Method-Override X-HTTP-Method X-Method-Override X-Override-Method X-Original-Method \
            X-Forwarded-Method X-Original-URL X-Original-URI X-Original-Path X-Rewrite-URL X-Forwarded-Uri \
            X-Forwarded-Path X-Forwarded-Prefix X-Replaced-Path X-Request-URI Request-URI X-Envoy-Original-Path \
            X-Envoy-Decorator-Operation X-Script-Name X-Path-Info X-Accel-Redirect X-Sendfile X-Proxy-URL Base-URL \
            X-HTTP-DestinationURL Destination X-Middleware-Subrequest X-Middleware-Rewrite X-WAWS-Unencoded-URL";
        for name in listed.split_whitespace() {
            assert_eq!(kind(&name.parse().unwrap()), Kind::Override, "{name}");
            assert_eq!(kind(&name.replace('-', "_").parse().unwrap()), Kind::Override, "{name}");
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
            ("x-leastgate", Kind::Plain),
            ("accept", Kind::Plain),
        ];
        for (name, expected) in kinds {
            assert_eq!(kind(&name.parse().unwrap()), expected, "{name}");
        }
    }
}
