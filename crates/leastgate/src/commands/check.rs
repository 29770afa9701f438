//! `leastgate check`: why a token may do something or may not, asked of the gateway that would decide.

use std::collections::BTreeMap;

use leastgate_admin::api::{CheckRequest, CheckResult};
use zeroize::Zeroize as _;

use super::client;
use crate::cli::{Check, Global};
use crate::exit::{Exit, Failure};
use crate::output::{self, BAD, BOLD, Format, GOOD, WARN};

pub(super) fn run(global: &Global, arguments: &Check) -> Result<(), Failure> {
    let mut request = CheckRequest {
        token: Some(token(&arguments.token)?),
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: headers(&arguments.headers)?,
        source_ip: arguments.source_ip.clone(),
    };
    let result = client::connect(global).and_then(|client| Ok(client.check(&request)?));
    request.token.zeroize();
    let result = result?;
    match global.output {
        Format::Json => output::json(&result)?,
        Format::Name => output::data(&result.effect),
        Format::Table => output::data(explain(&result)),
    }
    if result.effect == "allow" { Ok(()) } else { Err(Failure::silent(Exit::No)) }
}

/// A name or an accessor; or the whole token on standard input, so that the gateway judges the very text: that of a
/// forgery has the accessor of a token too.
fn token(given: &str) -> Result<String, Failure> {
    match given {
        "-" => client::token_from_stdin().map(|text| text.as_str().to_owned()),
        name => client::refuse_secret(name).map(|()| name.to_owned()),
    }
}

fn headers(lines: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| Failure::new(Exit::Usage, format!("`{line}` is not a header: write `Name: value`")))?;
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(headers)
}

/// The verdict and its rule in one line, then what is held, needed, and what would help.
fn explain(result: &CheckResult) -> String {
    let verdict = match (result.effect.as_str(), result.mode.as_str()) {
        ("allow", "shadow") => format!("{WARN}ALLOW{WARN:#} {}", result.reason),
        ("allow", _) => format!("{GOOD}ALLOW{GOOD:#} {}", result.reason),
        _ => format!("{BAD}DENY{BAD:#}  {}", result.reason),
    };
    let mut lines =
        vec![format!("{verdict}   {}", result.rule.as_deref().unwrap_or("-")).trim_end_matches([' ', '-']).to_owned()];
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("      {BOLD}{name:<9}{BOLD:#} {value}"));
        }
    };
    row("detail", result.detail.as_deref().unwrap_or_default());
    row("granted", &result.granted_by.join(", "));
    if result.effect != "allow" {
        row("held", &result.held.join(", "));
        row("needed", &result.required_any_of.join(" or "));
        row("unmet", &result.failed_conditions.join(", "));
    }
    if let Some(miss) = &result.nearest_miss {
        let holder = if miss.held { "the token holds" } else { "not held" };
        row("nearest", &format!("{} {} by {} ({holder})", miss.method, miss.path, miss.rule));
    }
    row("fix", result.fix.as_deref().unwrap_or_default());
    lines.join("\n")
}
