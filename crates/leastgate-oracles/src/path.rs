//! The canonical path against every other reader: what is accepted reads the same to all of them, and what is allowed
//! lies inside the grant for all of them. This is the differential target.

use std::collections::BTreeSet;

use http::uri::PathAndQuery;
use leastgate_policy::path::CanonicalPath;
use leastgate_policy::{Basis, Decision, RequestFacts};
use unicode_normalization::UnicodeNormalization;

use crate::reference::{self, readers};
use crate::world::{Holder, WORLD, grants, is_public, request};

/// The bytes are a target: path and query.
pub(crate) fn body(bytes: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(bytes) else { return };
    check(&target);
    for method in ["GET", "PUT"] {
        for holder in [Some(Holder::Reader), Some(Holder::Files), Some(Holder::Wide), None] {
            if let Ok(facts) = WORLD.parse(&request(method, &target, holder)) {
                check_grant(&facts, &target, holder);
            }
        }
    }
}

/// What must hold of an accepted path, whatever the policy.
pub(crate) fn check(target: &PathAndQuery) {
    let view = reference::path::canonical(target.path());
    let path = match (CanonicalPath::parse(target), view) {
        (Ok(path), Ok(view)) => {
            assert!(path.segments().eq(view.segments.iter()), "{target}: {path} is {view:?}");
            assert_eq!(path.has_trailing_slash(), view.slash, "{target}");
            path
        }
        (Err(_), Err(_)) => return,
        (Err(error), Ok(_)) => return assert!(target.as_str().len() > 8192, "{target}: {error:?}"),
        (Ok(path), Err(fault)) => panic!("{target} is accepted as {path}, but {fault:?}"),
    };
    let (raw, decoded) = (target.path().as_bytes().to_vec(), path.to_string().into_bytes());
    let readings = readers::readings(&raw, 8);
    assert_eq!(readings, Some(BTreeSet::from([raw, decoded])), "{target} has other readings");
    for digits in [hex_upper, hex_lower] {
        let encoded = escaped(&path, digits);
        if encoded.len() <= 8192 {
            let again = CanonicalPath::parse(&encoded.parse().unwrap()).unwrap();
            assert!(again.segments().eq(path.segments()), "{target} is not {encoded}");
            assert_eq!(again.has_trailing_slash(), path.has_trailing_slash());
        }
    }
    for segment in path.segments() {
        let normal: String = segment.nfkc().collect();
        let is_whole = !normal.is_empty() && !normal.contains(['/', '\\', ';', '?', '#', '%', '\0']);
        assert!(is_whole && !normal.trim_matches(['.', ' ']).is_empty(), "{target} normalizes to {normal:?}");
    }
}

/// If the request passes, every reader of its path sees something that was granted.
pub(crate) fn check_grant(facts: &RequestFacts, target: &PathAndQuery, holder: Option<Holder>) {
    let Decision::Allow(permit) = WORLD.decide(facts) else { return };
    let raw = target.path().as_bytes();
    let mut readings = readers::readings(raw, 8).unwrap();
    if readings.len() > 1 {
        // Whoever does not decode at all reads another path, and serves nothing under it.
        readings.remove(raw);
    }
    for reading in &readings {
        let segments = split(reading);
        let method = facts.method().as_str();
        let granted = match permit.basis() {
            Basis::Public => is_public(method, &segments),
            Basis::Granted => holder.is_some_and(|holder| grants(holder, method, &segments)),
            Basis::Shadowed(denial) => panic!("nothing is in shadow: {denial:?}"),
        };
        assert!(granted, "{method} {target} passes, and reads as {}", String::from_utf8_lossy(reading));
    }
}

fn split(path: &[u8]) -> Vec<&[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.is_empty() { Vec::new() } else { path.split(|byte| *byte == b'/').collect() }
}

/// The path, every byte of it escaped but slashes, letters and digits.
pub(crate) fn escaped(path: &CanonicalPath, hex: fn(u8) -> String) -> String {
    let is_plain = |byte: u8| byte == b'/' || byte.is_ascii_alphanumeric();
    path.to_string().bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { hex(byte) }).collect()
}

pub(crate) fn hex_upper(byte: u8) -> String {
    format!("%{byte:02X}")
}

fn hex_lower(byte: u8) -> String {
    format!("%{byte:02x}")
}
