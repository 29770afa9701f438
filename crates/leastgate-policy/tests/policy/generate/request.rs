//! Requests made for a rule: method, Host, conditions met or not, and the ways to break a head.

use std::net::IpAddr;

use leastgate_policy::spec::{ConditionSpec, WhenSpec};

use super::Draw;
use super::path::fitting;
use super::policy::{Plan, PlannedRule};
use crate::reference::RawRequest;

/// Wire form of one request while it is being put together.
pub(crate) struct Sketch {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<String>,
    pub(crate) host: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) peer: IpAddr,
}

impl Sketch {
    pub(crate) fn header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.push((name.to_owned(), value.into()));
    }

    pub(crate) fn finish(self, draw: &mut Draw<'_>) -> RawRequest {
        let mut headers = vec![("host".to_owned(), self.host.clone().into_bytes())];
        headers.extend(self.headers);
        let mut target = self.path;
        if !self.query.is_empty() {
            target = format!("{target}?{}", self.query.join("&"));
        } else if draw.chance(5) {
            target.push('?');
        }
        if target.is_ascii() && draw.chance(4) {
            target = format!("{}{}{target}", draw.choose(&["http://", "https://", "HTTP://"]), self.host);
        }
        RawRequest { method: self.method, target, headers, peer: self.peer }
    }
}

/// A request the rule is about; `loose`: in a spelling only a deny cares for.
pub(crate) fn for_rule(draw: &mut Draw<'_>, plan: &Plan, rule: &PlannedRule, loose: bool, met: bool) -> Sketch {
    let mut sketch = Sketch {
        method: method(draw, rule.methods, loose),
        path: fitting(draw, &rule.segments, rule.slash, loose),
        query: Vec::new(),
        host: host(draw, plan, rule.api),
        headers: Vec::new(),
        peer: address(draw.choose(&["198.51.100.7", "10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3"])),
    };
    if rule.methods == "WS" && (!loose || draw.chance(50)) {
        handshake(&mut sketch);
    }
    if rule.methods == "GRPC" {
        let kind =
            draw.choose(&["application/grpc", "application/grpc+proto", "application/grpc; q=1", "application/json"]);
        sketch.header("content-type", kind);
    }
    if let Some(when) = &rule.when {
        let spoiled = if met { None } else { Some(draw.pick(3)) };
        conditions(draw, &mut sketch, when, spoiled);
    }
    if draw.chance(20) {
        sketch
            .query
            .push(draw.choose(&["a=b", "limit=10", "x", "", "currency=eur", "q=%C3%A9", "q=a;b", "q=%zz"]).to_owned());
    }
    sketch
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address of the alphabet")
}

fn method(draw: &mut Draw<'_>, methods: &str, loose: bool) -> String {
    let named: Vec<&str> = methods.split(',').collect();
    let method = match draw.choose(&named) {
        "*" => draw.choose(&["GET", "POST", "PURGE", "OPTIONS", "HEAD", "DELETE"]),
        "GET" => draw.choose(&["GET", "GET", "HEAD"]),
        "WS" => draw.choose(if loose { &["GET", "HEAD"] } else { &["GET"] }),
        "GRPC" => draw.choose(if loose { &["POST", "DELETE", "GET"] } else { &["POST"] }),
        named => named,
    };
    method.to_owned()
}

/// A Host the api has, in one of its spellings.
pub(crate) fn host(draw: &mut Draw<'_>, plan: &Plan, api: usize) -> String {
    let hosts = &plan.spec.apis[api].hosts;
    if hosts.is_empty() {
        return draw.choose(&["any.test", "127.0.0.1:80", "[::1]"]).to_owned();
    }
    let entry = draw.choose(hosts).value;
    let entry = match entry.strip_prefix("*.") {
        Some(suffix) => format!("x.{suffix}"),
        None => entry,
    };
    match draw.pick(8) {
        1 => entry.to_ascii_uppercase(),
        2 if !entry.contains(':') => format!("{entry}:8443"),
        3 if entry.starts_with('[') => "[2001:DB8:0:0::1]:443".to_owned(),
        _ => entry,
    }
}

pub(crate) fn handshake(sketch: &mut Sketch) {
    sketch.header("connection", "Upgrade");
    sketch.header("upgrade", "websocket");
    sketch.header("sec-websocket-version", "13");
    sketch.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
}

/// Meets every condition, but perhaps the one at `spoiled`.
fn conditions(draw: &mut Draw<'_>, sketch: &mut Sketch, when: &WhenSpec, spoiled: Option<usize>) {
    let kinds = [!when.header.is_empty(), !when.query.is_empty(), !when.source_ip.is_empty()];
    let present: Vec<usize> = (0..3).filter(|kind| kinds[*kind]).collect();
    let spoiled = spoiled.map(|choice| present[choice % present.len()]);
    for condition in &when.header {
        if spoiled == Some(0) { spoil_header(draw, sketch, condition) } else { meet_header(draw, sketch, condition) }
    }
    for condition in &when.query {
        if spoiled == Some(1) { spoil_query(draw, sketch, condition) } else { meet_query(draw, sketch, condition) }
    }
    if !when.source_ip.is_empty() {
        if spoiled == Some(2) { spoil_source(draw, sketch) } else { meet_source(draw, sketch) }
    }
}

fn a_value(draw: &mut Draw<'_>, condition: &ConditionSpec) -> String {
    draw.choose(&condition.1).value.replace('*', draw.choose(&["", "1", "x y"]))
}

fn meet_header(draw: &mut Draw<'_>, sketch: &mut Sketch, condition: &ConditionSpec) {
    let value = a_value(draw, condition);
    let name = draw.choose(&[condition.0.value.clone(), condition.0.value.to_ascii_lowercase()]);
    sketch.header(&name, value.trim().to_owned());
}

fn spoil_header(draw: &mut Draw<'_>, sketch: &mut Sketch, condition: &ConditionSpec) {
    let value = a_value(draw, condition);
    let name = condition.0.value.as_str();
    match draw.pick(6) {
        0 => {}
        1 => sketch.header(name, "nope"),
        2 => {
            sketch.header(name, value.clone());
            sketch.header(name, value);
        }
        3 => sketch.header(name, [value.as_bytes(), b"\xe9"].concat()),
        4 => sketch.header(name, value.to_ascii_lowercase()),
        _ => {
            sketch.header(name, value.clone());
            sketch.header(&name.replace('-', "_"), value);
        }
    }
}

fn meet_query(draw: &mut Draw<'_>, sketch: &mut Sketch, condition: &ConditionSpec) {
    let value = a_value(draw, condition).replace(' ', draw.choose(&["+", "%20"]));
    let name = condition.0.value.replace('c', draw.choose(&["c", "c", "%63"]));
    sketch.query.push(format!("{name}={value}"));
}

fn spoil_query(draw: &mut Draw<'_>, sketch: &mut Sketch, condition: &ConditionSpec) {
    let value = a_value(draw, condition).replace(' ', "+");
    let name = condition.0.value.as_str();
    let parts: Vec<String> = match draw.pick(14) {
        0 => Vec::new(),
        1 => vec![format!("{name}=nope")],
        2 => vec![format!("{name}={value}"), format!("{name}={value}")],
        3 => vec![format!("{}={value}", name.to_ascii_uppercase())],
        4 => vec![format!("{name}={value}"), format!("{name}[]=x")],
        5 => vec![format!("{}={value}", name.replace('_', "."))],
        6 => vec![format!("{name}={value}"), format!("+{}=x", name.replace('k', "%E2%84%AA"))],
        7 => vec![format!("{name}={value}"), draw.choose(&["a;b=1", "x=%0", "%zz", "y=%00"]).to_owned()],
        8 => vec![name.to_owned()],
        9 => vec![format!("{name}={value}+")],
        10 => vec![
            format!("{name}={value}"),
            draw.choose(&["[a]=1", "a[b=1", "a]=1", "a[b[c]]=1", "a[b][]=1"]).to_owned(),
        ],
        11 => vec![["x=1"; 256][..draw.choose(&[255, 256])].join("&"), format!("{name}={value}")],
        12 => vec![
            draw.choose(&[
                "_method=PUT",
                "%5Fmethod",
                "[method=PUT",
                "+.METHOD=x",
                "_method%00=x",
                "x;_method=1",
                "[_method]=1",
                "_method[0]=1",
                "a[_method]=1",
            ])
            .to_owned(),
        ],
        _ => vec![format!("{name}={value}&&={value}&={name}")],
    };
    sketch.query.extend(parts);
}

fn meet_source(draw: &mut Draw<'_>, sketch: &mut Sketch) {
    match draw.pick(4) {
        0 => sketch.peer = address("10.1.2.3"),
        1 => sketch.peer = address("::ffff:10.1.9.9"),
        2 => forwarded(draw, sketch, &["10.1.2.3", "6.6.6.6, 10.1.0.1", "10.1.0.1, 192.0.2.9, 2001:db8:ffff::1"]),
        _ => {
            sketch.peer = address("192.0.2.77");
            sketch.header("x-forwarded-for", "junk, 10.1.2.3");
            sketch.header("X-Forwarded-For", " ::ffff:192.0.2.1 ");
        }
    }
}

fn spoil_source(draw: &mut Draw<'_>, sketch: &mut Sketch) {
    match draw.pick(4) {
        0 => sketch.peer = address("198.51.100.7"),
        1 => sketch.peer = address("192.0.2.1"),
        2 => {
            sketch.peer = address("198.51.100.7");
            sketch.header("x-forwarded-for", "10.1.2.3");
        }
        _ => forwarded(
            draw,
            sketch,
            &["10.1.2.3, 6.6.6.6", "10.1.2.3, unknown", "10.1.2.3,", "10.1.2.3:80", "192.0.2.9", "010.1.2.3"],
        ),
    }
}

fn forwarded(draw: &mut Draw<'_>, sketch: &mut Sketch, entries: &[&str]) {
    sketch.peer = address(draw.choose(&["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:ffff::9"]));
    sketch.header("x-forwarded-for", draw.choose(entries));
}

/// Breaks the head in a way that makes it malformed.
pub(crate) fn malform(draw: &mut Draw<'_>, sketch: &mut Sketch) {
    match draw.pick(9) {
        0 => sketch.header("Host", sketch.host.clone()),
        1 => {
            let bad = [
                "",
                "a.test.",
                "u@a.test",
                "a.test:",
                "a.test:080",
                "a.test:0",
                "a.test:65536",
                "a_b.test",
                "-a.test",
                "a..test",
                "[::1%25eth0]",
                "[v1.x]",
                "[::1",
                "a.test/",
                "a.test,b.test",
                "\u{e9}.test",
                "::1",
            ];
            sketch.host = draw.choose(&bad).to_owned();
        }
        2 => sketch.header("upgrade", draw.choose(&["websocket", "WebSocket, h2c", "h2c, websocket"])),
        3 => {
            handshake(sketch);
            sketch.method = draw.choose(&["POST", "HEAD"]).to_owned();
        }
        4 => {
            handshake(sketch);
            let dropped = draw.choose(&["connection", "sec-websocket-version"]);
            sketch.headers.retain(|(name, _)| name != dropped);
            if draw.chance(50) {
                sketch.header(dropped, draw.choose(&["close", "12", "8, 13"]));
            }
        }
        5 => {
            handshake(sketch);
            sketch.header("Upgrade", "h2c");
        }
        6 => sketch.header(draw.choose(&["x_odd", "x.odd", "x_o!dd"]), "1"),
        7 => {
            let other = draw.choose(&["other.test", "a.test:1", "u@a.test"]);
            sketch.path = format!("http://{other}{}", sketch.path);
        }
        _ => sketch.path = draw.choose(&["*", "foo", "ftp://a.test/x"]).to_owned(),
    }
}
