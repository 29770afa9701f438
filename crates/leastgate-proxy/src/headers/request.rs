//! The head that goes upstream: what the client said, without what is not its to say, and with what the gateway vouches
//! for. Nothing here touches the method or the target: the bytes that were judged are the bytes that are sent.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use smallvec::SmallVec;

use super::REQUEST_ID;
use super::forwarding::{forwarding, insert_text, via};
use super::table::{self, Kind, Names};
use crate::trace::Trace;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const SUBJECT: HeaderName = HeaderName::from_static("x-leastgate-subject");
const ACCESSOR: HeaderName = HeaderName::from_static("x-leastgate-accessor");
const SCOPES: HeaderName = HeaderName::from_static("x-leastgate-scopes");
const DECISION: HeaderName = HeaderName::from_static("x-leastgate-decision");

/// Longest request id of a client that is kept.
const REQUEST_ID_MAX: usize = 128;

/// Who was let through, as the upstream may believe it.
#[derive(Clone, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) subject: &'a str,
    pub(crate) accessor: String,
    pub(crate) scopes: SmallVec<[&'a str; 8]>,
}

/// How the request's body is framed anew (P17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    Empty,
    /// A body of known length: hyper writes the Content-Length.
    Sized,
    /// A body of unknown length.
    Chunked,
}

/// What the gateway says about a request.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) credential: &'a HeaderName,
    pub(crate) peer: IpAddr,
    pub(crate) peer_is_trusted: bool,
    /// The policy has apis that are chosen by Host: what a proxy says of it must not be another.
    pub(crate) host_is_judged: bool,
    /// Whether it came over TLS.
    pub(crate) is_tls: bool,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) trace: &'a Trace,
    pub(crate) decision: &'a str,
    pub(crate) identity: Option<Identity<'a>>,
    pub(crate) framing: Framing,
}

/// Turns the client's fields into the upstream's.
pub(crate) fn prepare_request(headers: &mut HeaderMap, method: &Method, version: Version, out: &Outgoing<'_>) {
    let host = headers.get(header::HOST).cloned();
    remove_what_is_not_the_clients(headers, out);
    if let Some(host) = &host {
        forwarding(headers, host, out);
    }
    if version == Version::HTTP_2 {
        join_cookie_crumbs(headers);
    }
    headers.append(header::VIA, via(version));
    headers.insert(REQUEST_ID, out.request_id.clone());
    headers.insert(TRACEPARENT, out.trace.header());
    if !out.trace.continued {
        headers.remove(TRACESTATE);
    }
    identity(headers, out);
    framing(headers, method, out.framing);
    // It is here only where another header carries our credential: the upstream's own, and no library may log it.
    if let Some(theirs) = headers.get_mut(header::AUTHORIZATION) {
        theirs.set_sensitive(true);
    }
}

/// HTTP/2 clients may send a cookie in crumbs, which other protocols read as several (RFC 9113 §8.2.3).
fn join_cookie_crumbs(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The client's own name for the request, if it is one that can be passed on and answered with. Our tokens are
/// recognisable anywhere, and one sent as an id must not come back in an answer.
pub(crate) fn client_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(&REQUEST_ID).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let id = line.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:+/=".contains(byte);
    let holds_token = id.windows(4).any(|part| part == b"lgt_" || part == b"lga_");
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && id.iter().all(is_plain) && !holds_token;
    fits.then_some(line)
}

/// Hop-by-hop fields and what Connection names first, so that nothing added later can be named away (P10, P11).
fn remove_what_is_not_the_clients(headers: &mut HeaderMap, out: &Outgoing<'_>) {
    let mut gone: Names = table::connection_names(headers).unwrap_or_default();
    for name in headers.keys() {
        let is_gone = match table::kind(name) {
            Kind::HopByHop | Kind::Override | Kind::Identity => true,
            // A proxy that is trusted says these with `-`: the other spelling came through it from its client.
            Kind::Forwarding => {
                !out.peer_is_trusted || !table::is_plain(name) || (out.host_is_judged && names_a_host(name))
            }
            // Spelled otherwise, where an upstream takes it so, it must not survive its removal either.
            Kind::Plain => table::is_spelling_of(name, out.credential),
        };
        if is_gone {
            gone.push(name.clone());
        }
    }
    for name in &gone {
        headers.remove(name);
    }
}

/// Whether a proxy says in it which host its client asked for.
fn names_a_host(name: &HeaderName) -> bool {
    let words = ["host", "server", "authority", "domain"];
    name == "x-forwarded" || name.as_str().ends_with("-url") || words.iter().any(|word| name.as_str().contains(word))
}

fn identity(headers: &mut HeaderMap, out: &Outgoing<'_>) {
    insert_text(headers, DECISION, out.decision);
    let Some(identity) = &out.identity else { return };
    insert_text(headers, SUBJECT, identity.subject);
    insert_text(headers, ACCESSOR, &identity.accessor);
    if !identity.scopes.is_empty() {
        insert_text(headers, SCOPES, &identity.scopes.join(" "));
    }
}

/// hyper writes the length of a body it knows. It sends a GET's body of unknown length only when told to, and no length
/// at all for an empty POST, which some upstreams answer with 411.
fn framing(headers: &mut HeaderMap, method: &Method, framing: Framing) {
    match framing {
        Framing::Empty if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Framing::Empty | Framing::Sized => {}
        Framing::Chunked => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SpanIds;

    fn prepared(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        prepared_as(fields, trusted, false)
    }

    fn prepared_as(fields: &[(&str, &str)], trusted: bool, host_is_judged: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("orders.internal:8080"));
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let trace = Trace::of(&headers, &mut SpanIds::new());
        let out = Outgoing {
            credential: &header::AUTHORIZATION,
            peer: "192.0.2.7".parse().unwrap(),
            peer_is_trusted: trusted,
            host_is_judged,
            is_tls: false,
            request_id: &HeaderValue::from_static("id-1"),
            trace: &trace,
            decision: "d-1",
            identity: Some(Identity {
                subject: "reader",
                accessor: "abc".into(),
                scopes: SmallVec::from_slice(&["a:read", "b"]),
            }),
            framing: Framing::Empty,
        };
        prepare_request(&mut headers, &Method::GET, Version::HTTP_11, &out);
        headers
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn identity_is_ours_alone() {
        let headers = prepared(
            &[
                ("X-Leastgate-Subject", "admin"),
                ("x_leastgate_subject", "admin"),
                ("X-Leastgate-Anything", "1"),
                ("authorization", "Bearer x"),
                ("Authorization", "Basic y"),
            ],
            false,
        );
        assert_eq!(values(&headers, "x-leastgate-subject"), ["reader"]);
        assert_eq!(values(&headers, "x-leastgate-scopes"), ["a:read b"]);
        assert_eq!(values(&headers, "x-leastgate-decision"), ["d-1"]);
        for gone in ["x_leastgate_subject", "x-leastgate-anything", "authorization"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn hop_by_hop_overrides_and_what_connection_names_are_removed() {
        let headers = prepared(
            &[
                ("connection", "x-mine, via, x-request-id, traceparent"),
                ("x-mine", "1"),
                ("x-request-id", "theirs"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAA"),
                ("expect", "100-continue"),
                ("x-original-url", "/admin"),
                ("x_http_method_override", "DELETE"),
                ("destination", "/x"),
                ("content-length", "5"),
            ],
            false,
        );
        for gone in [
            "connection",
            "x-mine",
            "te",
            "upgrade",
            "http2-settings",
            "expect",
            "x-original-url",
            "x_http_method_override",
            "destination",
            "content-length",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(values(&headers, "x-request-id"), ["id-1"]);
        assert_eq!(values(&headers, "via"), ["1.1 leastgate"]);
        assert!(headers.contains_key("traceparent"));
    }

    #[test]
    fn an_untrusted_peers_forwarding_is_replaced() {
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("X-Forwarded-Proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=1.1.1.1, for=2.2.2.2"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers = prepared(&claims, false);
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&headers, "x-forwarded-host"), ["orders.internal:8080"]);
        assert_eq!(values(&headers, "forwarded"), ["for=192.0.2.7;host=\"orders.internal:8080\";proto=http"]);
        assert!(!headers.contains_key("x-forwarded-port") && !headers.contains_key("x-real-ip"));

        let headers = prepared(&claims, true);
        assert_eq!(values(&headers, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 192.0.2.7"]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
        assert!(values(&headers, "forwarded")[0].starts_with("for=1.1.1.1, for=2.2.2.2, for=192.0.2.7;"));
        assert!(!prepared(&[], true).contains_key("forwarded"));
    }

    #[test]
    fn where_a_host_was_judged_no_proxy_names_another() {
        let told = |claims: &[(&str, &str)], is_judged| {
            let headers = prepared_as(claims, true, is_judged);
            let rest = ["x-host", "x-original-host", "x-forwarded", "x-forwarded-server", "x-forwarded-request-url"]
                .map(|name| values(&headers, name));
            (values(&headers, "x-forwarded-host"), values(&headers, "forwarded"), rest.concat())
        };
        let ours = ["orders.internal:8080"].map(str::to_owned).to_vec();
        let claims = [
            "x-forwarded-host",
            "x-host",
            "x-original-host",
            "x-forwarded",
            "x-forwarded-server",
            "x-forwarded-request-url",
        ];
        let claims = claims.map(|name| (name, "host=admin.test"));
        assert_eq!(told(&claims, true), (ours, vec![], vec![]));
        assert_eq!(told(&claims, false).0, ["host=admin.test"]);
        for (element, is_kept) in [
            ("for=1.1.1.1;host=admin.test", false),
            ("for=1.1.1.1;HOST=\"admin.test\"", false),
            ("for=1.1.1.1;host =admin.test", false),
            ("for=1.1.1.1;xhost=admin.test", false),
            ("for=1.1.1.1;x=\"host=admin.test\"", false),
            ("for=1.1.1.1;by=\"host=admin.test\"", false),
            ("for=1.1.1.1;x=\",host=admin.test,\"", false),
            ("for=1.1.1.1;host=orders.internal:8080;host=admin.test", false),
            ("for=1.1.1.1;host=\"Orders.internal:8080\"", true),
            ("for=1.1.1.1;proto=https", true),
        ] {
            let forwarded = told(&[("forwarded", element)], true).1;
            assert_eq!(forwarded.iter().any(|text| text.contains("1.1.1.1")), is_kept, "{element}");
        }
    }

    #[test]
    fn what_only_looks_like_a_trusted_peers_forwarding_is_removed() {
        let headers = prepared(&[("x_forwarded_for", "1.1.1.1"), ("x_real_ip", "1.1.1.1")], true);
        assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("x_real_ip"));
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.7"]);

        let ours = "for=192.0.2.7;host=\"orders.internal:8080\";proto=http";
        assert!(!prepared(&[("forwarded", "for=\u{e4}")], true).contains_key("forwarded"));
        let headers = prepared(&[("forwarded", "for=\u{e4}"), ("forwarded", "for=1.1.1.1")], true);
        assert_eq!(values(&headers, "forwarded"), [format!("for=1.1.1.1, {ours}")]);
    }

    #[test]
    fn a_credential_of_any_length_is_removed_in_either_spelling() {
        let long = format!("x-{}-key", "a".repeat(80)).parse::<HeaderName>().unwrap();
        let alias = long.as_str().replace('-', "_").parse().unwrap();
        assert!(table::is_spelling_of(&alias, &long) && table::is_spelling_of(&long, &long));
        assert!(!table::is_spelling_of(&"x_api_key".parse().unwrap(), &long));
    }

    #[test]
    fn a_request_id_is_kept_only_if_it_is_harmless() {
        let id = |value: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, value.parse().unwrap())]);
            client_request_id(&headers).is_some()
        };
        assert!(id("4bf92f35-77b3.4da6"));
        assert!(!id("") && !id("a b") && !id("a\"b") && !id(&"a".repeat(129)));
        assert!(!id("xlgt_prod_0123456789"));
    }

    #[test]
    fn cookie_crumbs_are_one_cookie() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookie_crumbs(&mut headers);
        assert_eq!(values(&headers, "cookie"), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn a_body_is_framed_anew() {
        let framed = |method: Method, how| {
            let mut headers = HeaderMap::new();
            framing(&mut headers, &method, how);
            headers
        };
        assert_eq!(values(&framed(Method::POST, Framing::Empty), "content-length"), ["0"]);
        assert!(framed(Method::GET, Framing::Empty).is_empty());
        assert!(framed(Method::POST, Framing::Sized).is_empty());
        assert_eq!(values(&framed(Method::GET, Framing::Chunked), "transfer-encoding"), ["chunked"]);
    }
}
