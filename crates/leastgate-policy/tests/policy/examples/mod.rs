//! §2–§7, sentence by sentence: for each a request and what it comes to. The engine and the reference are both asked,
//! so that they can't agree on something the specification does not say.

mod apis;
mod conditions;
mod identity;
mod methods;
mod paths;
mod protocols;
mod segments;

use crate::engine::Engine;
use crate::notation::Example;
use crate::reference::Judgement;
use crate::reference::decision::judge;

/// A sentence, a request, and its outcome: a reason, `shadowed` before it, and after it rules or scopes if they matter.
type Row = (&'static str, &'static str, &'static str);

fn check(policy: &str, rows: &[Row]) {
    let example = Example::new(policy);
    let engine: Engine = example.engine();
    let mut wrong = Vec::new();
    for (sentence, line, expected) in rows {
        let request = example.request(line);
        let says = [
            ("engine", engine.judge(&request, example.world().now)),
            ("reference", Some(judge(example.world(), &request))),
        ];
        for (who, judgement) in says {
            let told = judgement.map_or("no request at all".to_owned(), |judgement| told(&judgement));
            let meant =
                if expected.contains(' ') && !expected.starts_with("shadowed ") || expected.matches(' ').count() > 1 {
                    told.as_str()
                } else {
                    outcome(&told)
                };
            if meant != *expected {
                wrong.push(format!("{sentence}\n  {line}\n  expected {expected}\n  {who} says {told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn told(judgement: &Judgement) -> String {
    let mut told = String::new();
    if judgement.shadowed.is_some() {
        told.push_str("shadowed ");
    }
    told.push_str(judgement.reason.as_str());
    let details = if judgement.required_any_of.is_empty() { &judgement.rules } else { &judgement.required_any_of };
    if !details.is_empty() {
        told.push(' ');
        told.push_str(&details.join("; "));
    }
    told
}

/// What was told, without the rules.
fn outcome(told: &str) -> &str {
    let words = if told.starts_with("shadowed ") { 2 } else { 1 };
    match told.match_indices(' ').nth(words - 1) {
        Some((at, _)) => &told[..at],
        None => told,
    }
}

/// The tables hold plain texts; a handful of them are made up by the test.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

const WS: &str = "connection: Upgrade | upgrade: websocket | sec-websocket-version: 13";
