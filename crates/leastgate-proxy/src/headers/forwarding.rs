//! The fields by which proxies say who came through them: X-Forwarded-*, Forwarded (RFC 7239) and Via. What an untrusted
//! client says in them is gone before anything is written here (P14).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use leastgate_policy::source::forwarded_for;
use smallvec::SmallVec;

use super::request::Outgoing;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names the client, and where it wanted to go, to an upstream that can only see the gateway.
pub(super) fn forwarding(headers: &mut HeaderMap, host: &HeaderValue, out: &Outgoing<'_>) {
    forwarded(headers, host, out);
    insert_text(headers, FORWARDED_FOR, &chain(headers, out.peer));
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto(out)));
    }
    if !headers.contains_key(&FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
}

/// The addresses that the client was looked for among, and the peer. They are written as they were read, and what could
/// not be read ends them: with an entry taken out of their middle an upstream would find another client.
fn chain(headers: &HeaderMap, peer: IpAddr) -> String {
    let mut hops: SmallVec<[IpAddr; 8]> = forwarded_for(headers).collect();
    hops.reverse();
    let mut text = String::new();
    for hop in hops {
        let _ = write!(text, "{hop}, ");
    }
    let _ = write!(text, "{peer}");
    text
}

/// RFC 7239. Behind a trusted proxy that does not speak it we stay silent too: an element of ours alone would name the
/// proxy as the client.
fn forwarded(headers: &mut HeaderMap, host: &HeaderValue, out: &Outgoing<'_>) {
    let mut text = elements(headers, out.host_is_judged.then_some(host)).join(", ");
    if text.is_empty() && out.peer_is_trusted {
        headers.remove(header::FORWARDED);
        return;
    }
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

/// The elements of a trusted proxy, from the right as far as they can be read. The client is judged by `X-Forwarded-For`:
/// beside one, an element is passed on only where both name the same hop. A proxy that writes only the other field passes
/// on what its client says in this one. Where a host was judged, none is passed on that names another.
fn elements<'a>(headers: &'a HeaderMap, judged: Option<&HeaderValue>) -> Vec<&'a str> {
    let is_judged = headers.contains_key(&FORWARDED_FOR);
    let mut hops = forwarded_for(headers);
    let lines = headers.get_all(header::FORWARDED).iter().rev();
    let elements = lines.map_while(|line| split(line.as_bytes(), b',')).flat_map(|line| line.into_iter().rev());
    let is_as_judged = |text: &&str| {
        let Some(element) = Element::read(text) else { return false };
        let is_same_hop = !is_judged || hops.next().is_some_and(|hop| element.node.and_then(node) == Some(hop));
        is_same_hop && judged.is_none_or(|host| element.names_no_other_host(host))
    };
    let mut kept: Vec<&str> =
        elements.map_while(|element| visible(element.trim_ascii())).take_while(is_as_judged).collect();
    kept.reverse();
    kept
}

fn visible(element: &[u8]) -> Option<&str> {
    let is_visible = !element.is_empty() && element.iter().all(|byte| matches!(byte, b' '..=b'~'));
    std::str::from_utf8(element).ok().filter(|_| is_visible)
}

/// What an element says, by the parameters of §5.
#[derive(Default)]
struct Element<'a> {
    node: Option<&'a str>,
    host: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// Reads an element of which every reader sees the same: some look for `host=` and `for=` wherever they stand, in another
    /// parameter's name or in quotes. `None`: it is not one.
    fn read(element: &'a str) -> Option<Self> {
        let (mut read, mut by, mut proto) = (Self::default(), None, None);
        for pair in element.split(';') {
            let (name, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
            let place = match name.to_ascii_lowercase().as_str() {
                "for" => &mut read.node,
                "host" => &mut read.host,
                "by" => &mut by,
                "proto" => &mut proto,
                _ => return None,
            };
            if !value.bytes().all(is_plain) || place.replace(value).is_some() {
                return None;
            }
        }
        Some(read)
    }

    fn names_no_other_host(&self, judged: &HeaderValue) -> bool {
        self.host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(judged.as_bytes()))
    }
}

/// The address that an element says the request came from: `for=192.0.2.60`, `for="[2001:db8::17]:4711"` (§6).
fn node(node: &str) -> Option<IpAddr> {
    let address = match node.strip_prefix('[').and_then(|node| node.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => node.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    };
    let address = address.or_else(|| node.parse::<SocketAddr>().ok().map(|node| node.ip()))?;
    Some(address.to_canonical())
}

/// The parts between separators that stand outside of quoted strings (RFC 9110 §5.6.4). `None`: a quote is never closed,
/// and where it was meant to end is anybody's guess.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|&byte| {
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && is_quoted && !is_escaped;
        byte == separator && !is_quoted
    });
    let parts = parts.collect();
    (!is_quoted).then_some(parts)
}

fn proto(out: &Outgoing<'_>) -> &'static str {
    if out.is_tls { "https" } else { "http" }
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

#[cfg(test)]
mod tests {
    use leastgate_policy::Source;

    use super::*;
    use crate::headers::Framing;
    use crate::trace::{SpanIds, Trace};

    const PROXY: &str = "10.0.0.1";

    /// A head of these `X-Forwarded-For` and these `Forwarded` lines.
    fn map(chain: &[impl AsRef<[u8]>], elements: &[impl AsRef<[u8]>]) -> HeaderMap {
        let line = |line: &[u8]| HeaderValue::from_bytes(line).unwrap();
        let chain = chain.iter().map(|text| (FORWARDED_FOR, line(text.as_ref())));
        let elements = elements.iter().map(|text| (header::FORWARDED, line(text.as_ref())));
        let mut headers = HeaderMap::new();
        for (name, line) in chain.chain(elements) {
            headers.append(name, line);
        }
        headers
    }

    /// What an upstream is told behind a trusted proxy that says this, in both fields.
    fn told(headers: &HeaderMap) -> (String, Option<String>) {
        let mut headers = headers.clone();
        let out = Outgoing {
            credential: &header::AUTHORIZATION,
            peer: PROXY.parse().unwrap(),
            peer_is_trusted: true,
            host_is_judged: false,
            is_tls: false,
            request_id: &HeaderValue::from_static("id-1"),
            trace: &Trace::of(&headers, &mut SpanIds::new()),
            decision: "d-1",
            identity: None,
            framing: Framing::Empty,
        };
        forwarding(&mut headers, &HeaderValue::from_static("a.test"), &out);
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        (text(FORWARDED_FOR).unwrap(), text(header::FORWARDED))
    }

    fn judged(headers: &HeaderMap) -> Option<IpAddr> {
        let source = Source { peer: PROXY.parse().unwrap(), port: 1 };
        source.client(headers, &["10.0.0.0/8".parse().unwrap()])
    }

    /// Whom an upstream takes for the client that trusts the same proxies; from the right.
    fn found<'a>(mut entries: impl Iterator<Item = &'a str>) -> Option<IpAddr> {
        let address = |entry: &str| entry.parse::<IpAddr>().unwrap();
        entries.find(|entry| !entry.starts_with("10.")).map(address)
    }

    fn node(element: &str) -> &str {
        let value = element.split_once('=').unwrap().1.split(';').next().unwrap().trim_matches('"');
        value.split_once(']').map_or(value, |(address, _)| &address[1..])
    }

    /// Entries of a list, joined into lines here and there: a small generator, so that a failure comes again.
    fn random_lines(seed: u64, entries: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below
        };
        let line = |draw: &mut dyn FnMut(usize) -> usize| {
            let parts: Vec<&[u8]> = (0..=draw(4)).map(|_| entries[draw(entries.len())]).collect();
            parts.join(if draw(2) == 0 { &b","[..] } else { b", " })
        };
        (0..draw(4)).map(|_| line(&mut draw)).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn an_entry_that_is_none_takes_along_what_stands_left_of_it_and_nothing_else() {
        for (lines, chain) in [
            (&[&b"10.9.9.9"[..], b"\xff, 203.0.113.9"][..], "203.0.113.9, 10.0.0.1"),
            (&[b"\xff, 203.0.113.9", b"10.9.9.9"], "203.0.113.9, 10.9.9.9, 10.0.0.1"),
            (&[b"6.6.6.6, unknown, 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
            (&[b"6.6.6.6, 203.0.113.9", b"\xff"], "10.0.0.1"),
            (&[b"6.6.6.6,"], "10.0.0.1"),
            (&[b"6.6.6.6 ,203.0.113.9", b"::ffff:10.2.2.2"], "6.6.6.6, 203.0.113.9, 10.2.2.2, 10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(told(&map(lines, &NONE)).0, chain, "{lines:?}");
        }
    }

    #[test]
    fn an_element_stays_where_it_names_who_was_judged() {
        let ours = ", for=10.0.0.1;host=\"a.test\";proto=http";
        for (chain, elements, kept) in [
            (
                "6.6.6.6, 203.0.113.9",
                &[&b"for=6.6.6.6"[..], b"FOR=203.0.113.9;by=b"][..],
                "for=6.6.6.6, FOR=203.0.113.9;by=b",
            ),
            ("2001:db8::7", &[b"for=\"[2001:DB8::7]:471\";host=\"b:1\""], "for=\"[2001:DB8::7]:471\";host=\"b:1\""),
            ("203.0.113.9", &[b"for=10.9.9.9", b"\xff, for=\"203.0.113.9:80\""], "for=\"203.0.113.9:80\""),
        ] {
            assert_eq!(told(&map(&[chain], elements)).1, Some(kept.to_owned() + ours));
        }
        let alone = told(&map(&NONE, &[b"for=6.6.6.6, for=\xe4, for=_hidden"])).1;
        assert_eq!(alone, Some(format!("for=_hidden{ours}")), "a proxy that speaks nothing else is believed");
    }

    #[test]
    fn where_no_element_names_who_was_judged_there_is_none() {
        for (chain, elements) in [
            ("203.0.113.9", &b"for=6.6.6.6"[..]),
            ("203.0.113.9", b"for=203.0.113.9;for=6.6.6.6"),
            ("203.0.113.9", b"xfor=6.6.6.6;for=203.0.113.9"),
            ("203.0.113.9", b"for=203.0.113.9;by=\"host=a,b\""),
            ("203.0.113.9", b"for=\", for=203.0.113.9"),
            ("203.0.113.9", b"for=203.0.113.9, for=unknown"),
            ("203.0.113.9", b""),
            ("6.6.6.6, unknown", b"for=6.6.6.6"),
        ] {
            let forwarded = told(&map(&[chain], &[elements])).1;
            assert_eq!(forwarded, None, "one of ours alone would name the proxy: {}", elements.escape_ascii());
        }
    }

    #[test]
    fn whoever_was_judged_is_whom_the_upstream_finds() {
        const ENTRIES: [&[u8]; 14] = [
            b"203.0.113.9",
            b"6.6.6.6",
            b"10.9.9.9",
            b"10.0.0.2",
            b"10.0.0.3",
            b" 10.0.0.4\t",
            b"::ffff:10.1.1.1",
            b"::ffff:198.51.100.4",
            b"2001:db8::7",
            b"\xff",
            b"unknown",
            b"",
            b"1.2.3.4:80",
            b"\xc2\xa010.0.0.3",
        ];
        const ELEMENTS: [&[u8]; 9] = [
            b"for=203.0.113.9",
            b"for=6.6.6.6",
            b"for=10.9.9.9;host=\"a,b\"",
            b"For=10.0.0.2",
            b"for=\"[2001:db8::7]:1\"",
            b"for=\"",
            b"for=\xff",
            b"for=\"10.0.0.3\";for=6.6.6.6",
            b"",
        ];
        for seed in 0..20_000 {
            let headers = map(&random_lines(seed, &ENTRIES), &random_lines(!seed, &ELEMENTS));
            let (client, (chain, elements)) = (judged(&headers), told(&headers));
            assert_eq!(found(chain.rsplit(", ")), client, "{headers:?} became {chain}");
            if let Some(elements) = elements.filter(|_| headers.contains_key(FORWARDED_FOR)) {
                let named = found(elements.rsplit(", ").map(node));
                assert!(named.is_none() || named == client, "{headers:?} became {elements}");
            }
        }
    }
}
