//! §2, the canonical Host and which hosts of an api hold it.

use std::net::Ipv6Addr;

/// A host and its port, if one was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostView {
    pub(crate) name: NameView,
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameView {
    Ldh(String),
    Ipv6(Ipv6Addr),
}

pub(crate) fn canonical(raw: &[u8]) -> Option<HostView> {
    if !raw.is_ascii() {
        return None;
    }
    let text = String::from_utf8(raw.to_vec()).ok()?.to_ascii_lowercase();
    if let Some(rest) = text.strip_prefix('[') {
        let end = rest.find(']')?;
        let name = NameView::Ipv6(rest[..end].parse().ok()?);
        return Some(HostView { name, port: port(&rest[end + 1..])? });
    }
    let end = text.find(':').unwrap_or(text.len());
    let name = &text[..end];
    if !is_ldh(name) {
        return None;
    }
    Some(HostView { name: NameView::Ldh(name.to_owned()), port: port(&text[end..])? })
}

/// What follows the name: nothing, or a colon and a port written as a number is written.
fn port(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.strip_prefix(':')?;
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Some(digits.parse().ok()?))
}

fn is_ldh(name: &str) -> bool {
    if name.len() > 253 {
        return false;
    }
    name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

/// Whether one entry of `hosts` holds that host.
pub(crate) fn holds(entry: &str, host: &HostView) -> bool {
    if let Some(wild) = entry.strip_prefix("*.") {
        let NameView::Ldh(name) = &host.name else {
            return false;
        };
        let Some(suffix) = canonical(wild.as_bytes()) else {
            return false;
        };
        let NameView::Ldh(suffix_name) = suffix.name else {
            return false;
        };
        let Some((_, rest)) = name.split_once('.') else {
            return false;
        };
        return rest == suffix_name && (suffix.port.is_none() || suffix.port == host.port);
    }
    match canonical(entry.as_bytes()) {
        Some(entry) => entry.name == host.name && (entry.port.is_none() || entry.port == host.port),
        None => false,
    }
}
