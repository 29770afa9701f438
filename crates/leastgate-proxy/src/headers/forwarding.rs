//! The fields by which proxies say who came through them: X-Forwarded-*, Forwarded (RFC 7239) and Via. What an untrusted
//! client says in them is gone before anything is written here (P14).

use std::fmt::Write as _;
use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::request::Outgoing;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names the client, and where it wanted to go, to an upstream that can only see the gateway.
pub(super) fn forwarding(headers: &mut HeaderMap, host: &HeaderValue, out: &Outgoing<'_>) {
    let hops = joined(headers, &FORWARDED_FOR);
    let chain = if hops.is_empty() { out.peer.to_string() } else { format!("{hops}, {}", out.peer) };
    insert_text(headers, FORWARDED_FOR, &chain);
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto(out)));
    }
    if !headers.contains_key(&FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    forwarded(headers, host, out);
}

/// RFC 7239. Behind a trusted proxy that does not speak it we stay silent too: an element of ours alone would name the
/// proxy as the client. What it sends beyond ASCII is no element either, and is not passed on beside or instead of ours.
fn forwarded(headers: &mut HeaderMap, host: &HeaderValue, out: &Outgoing<'_>) {
    let earlier = joined(headers, &header::FORWARDED);
    if !headers.contains_key(&header::FORWARDED) && out.peer_is_trusted {
        return;
    }
    let mut text = earlier;
    if !text.is_empty() {
        text.push_str(", ");
    }
    let _ = match out.peer {
        IpAddr::V4(peer) => write!(text, "for={peer}"),
        IpAddr::V6(peer) => write!(text, "for=\"[{peer}]\""),
    };
    // The policy has judged Host: no byte of it needs quoting inside a quoted string.
    let _ = write!(text, ";host=\"{}\";proto={}", host.to_str().unwrap_or_default(), proto(out));
    insert_text(headers, header::FORWARDED, &text);
}

fn proto(out: &Outgoing<'_>) -> &'static str {
    if out.is_tls { "https" } else { "http" }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut text = String::new();
    for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(line);
    }
    text
}

/// What a message came in by (RFC 9110 §7.6.3).
pub(super) fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 leastgate",
        Version::HTTP_2 => "2.0 leastgate",
        _ => "1.1 leastgate",
    })
}

/// Names and scopes come from a policy whose names are plain ASCII; what is not a field value is left out, never bent.
pub(super) fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}
