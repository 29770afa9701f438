//! Every row of `config/attacks.tsv` in front of an upstream with a parser of its own: nothing that it sees lies outside
//! the grant, as it reads it itself.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use leastgate_testkit::attacks::{Attack, Expected, Forwarded, table};
use leastgate_testkit::deadline::{PATIENCE, until, within};
use leastgate_testkit::raw::{NoReply, RawClient};

use crate::seen::Seen;
use crate::upstreams::Bed;

/// Rows that are sent side by side.
const LANES: usize = 8;
/// How long an answer may take; some rows get none because they never end.
const ANSWER: Duration = Duration::from_secs(2);

pub(crate) fn run(bed: &Bed) -> String {
    let attacks = table();
    let before = bed.peer.seen().len();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let attacks = &attacks;
            scope.spawn(move || attacks.iter().enumerate().skip(lane).step_by(LANES).for_each(|row| send(bed, row)));
        }
    });
    let seen: Vec<Seen> = settled(bed).split_off(before);
    let mut faults = Vec::new();
    for (number, attack) in attacks.iter().enumerate() {
        let source = source(number).to_string();
        let arrived: Vec<&Seen> = seen.iter().filter(|seen| seen.forwarded_for() == source).collect();
        faults.extend(fault(bed, attack, &arrived).map(|fault| format!("{}: {fault}", attack.id)));
    }
    let (read, unread): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| !is_unread(seen));
    faults.extend(read.iter().filter(|seen| !granted(seen)).map(|seen| format!("outside the grant: {seen:?}")));
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("; "));
    let refused = if unread.is_empty() { String::new() } else { format!(", {} of them refused unread", unread.len()) };
    format!("{} rows, {} requests arrived{refused}", attacks.len(), seen.len())
}

/// A method that the upstream itself does not know, or a head that is too long for it: it has read no path.
fn is_unread(seen: &Seen) -> bool {
    (seen.decoded(), seen.subject()) == ("-", "-")
}

/// Each row comes from an address of its own, by which its requests are found again.
fn source(row: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 64, u8::try_from(row / 200).unwrap(), u8::try_from(row % 200 + 1).unwrap())
}

fn send(bed: &Bed, (number, attack): (usize, &Attack)) {
    let bytes = attack.bytes(&bed.tokens.by_placeholder()).unwrap();
    let (method, _) = Attack::request_line(&bytes.sent);
    let mut client = RawClient::connect_from(bed.gateway.data(), source(number));
    client.send(&bytes.sent);
    if bytes.ends {
        client.finish_sending();
    }
    let most = attack.answers.iter().map(Vec::len).max().unwrap_or_default();
    for at in 0..most {
        let answer = client.read_for(if at == 0 { &method } else { "GET" }, ANSWER);
        let is_over = matches!(&answer, Ok(reply) if reply.closes) || matches!(&answer, Err(NoReply::Closed));
        let may_end = attack.answers.iter().any(|wanted| matches!(wanted.get(at), Some(Expected::Close)));
        if is_over || (answer.is_err() && may_end) {
            return;
        }
    }
}

/// The log, when it has stopped growing behind a last request.
fn settled(bed: &Bed) -> Vec<Seen> {
    let end = "GET /v1/settled HTTP/1.1\r\nX-Cell: settled\r\nHost: orders.test\r\n";
    let head = format!("{end}{}\r\n\r\n", bed.tokens.wide().header());
    assert_eq!(bed.gateway.exchange(head).status, 200, "whoever behaves is served as before");
    until("the last line", PATIENCE, || bed.peer.seen().iter().any(|seen| seen.cell() == "settled").then_some(()));
    // Some write a line when the connection ends: as long as there are new ones, there may be more.
    let mut seen = bed.peer.seen();
    while let Some(more) = within(Duration::from_millis(500), || {
        let now = bed.peer.seen();
        (now.len() > seen.len()).then_some(now)
    }) {
        seen = more;
    }
    seen.retain(|seen| seen.cell() != "settled");
    seen
}

/// What is wrong with what arrived of a row.
fn fault(bed: &Bed, attack: &Attack, arrived: &[&Seen]) -> Option<String> {
    let bytes = attack.bytes(&bed.tokens.by_placeholder()).unwrap();
    let (method, target) = Attack::request_line(&bytes.sent);
    let allowed: Vec<(Option<&str>, &str)> = attack
        .forwarded
        .iter()
        .filter_map(|forwarded| match forwarded {
            Forwarded::Nothing => None,
            Forwarded::AsSent => Some((Some(method.as_str()), target.as_str())),
            Forwarded::Target(method, target) => Some((method.as_deref(), target.as_str())),
            Forwarded::Unfinished(target) => Some((None, target.as_str())),
        })
        .collect();
    if arrived.len() > allowed.len() {
        return Some(format!("{} requests arrived, {} may: {arrived:?}", arrived.len(), allowed.len()));
    }
    let is_judged = |seen: &Seen| {
        allowed.iter().any(|(method, target)| {
            // Of an empty query ASGI does not tell.
            [*target, target.trim_end_matches('?')].contains(&seen.target())
                && method.is_none_or(|method| seen.method() == method)
        })
    };
    arrived.iter().find(|seen| !is_judged(seen)).map(|seen| format!("another request arrived: {seen:?}"))
}

/// Whether the path that this server sees is in the grant of whom the gateway names: the orders policy, read anew.
fn granted(seen: &Seen) -> bool {
    let path = seen.decoded().to_lowercase();
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_owned()),
        }
    }
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if seen.authorization() != "-" || segments.first() == Some(&"internal") {
        return false;
    }
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reads = ["GET", "HEAD"].contains(&seen.method());
    match (seen.subject(), &segments[..]) {
        ("-", ["healthz"]) => reads,
        ("-", ["public", name]) => reads && *name != "sealed",
        ("wide", ["admin", ..] | ["public", "sealed"]) => false,
        ("wide", ["files", "private", ..]) => !reads,
        ("wide", _) => true,
        ("misc", ["misc", ..]) => reads,
        ("refunder", ["v1", "orders", id, "refunds"]) => is_hex(id) && seen.method() == "POST",
        ("reader" | "writer", ["v1", "orders"] | ["v1", "a.b"]) if reads => true,
        ("reader" | "writer", ["v1", "orders", id]) if reads => is_hex(id),
        ("reader" | "writer", ["v1", "orders", id, "items", ..]) if reads => is_hex(id),
        ("writer", ["v1", "orders"]) => seen.method() == "POST",
        ("writer", ["v1", "orders", id]) => is_hex(id) && seen.method() == "PATCH",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(subject: &str, method: &str, decoded: &str) -> Seen {
        Seen::parse(&format!("-\t{method}\t/\t{decoded}\t1\torders.test\t-\t{subject}\t-\t-\t-\t-\t-\t-\t-\t-"))
    }

    #[test]
    fn what_lies_outside_of_a_grant_is_told() {
        for (subject, method, decoded) in [
            ("reader", "GET", "/v1/orders/ab/items/x"),
            ("writer", "PATCH", "/v1/orders/ab"),
            ("wide", "DELETE", "/files/private/x"),
            ("-", "GET", "/public/a"),
        ] {
            assert!(granted(&seen(subject, method, decoded)), "{subject} {method} {decoded}");
        }
        for (subject, method, decoded) in [
            ("reader", "POST", "/v1/orders"),
            ("reader", "GET", "/v1/orders/../users"),
            ("writer", "PATCH", "/v1/orders/xyz"),
            ("wide", "GET", "/files/..\\ADMIN"),
            ("wide", "GET", "/files/..;a/admin/x"),
            ("wide", "GET", "//internal"),
            ("wide", "HEAD", "/files/private"),
            ("-", "GET", "/v1/orders"),
            ("-", "GET", "/public/sealed"),
        ] {
            assert!(!granted(&seen(subject, method, decoded)), "{subject} {method} {decoded}");
        }
    }
}
