//! Every row of `config/attacks.tsv` against one gateway: the upstream gets nothing, or exactly the judged request.
//!
//! Each row comes from a loopback address of its own, which is how its audit events are found. After each row a canary
//! must pass, on a new connection and on the row's own where that is still open.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use leastgate_testkit::attacks::{Attack, Expected, Forwarded, table};
use leastgate_testkit::deadline::{PATIENCE, within};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::raw::{NoReply, RawClient, Reply};
use leastgate_testkit::recorder::Recorded;
use leastgate_testkit::token::Token;
use serde_json::Value;

use crate::fixtures::Orders;

/// How long an answer may take; a gateway that leaves a row unanswered fails it.
const ANSWER: Duration = Duration::from_secs(3);

/// What P8 removes, in lower case.
pub(crate) const OVERRIDES: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-override-method",
    "x-original-method",
    "x-forwarded-method",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-replaced-path",
    "x-request-uri",
    "request-uri",
    "x-envoy-original-path",
    "x-envoy-decorator-operation",
    "x-script-name",
    "x-path-info",
    "x-accel-redirect",
    "x-sendfile",
    "x-proxy-url",
    "base-url",
    "x-http-destinationurl",
    "destination",
    "x-middleware-subrequest",
    "x-middleware-rewrite",
    "x-waws-unencoded-url",
];

/// Hop-by-hop and message-local fields that end at the gateway.
pub(crate) const LOCAL: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "expect",
    "upgrade",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
];

/// What the table writes into every field that must not survive.
const MARKS: &[&str] = &["attacker", "6.6.6.6"];

/// What came of a row before its audit events are looked at.
struct Outcome {
    source: Ipv4Addr,
    answers: Vec<Result<Reply, NoReply>>,
    /// Requests on the row's own connection: the row's and the canary.
    requests: usize,
}

#[test]
fn every_row_ends_as_the_table_says() {
    let orders = Orders::start();
    let attacks = table();
    let mut faults = BTreeMap::new();
    let mut outcomes = Vec::new();
    for (number, attack) in attacks.iter().enumerate() {
        let outcome = run(&orders, attack, number).unwrap_or_else(|(outcome, fault)| {
            faults.insert(attack.id.clone(), fault);
            outcome
        });
        outcomes.push(outcome);
    }
    check_events(&orders, &attacks, &outcomes, &mut faults);
    report(&attacks, &faults);
    no_secret_got_out(&orders, &outcomes);
}

fn report(attacks: &[Attack], faults: &BTreeMap<String, String>) {
    let mut text = String::new();
    for (id, fault) in faults {
        writeln!(text, "  {id}: {fault}").unwrap();
    }
    assert!(faults.is_empty(), "{} of {} rows failed:\n{text}", faults.len(), attacks.len());
}

fn run(orders: &Orders, attack: &Attack, number: usize) -> Result<Outcome, (Outcome, String)> {
    let source = Ipv4Addr::new(127, 64, u8::try_from(number / 200).unwrap(), u8::try_from(number % 200 + 1).unwrap());
    let mut client = RawClient::connect_from(orders.gateway.data(), source);
    let mut outcome = Outcome { source, answers: Vec::new(), requests: 0 };
    match judge(orders, attack, &mut client, &mut outcome) {
        Ok(()) => Ok(outcome),
        Err(fault) => Err((outcome, fault)),
    }
}

fn judge(orders: &Orders, attack: &Attack, client: &mut RawClient, outcome: &mut Outcome) -> Result<(), String> {
    let seen = orders.upstream.count();
    let bytes = attack.bytes(&orders.tokens())?;
    client.send(&bytes.sent);
    if bytes.ends {
        client.finish_sending();
    }
    let (method, target) = Attack::request_line(&bytes.sent);
    let open = read_answers(attack, client, &method, outcome)?;
    check_bodies(&outcome.answers)?;
    let got = orders.upstream.since(seen);
    check_upstream(attack, &outcome.answers, &got, &method, &target, &orders.tokens())?;
    if open {
        canary_on_the_same_connection(orders, client, outcome)?;
    }
    canary_on_a_new_connection(orders)
}

/// Reads as many answers as an alternative of the row wants. Answers whether the connection may carry more.
fn read_answers(attack: &Attack, client: &mut RawClient, method: &str, outcome: &mut Outcome) -> Result<bool, String> {
    let most = attack.answers.iter().map(Vec::len).max().unwrap_or_default();
    let mut open = true;
    while open && outcome.answers.len() < most {
        let answer = client.read_for(if outcome.answers.is_empty() { method } else { "GET" }, ANSWER);
        open = matches!(&answer, Ok(reply) if !reply.closes);
        outcome.answers.push(answer);
        let so_far = &outcome.answers;
        if attack.answers.iter().any(|wanted| wanted.len() == so_far.len() && fits(wanted, so_far))
            && most == so_far.len()
        {
            break;
        }
    }
    outcome.requests = outcome.answers.iter().filter(|answer| answer.is_ok()).count().max(1);
    // A sequence may end early where the gateway rightly closed: then the end is no answer of its own.
    if outcome.answers.len() > 1 && matches!(outcome.answers.last(), Some(Err(NoReply::Closed))) {
        outcome.answers.pop();
        open = false;
    }
    let wanted = attack
        .answers
        .iter()
        .find(|wanted| fits(wanted, &outcome.answers))
        .ok_or_else(|| describe(attack, &outcome.answers))?;
    if matches!(wanted.last(), Some(Expected::Status { closes: true, .. })) {
        client.expect_close(ANSWER).map_err(|what| format!("the connection must end: {what}"))?;
        return Ok(false);
    }
    Ok(open)
}

fn fits(wanted: &[Expected], answers: &[Result<Reply, NoReply>]) -> bool {
    wanted.len() == answers.len()
        && wanted.iter().zip(answers).all(|(wanted, answer)| match (wanted, answer) {
            (Expected::Close, Err(NoReply::Closed)) => true,
            (Expected::Status { code, .. }, Ok(reply)) => reply.status == *code,
            _ => false,
        })
}

fn describe(attack: &Attack, answers: &[Result<Reply, NoReply>]) -> String {
    let got: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Ok(reply) => format!("{} {}", reply.status, reply.problem().unwrap_or_default()),
            Err(error) => format!("{error:?}"),
        })
        .collect();
    format!("answered {got:?}, wanted {:?}", attack.answers)
}

/// A refusal is a problem, or a bare status that ends the connection.
fn check_bodies(answers: &[Result<Reply, NoReply>]) -> Result<(), String> {
    for reply in answers.iter().flatten().filter(|reply| reply.status >= 400 && !reply.body.is_empty()) {
        let kind = reply.head.one("content-type").unwrap_or_default();
        if kind != "application/problem+json" || reply.problem().is_none() {
            return Err(format!("a refusal of type {kind:?}: {}", reply.text()));
        }
        if reply.head.one("cache-control") != Some("no-store")
            || !reply.head.has("x-request-id")
            || !reply.head.has("proxy-status")
        {
            return Err(format!("a refusal without its fields: {:?}", reply.head.fields));
        }
    }
    Ok(())
}

fn check_upstream(
    attack: &Attack,
    answers: &[Result<Reply, NoReply>],
    got: &[Recorded],
    method: &str,
    target: &str,
    tokens: &BTreeMap<&str, &Token>,
) -> Result<(), String> {
    if let [Forwarded::Unfinished(allowed)] = &attack.forwarded[..] {
        return check_unfinished(got, allowed);
    }
    let passed: Vec<usize> =
        (0..answers.len()).filter(|at| matches!(&answers[*at], Ok(reply) if reply.status / 100 == 2)).collect();
    if passed.len() != got.len() {
        let heads: Vec<_> = got.iter().map(|request| request.head.start.clone()).collect();
        return Err(format!("{} requests passed, the upstream got {heads:?}", passed.len()));
    }
    for (at, request) in passed.into_iter().zip(got) {
        check_target(attack.forwarded.get(at).unwrap_or(&Forwarded::Nothing), request, method, target)?;
        check_request(request, tokens)?;
    }
    Ok(())
}

fn check_unfinished(got: &[Recorded], allowed: &str) -> Result<(), String> {
    match got {
        [] => Ok(()),
        [one] if !one.complete && one.target() == allowed => Ok(()),
        _ => Err(format!("the upstream got whole requests: {got:?}")),
    }
}

fn check_target(wanted: &Forwarded, request: &Recorded, method: &str, target: &str) -> Result<(), String> {
    let (wanted_method, wanted_target) = match wanted {
        Forwarded::AsSent => (Some(method), target),
        Forwarded::Target(method, target) => (method.as_deref(), target.as_str()),
        Forwarded::Nothing | Forwarded::Unfinished(_) => {
            return Err(format!("the upstream got {}", request.head.start));
        }
    };
    if request.target() != wanted_target || wanted_method.is_some_and(|wanted| wanted != request.method()) {
        return Err(format!(
            "the upstream got {:?}, judged was {wanted_method:?} {wanted_target:?}",
            request.head.start
        ));
    }
    Ok(())
}

/// One Host, no credential, no client's word on identity or override, clean framing.
pub(crate) fn check_request(request: &Recorded, tokens: &BTreeMap<&str, &Token>) -> Result<(), String> {
    if let Some(fault) = &request.fault {
        return Err(format!("what the upstream got is broken: {fault}"));
    }
    if !request.complete || request.head.one("host").is_none() || !request.trailers.is_empty() {
        return Err(format!("not one whole request with one Host and no trailer: {:?}", request.head.fields));
    }
    for (name, value) in &request.head.fields {
        let lower = name.to_ascii_lowercase();
        if OVERRIDES.contains(&lower.as_str()) || LOCAL.contains(&lower.as_str()) || name.contains('_') {
            return Err(format!("the upstream got {name}: {value}"));
        }
    }
    let everything = String::from_utf8_lossy(&request.head.bytes).into_owned();
    if let Some(mark) = MARKS.iter().find(|mark| everything.contains(**mark)) {
        return Err(format!("{mark} reached the upstream: {everything}"));
    }
    if tokens.values().any(|token| everything.contains(token.secret())) {
        return Err("a token reached the upstream".to_owned());
    }
    Ok(())
}

fn canary(orders: &Orders) -> String {
    format!("GET /v1/orders/ca4a12 HTTP/1.1\r\nHost: orders.test\r\n{}\r\n\r\n", orders.reader().header())
}

fn canary_on_the_same_connection(orders: &Orders, client: &mut RawClient, outcome: &mut Outcome) -> Result<(), String> {
    client.send(canary(orders));
    match client.read_for("GET", ANSWER) {
        Ok(reply) if reply.status == 200 && reply.text().contains("ca4a12") => {
            outcome.requests += 1;
            Ok(())
        }
        // Closing after a refusal is the gateway's right.
        Err(NoReply::Closed) => Ok(()),
        other => Err(format!("the canary on the same connection got {other:?}")),
    }
}

fn canary_on_a_new_connection(orders: &Orders) -> Result<(), String> {
    let mut client = RawClient::connect(orders.gateway.data());
    client.send(canary(orders));
    match client.read_for("GET", PATIENCE) {
        Ok(reply) if reply.status == 200 && reply.text().contains("ca4a12") => Ok(()),
        other => Err(format!("the canary got {other:?}")),
    }
}

/// Exactly one event a request, with a reason the row allows.
fn check_events(orders: &Orders, attacks: &[Attack], outcomes: &[Outcome], faults: &mut BTreeMap<String, String>) {
    let total: usize = outcomes.iter().map(|outcome| outcome.requests).sum();
    let of_rows = |event: &Value| event["source"]["ip"].as_str().is_some_and(|ip| ip.starts_with("127.64."));
    let all = || orders.gateway.decisions().into_iter().filter(of_rows).collect::<Vec<_>>();
    let events = within(PATIENCE, || Some(all()).filter(|events| events.len() >= total)).unwrap_or_else(all);
    let mut by_source: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events {
        by_source.entry(event["source"]["ip"].as_str().unwrap_or_default().to_owned()).or_default().push(event);
    }
    for (attack, outcome) in attacks.iter().zip(outcomes) {
        let mut events = by_source.remove(&outcome.source.to_string()).unwrap_or_default();
        // Refusals without a token have a queue of their own: in the file they may stand before an earlier request.
        events.sort_by_key(|event| event["time"].to_string());
        if let Err(fault) = check_row_events(attack, outcome, &events) {
            faults.entry(attack.id.clone()).or_insert(fault);
        }
    }
}

fn check_row_events(attack: &Attack, outcome: &Outcome, events: &[Value]) -> Result<(), String> {
    let reasons: Vec<&str> = events.iter().map(|event| reason(event).unwrap_or("-")).collect();
    if events.len() != outcome.requests {
        return Err(format!("{} requests, audit events {reasons:?}", outcome.requests));
    }
    let allowed = attack
        .reasons
        .iter()
        .any(|wanted| wanted.len() <= reasons.len() && wanted.iter().zip(&reasons).all(|(wanted, got)| wanted == got));
    if !allowed {
        return Err(format!("recorded {reasons:?}, wanted {:?}", attack.reasons));
    }
    for (event, answer) in events.iter().zip(&outcome.answers) {
        let Ok(reply) = answer else { continue };
        let concealed = reply.status == 404;
        if let (Some(problem), Some(reason), false) = (reply.problem(), reason(event), concealed)
            && !same_problem(&problem, reason)
        {
            return Err(format!("problem {problem} for the reason {reason}"));
        }
    }
    Ok(())
}

/// Why a request got the answer it got: what the gateway found wrong after it had let it through, else its decision.
fn reason(event: &Value) -> Option<&str> {
    let is_own = event["response"]["origin"] == "gateway";
    let error = event["response"]["error"].as_str().filter(|error| is_own && *error != "broken_off");
    error.or_else(|| event["decision"]["reason"].as_str())
}

/// The problem types whose name is not the reason's, from the scope language's table.
fn same_problem(problem: &str, reason: &str) -> bool {
    match problem {
        "malformed-request" => reason == "request_malformed",
        "ambiguous-path" => reason == "path_ambiguous",
        "unknown-host" => reason == "host_unknown",
        "credential-required" => reason == "credential_missing",
        "invalid-credential-transport" => reason == "credential_misplaced",
        "invalid-token" => [
            "credential_malformed",
            "token_unknown",
            "token_revoked",
            "token_disabled",
            "token_not_yet_valid",
            "environment_mismatch",
            "source_not_allowed",
        ]
        .contains(&reason),
        "token-expired" => ["token_expired", "token_grace_ended"].contains(&reason),
        "explicit-deny" => ["explicit_deny", "boundary_deny"].contains(&reason),
        "expectation-failed" => reason == "expectation_unsupported",
        other => other.replace('-', "_") == reason,
    }
}

/// P30, P33: no secret in any file, on stderr or in an answer, and no line of the log split by what a client sent.
fn no_secret_got_out(orders: &Orders, outcomes: &[Outcome]) {
    let tokens = orders.tokens();
    let search = LeakSearch::new(tokens.values().copied());
    for (place, bytes) in orders.gateway.written() {
        // The files the test wrote itself hold digests only.
        search.assert_clean(&place, &bytes);
        if place.ends_with("audit.ndjson") {
            let text = String::from_utf8(bytes).expect("audit lines are UTF-8");
            assert!(
                !text.contains(['\u{2028}', '\u{2029}', '\u{7f}', '\u{1b}']),
                "an unescaped separator in the audit file"
            );
        }
    }
    for reply in outcomes.iter().flat_map(|outcome| outcome.answers.iter().flatten()) {
        search.assert_clean("an answer's head", &reply.head.bytes);
        search.assert_clean("an answer's body", &reply.body);
    }
    search.assert_clean("the metrics", orders.gateway.metrics().text().as_bytes());
}
