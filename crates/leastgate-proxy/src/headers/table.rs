//! The lists: which names mean what.

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

/// Longest name that can be in a list; longer ones need no look.
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
    let Some(buffer) = dashed(name) else { return Kind::Plain };
    kind_of_dashed(std::str::from_utf8(&buffer[..name.len()]).unwrap_or_default())
}

/// The name with `_` as `-`, unless it is too long to be in any list.
pub(super) fn dashed(name: &str) -> Option<[u8; LONGEST]> {
    let mut buffer = [0; LONGEST];
    let target = buffer.get_mut(..name.len())?;
    for (to, from) in target.iter_mut().zip(name.bytes()) {
        *to = if from == b'_' { b'-' } else { from.to_ascii_lowercase() };
    }
    Some(buffer)
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
            ("x-leastgate", Kind::Plain),
            ("accept", Kind::Plain),
        ];
        for (name, expected) in kinds {
            assert_eq!(kind(&name.parse().unwrap()), expected, "{name}");
        }
    }
}
