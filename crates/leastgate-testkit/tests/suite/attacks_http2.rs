//! The rows of `config/attacks.tsv` once more, in their HTTP/2 form: the same method, target and fields in frames.
//!
//! What HTTP/2 has no form for is refused by its library; what it has is judged as over HTTP/1.1. In either case the
//! upstream gets nothing, or exactly the request that the row says.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use leastgate_testkit::attacks::{Attack, Expected, Forwarded, table};
use leastgate_testkit::deadline::{PATIENCE, within};
use leastgate_testkit::http2::{Answer, Client, END_STREAM, head};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::Recorded;

use crate::attacks::check_request;
use crate::fixtures::Orders;

/// Rows that have a form in HTTP/2, and of these the ones that end as over HTTP/1.1: fewer, and the test tests nothing.
const LEAST_SENT: usize = 400;
const LEAST_ALIKE: usize = 300;

/// How many rows come between two canaries over connections of their own.
const CANARY_EVERY: usize = 20;

/// Rows that are another request in HTTP/2, with why.
const OTHERWISE: &[(&str, &str)] = &[
    ("field-no-colon", "a field without a value is one with an empty value"),
    ("host-two", "a host may be named twice, as :authority and as Host, if both agree (RFC 9113 §8.3.1)"),
];

/// Libraries log what they refuse, byte for byte, before a line of ours has seen it.
#[test]
fn a_log_of_everything_holds_no_token() {
    let orders = Orders::start_with(|setup| setup.argument("-vv"));
    let secret = orders.reader().secret();
    let (bearer, spaced) = (format!("Bearer {secret}"), format!("{secret} x"));
    let query = format!("/v1/orders?t={spaced}");
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", "orders.test"), (":path", "/v1/orders")];
    for odd in [(":path", &query), (":authority", &spaced), (":scheme", &spaced), (":method", &spaced), ("te", &spaced)]
    {
        let mut fields: Vec<_> = good.iter().filter(|(name, _)| *name != odd.0).copied().collect();
        fields.extend([(odd.0, odd.1.as_str())]);
        // Behind the pseudo-header fields, where every other one must stand.
        fields.push(("authorization", &bearer));
        let mut client = Client::connect(orders.gateway.data(), &[]);
        let stream = client.open(&fields, END_STREAM);
        let answer = client.answer(stream);
        assert_ne!(answer.status, 200, "{odd:?}");
    }
    let mut client = Client::connect(orders.gateway.data(), &[]);
    let stream = client.open(&head("GET", "/v1/orders", &bearer), END_STREAM);
    assert_eq!(client.answer(stream).status, 200);
    assert_eq!(orders.gateway.exchange(format!("GET /v1/{secret} {secret}\r\n\r\n")).status, 400);
    let log = orders.gateway.stderr();
    assert!(log.contains("malformed headers") && log.contains("REDACTED"), "the log has what it is about");
    LeakSearch::new([orders.reader()]).assert_clean("the log", log.as_bytes());
}

#[test]
fn every_row_is_as_harmless_over_http2() {
    let orders = Orders::start();
    let (mut faults, mut sent, mut alike) = (BTreeMap::new(), 0, 0);
    let mut recorded = Vec::new();
    for (number, attack) in table().iter().enumerate() {
        let bytes = attack.bytes(&orders.tokens()).unwrap();
        let Some(form) = Form::of(attack, &bytes.sent) else { continue };
        sent += 1;
        match run(&orders, attack, &form, source(number)) {
            Ok(outcome) => {
                alike += usize::from(outcome.is_alike);
                if outcome.is_on_record {
                    recorded.push((attack.id.clone(), source(number)));
                }
            }
            Err(fault) => drop(faults.insert(attack.id.clone(), fault)),
        }
        if sent % CANARY_EVERY == 0
            && let Err(fault) = canary(&orders)
        {
            faults.insert(attack.id.clone(), fault);
        }
    }
    check_events(&orders, &recorded, &mut faults);
    let mut text = String::new();
    for (id, fault) in &faults {
        writeln!(text, "  {id}: {fault}").unwrap();
    }
    assert!(faults.is_empty(), "{} of {sent} rows failed:\n{text}", faults.len());
    assert!(sent >= LEAST_SENT && alike >= LEAST_ALIKE, "{sent} sent, {alike} of them as over HTTP/1.1");
}

/// A request as fields and a body.
struct Form {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    method: String,
    target: String,
}

impl Form {
    /// The form of a row that is one request with a whole head.
    fn of(attack: &Attack, sent: &[u8]) -> Option<Self> {
        let is_one = attack.answers.iter().all(|sequence| sequence.len() == 1);
        let end = sent.windows(4).position(|window| window == b"\r\n\r\n")?;
        if !is_one || sent.len() > 64 * 1024 {
            return None;
        }
        let mut lines = sent[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = lines.next()?;
        let (first, last) = (line.iter().position(|byte| *byte == b' ')?, line.iter().rposition(|byte| *byte == b' ')?);
        let (method, target) = (&line[..first], line.get(first + 1..last)?);
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b":method".into(), method.into()),
            (b":scheme".into(), b"http".into()),
            (b":path".into(), target.into()),
        ];
        let mut has_authority = false;
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let name = line[..colon].to_ascii_lowercase();
            let value = line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec();
            if name == b"host" && !has_authority {
                has_authority = true;
                fields.insert(3, (b":authority".into(), value));
            } else {
                fields.push((name, value));
            }
        }
        let (method, target) = Attack::request_line(sent);
        Some(Self { fields, body: sent[end + 4..].to_vec(), method, target })
    }
}

/// What came of a row.
struct Outcome {
    /// It ended with a status that the row has over HTTP/1.1.
    is_alike: bool,
    /// The gateway answered it: the library's own answers and resets leave no event.
    is_on_record: bool,
}

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 65, u8::try_from(number / 200).unwrap(), u8::try_from(number % 200 + 1).unwrap())
}

fn run(orders: &Orders, attack: &Attack, form: &Form, source: Ipv4Addr) -> Result<Outcome, String> {
    let seen = orders.upstream.count();
    let mut client = Client::open_with(RawClient::connect_from(orders.gateway.data(), source).socket(), &[]);
    let stream = client.open_bytes(&form.fields, if form.body.is_empty() { END_STREAM } else { 0 });
    if !form.body.is_empty() {
        client.data(stream, &form.body[..form.body.len().min(16_000)], END_STREAM);
    }
    let answer = client.answer(stream);
    let got = orders.upstream.since(seen);
    check_upstream(orders, attack, form, &answer, &got)?;
    let is_alike = attack
        .answers
        .iter()
        .any(|wanted| matches!(wanted[..], [Expected::Status { code, .. }] if code == answer.status));
    let is_bare = answer.status == 431 && answer.body.is_empty();
    Ok(Outcome { is_alike, is_on_record: answer.status != 0 && !is_bare })
}

fn check_upstream(
    orders: &Orders,
    attack: &Attack,
    form: &Form,
    answer: &Answer,
    got: &[Recorded],
) -> Result<(), String> {
    let starts = || got.iter().map(|request| request.head.start.clone()).collect::<Vec<_>>();
    if answer.status / 100 != 2 {
        return if got.iter().any(|request| request.complete) {
            Err(format!("answered {} and the upstream got {:?}", answer.status, starts()))
        } else {
            Ok(())
        };
    }
    let [request] = got else { return Err(format!("one request passed, the upstream got {:?}", starts())) };
    let (method, target) = match attack.forwarded.first() {
        Some(Forwarded::AsSent) => (Some(form.method.as_str()), form.target.as_str()),
        Some(Forwarded::Target(method, target)) => (method.as_deref(), target.as_str()),
        // What is broken only in the framing of HTTP/1.1 is an ordinary request here.
        _ if is_of_http1_alone(attack) || OTHERWISE.iter().any(|(id, _)| *id == attack.id) => {
            (Some(form.method.as_str()), form.target.as_str())
        }
        other => return Err(format!("it passed, the row says {other:?}")),
    };
    if request.target() != target || method.is_some_and(|method| method != request.method()) {
        return Err(format!("the upstream got {:?}, judged was {method:?} {target:?}", request.head.start));
    }
    check_request(request, &orders.tokens())
}

/// Framing, versions and lines of HTTP/1.1, which frames say in another way.
fn is_of_http1_alone(attack: &Attack) -> bool {
    matches!(attack.statement.as_str(), "P16" | "P17" | "P18" | "P25") || attack.id.starts_with("line-")
}

/// Exactly one event a row that the gateway answered.
fn check_events(orders: &Orders, recorded: &[(String, Ipv4Addr)], faults: &mut BTreeMap<String, String>) {
    let counts = || {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for event in orders.gateway.decisions() {
            *counts.entry(event["source"]["ip"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        counts
    };
    let all_there =
        |counts: &HashMap<_, _>| recorded.iter().all(|(_, source)| counts.contains_key(&source.to_string()));
    let counts = within(PATIENCE, || Some(counts()).filter(all_there)).unwrap_or_else(counts);
    for (id, source) in recorded {
        let count = counts.get(&source.to_string()).copied().unwrap_or_default();
        if count != 1 {
            faults.insert(id.clone(), format!("{count} events"));
        }
    }
}

fn canary(orders: &Orders) -> Result<(), String> {
    let mut client = Client::connect(orders.gateway.data(), &[]);
    let bearer = format!("Bearer {}", orders.reader().secret());
    let stream = client.open(&head("GET", "/v1/orders/ca4a12", &bearer), END_STREAM);
    let answer = client.answer(stream);
    if answer.status == 200 && answer.text().contains("ca4a12") {
        Ok(())
    } else {
        Err(format!("the canary got {answer:?}"))
    }
}
