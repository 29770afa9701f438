//! The rows of the attack table, mutated: whatever comes of one, what reaches the upstream is a clean request that some
//! event allowed, and the gateway goes on. `LEASTGATE_MUTATIONS=100000` looks longer.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use leastgate_testkit::attacks::table;
use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::Recorded;
use serde_json::Value;

use crate::attacks::{LOCAL, OVERRIDES};
use crate::fixtures::Orders;

const THREADS: u64 = 4;

/// What a mutation may put in: bytes on which readers differ.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    ":",
    ";",
    ",",
    "/",
    "//",
    "/../",
    "/./",
    "/..;/",
    "%2e",
    "%2f",
    "%00",
    "%",
    "\\",
    "?",
    "#",
    "@",
    "..",
    "\u{b}",
    "\r\n\r\n",
    "0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Host: evil.test\r\n",
    "Connection: close\r\n",
    "Connection: host\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "X-Original-URL: /attacker\r\n",
    "X-Leastgate-Subject: attacker\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "GET /admin/secret HTTP/1.1\r\n",
    "\u{e9}",
    "999999999999",
];

/// xorshift64*: the same mutations in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit.max(1)
    }

    /// A place outside the first token: a broken token only ever ends in 401.
    fn place(&mut self, bytes: &[u8]) -> usize {
        let token = bytes.windows(4).position(|window| window == b"lgt_").unwrap_or(bytes.len());
        let outside = |at: &usize| !(token..token + 80).contains(at);
        (0..8).map(|_| self.below(bytes.len())).find(outside).unwrap_or(0)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.place(bytes);
        match self.below(6) {
            0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            1 => drop(bytes.drain(at..(at + 1 + self.below(8)).min(bytes.len()))),
            2 | 3 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].bytes())),
            4 => {
                let end = (at + 1 + self.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let other = &others[self.below(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len())..]);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
}

#[test]
fn whatever_is_sent_only_clean_and_allowed_requests_arrive() {
    let orders = Orders::start();
    let tokens = orders.tokens();
    let rows: Vec<Vec<u8>> =
        table().iter().map(|attack| attack.bytes(&tokens).unwrap().sent).filter(|bytes| bytes.len() < 4096).collect();
    let rounds: u64 =
        std::env::var("LEASTGATE_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000) / THREADS;
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let (orders, rows) = (&orders, &rows);
            scope.spawn(move || {
                let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (worker + 1));
                for _ in 0..rounds {
                    let mut bytes = rows[random.below(rows.len())].clone();
                    for _ in 0..=random.below(3) {
                        random.mutate(&mut bytes, rows);
                    }
                    send(orders, worker, &bytes);
                }
            });
        }
    });
    let canary = orders.gateway.get(orders.reader(), "/v1/orders/ca4a12");
    assert_eq!(canary.status, 200);
    check(&orders);
}

/// Sends and takes what comes, without waiting for a request that is not whole.
fn send(orders: &Orders, worker: u64, bytes: &[u8]) {
    let source = Ipv4Addr::new(127, 100, 0, u8::try_from(worker + 1).unwrap());
    let mut client = RawClient::connect_from(orders.gateway.data(), source);
    client.send(bytes);
    while matches!(client.read_for("GET", Duration::from_millis(15)), Ok(reply) if !reply.closes) {}
}

fn check(orders: &Orders) {
    let got = orders.upstream.requests();
    assert!(got.len() > 50, "too few mutations are still requests: {}", got.len());
    let allowed = allowed_by_id(orders);
    // Whole tokens only: a piece of one that a mutation tore out is a word like any other.
    let secrets: Vec<String> = orders.tokens().values().map(|token| token.secret().to_owned()).collect();
    let holds_token = |bytes: &[u8]| {
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
    };
    for request in &got {
        if let Err(fault) = check_request(request, &allowed) {
            panic!("{fault}: {}", String::from_utf8_lossy(&request.head.bytes));
        }
        assert!(
            !holds_token(&request.head.bytes),
            "a token was forwarded: {}",
            String::from_utf8_lossy(&request.head.bytes)
        );
    }
    for (place, bytes) in orders.gateway.written() {
        assert!(!holds_token(&bytes), "a token stands in {place}");
    }
    assert!(!orders.gateway.stderr().contains("panicked"), "{}", orders.gateway.stderr());
}

/// The paths of the events that allowed something, by decision, once the canary's is among them.
fn allowed_by_id(orders: &Orders) -> HashMap<String, Value> {
    until("the canary's event", PATIENCE, || {
        let decisions = orders.gateway.decisions();
        let done = decisions
            .iter()
            .any(|event| event["request"]["path"] == "/v1/orders/ca4a12" && event["source"]["ip"] == "127.0.0.1");
        let allows = decisions.into_iter().filter(|event| event["decision"]["effect"] == "allow");
        done.then(|| allows.map(|event| (event["id"].as_str().unwrap_or_default().to_owned(), event)).collect())
    })
}

fn check_request(request: &Recorded, allowed: &HashMap<String, Value>) -> Result<(), String> {
    if request.complete && request.fault.is_some() {
        return Err(format!("broken: {:?}", request.fault));
    }
    if request.head.start.is_empty() || request.head.one("host").is_none() || request.head.framing().is_err() {
        return Err("not one clean head".to_owned());
    }
    if let Some((name, _)) =
        request.head.fields.iter().find(|(name, value)| must_not_survive(&name.to_ascii_lowercase(), value))
    {
        return Err(format!("{name} must not survive"));
    }
    if let Some(odd) = oddity(request.path()) {
        return Err(format!("an ambiguous path ({odd})"));
    }
    let decision = request.head.one("x-leastgate-decision").ok_or("no decision")?;
    // A request that its client broke off is recorded as what became of it; it was still decided.
    match allowed.get(decision) {
        // Events hold the first 32 bytes of a method.
        Some(event)
            if event["request"]["method"].as_str().is_some_and(|method| request.method().starts_with(method)) =>
        {
            Ok(())
        }
        Some(event) => Err(format!("another request was allowed: {event}")),
        None if !request.complete => Ok(()),
        None => Err("no event allowed it".to_owned()),
    }
}

/// Overrides, hop-by-hop fields, and a client's word where only the gateway's counts. A mutated name is another name.
fn must_not_survive(name: &str, value: &str) -> bool {
    let ours = name.starts_with("x-leastgate-") || name.starts_with("x-forwarded-") || name == "forwarded";
    OVERRIDES.contains(&name) || LOCAL.contains(&name) || name.contains('_') || (ours && value.contains("attacker"))
}

/// What two readers could take for two things: the design's list once more, as plain searches.
fn oddity(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    let found = [
        "//", "/./", "/../", ";", "\\", "%2f", "%5c", "%25", "%00", "%0a", "%0d", "%3b", "%3f", "%23", "%2e%2e/", "./",
        "{", "[", "|",
    ];
    let ends = ["/.", "/..", "."];
    found
        .into_iter()
        .find(|odd| lower.contains(odd))
        .or_else(|| ends.into_iter().find(|odd| lower.ends_with(odd)))
        .or_else(|| (!path.is_ascii() || !path.starts_with('/')).then_some("bytes"))
}
