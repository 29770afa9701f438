//! §4, conditions: true, false or unknown.

use leastgate_policy::spec::WhenSpec;

use super::path::{decode, split};
use super::{GatewayView, RawRequest, source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

pub(crate) fn when(spec: Option<&WhenSpec>, gateway: &GatewayView, request: &RawRequest) -> Truth {
    let Some(spec) = spec else {
        return Truth::True;
    };
    let mut all = Vec::new();
    for (name, patterns) in &spec.header {
        let patterns: Vec<&str> = patterns.iter().map(|p| p.value.as_str()).collect();
        all.push(header(&name.value, &patterns, request));
    }
    for (name, values) in &spec.query {
        let values: Vec<&str> = values.iter().map(|v| v.value.as_str()).collect();
        all.push(query(&name.value, &values, request));
    }
    if !spec.source_ip.is_empty() {
        all.push(match source::source_ip(gateway, request) {
            Some(address) => truth(spec.source_ip.iter().any(|block| source::contains(&block.value, address))),
            None => Truth::Unknown,
        });
    }
    if all.contains(&Truth::False) {
        Truth::False
    } else if all.contains(&Truth::Unknown) {
        Truth::Unknown
    } else {
        Truth::True
    }
}

fn truth(holds: bool) -> Truth {
    if holds { Truth::True } else { Truth::False }
}

fn header(name: &str, patterns: &[&str], request: &RawRequest) -> Truth {
    for (field, _) in &request.headers {
        // Only an upstream with `allow_underscores` gets such a field, and takes it for the other one.
        let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
        let alike = plain(field) == plain(name);
        if alike && !field.eq_ignore_ascii_case(name) {
            return Truth::Unknown;
        }
    }
    let value = match request.values(name).as_slice() {
        [] => return Truth::False,
        [one] => *one,
        _ => return Truth::Unknown,
    };
    if !value.iter().all(|b| (0x20..0x7f).contains(b) || *b == b'\t') {
        return Truth::Unknown;
    }
    let text = String::from_utf8_lossy(value);
    let text = text.trim_matches([' ', '\t']);
    truth(patterns.iter().any(|pattern| fits(pattern, text.as_bytes())))
}

/// Exact, or one trailing `*`.
fn fits(pattern: &str, value: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => value.starts_with(prefix.as_bytes()),
        None => value == pattern.as_bytes(),
    }
}

fn query(name: &str, values: &[&str], request: &RawRequest) -> Truth {
    let (_, query) = split(&request.target);
    let Some(query) = query else {
        return Truth::False;
    };
    let mut pairs = Vec::new();
    for part in query.split('&') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (Some(key), Some(value)) = (unescape(key), unescape(value)) else {
            return Truth::Unknown;
        };
        pairs.push((key, value));
    }
    if query.contains(';') || query.contains("%00") || pairs.len() > 256 {
        return Truth::Unknown;
    }
    if pairs.iter().any(|(key, _)| !indexed(&String::from_utf8_lossy(key))) {
        return Truth::Unknown;
    }
    let mut same = Vec::new();
    for (key, value) in &pairs {
        if loose_name(key) == loose_name(name.as_bytes()) {
            same.push((key, value));
        }
    }
    match same.as_slice() {
        [] => Truth::False,
        [(key, value)] if key.as_slice() == name.as_bytes() => {
            truth(values.iter().any(|wanted| wanted.as_bytes() == value.as_slice()))
        }
        _ => Truth::Unknown,
    }
}

/// Whether a name has no brackets, or pairs of them behind something.
fn indexed(name: &str) -> bool {
    let brackets: String = name.chars().filter(|c| "[]".contains(*c)).collect();
    brackets.replace("[]", "").is_empty() && !brackets.contains("[[") && !name.trim_start().starts_with('[')
}

/// One decoding, `+` is a space; nothing for a bad escape.
fn unescape(text: &str) -> Option<Vec<u8>> {
    decode(text.replace('+', " ").as_bytes())
}

/// What frameworks of several languages would take a parameter's name for.
fn loose_name(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let text = text.trim().to_lowercase();
    let text = text.split('[').next().unwrap_or("");
    text.replace(['.', ' '], "_")
}
