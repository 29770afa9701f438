//! `leastgate check`: why a token may do something or may not, asked of the gateway that would decide.

use std::collections::BTreeMap;

use leastgate_admin::api::{CheckRequest, CheckResult};
use leastgate_policy::{Effect, Reason};
use zeroize::Zeroize as _;

use super::{client, token};
use crate::cli::{Check, Global};
use crate::exit::{Exit, Failure};
use crate::output::{self, BAD, BOLD, Format, GOOD, WARN};

pub(super) fn run(global: &Global, arguments: &Check) -> Result<(), Failure> {
    let mut request = CheckRequest {
        token: Some(token(&arguments.token)?),
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: headers(&arguments.headers)?,
        source_ip: arguments.source_ip.map(|address| address.to_string()),
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
    let is_shadowed = result.effect == "allow" && result.granted_by.is_empty() && !is_allow(&result.reason);
    let until = result.until.map(|until| format!(" until {until}")).unwrap_or_default();
    let verdict = match result.effect.as_str() {
        "allow" if is_shadowed => {
            format!("{WARN}ALLOW{WARN:#} (shadow{until}; enforce denies: {})", result.reason)
        }
        "allow" => format!("{GOOD}ALLOW{GOOD:#} {}", result.reason),
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
    if result.effect != "allow" || is_shadowed {
        row("held", &result.held.join(", "));
        row("needed", &result.required_any_of.join(" or "));
        row("unmet", &result.failed_conditions.join(", "));
    }
    if let Some(miss) = &result.nearest_miss {
        let holder = if miss.held { "the token holds" } else { "not held" };
        row("nearest", &format!("{} {} by {} ({holder})", miss.method, miss.path, miss.rule));
    }
    row("limits", &result.limits.map(token::in_words).unwrap_or_default());
    row("fix", &client::in_flags(result.fix.as_deref().unwrap_or_default()));
    lines.join("\n")
}

/// Whether it is a reason to forward a request, not one that shadow mode passes over.
fn is_allow(reason: &str) -> bool {
    Reason::from_name(reason).is_some_and(|reason| reason.effect() == Effect::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_shadow_mode_allows_says_so_and_what_is_missing() {
        let until = "2026-12-06T00:00:00Z";
        let result = serde_json::json!({
            "effect": "allow", "reason": "insufficient_scope", "detail": null, "mode": "shadow", "until": until,
            "status": null, "token": null, "api": "a", "rule": "a:w/allow/POST /x", "rules": [], "template": null,
            "granted_by": [], "required_any_of": ["a:w"], "held": ["a:r"], "failed_conditions": [],
            "nearest_miss": null, "fix": null, "policy_rev": "r",
        });
        let mut result: CheckResult = serde_json::from_value(result).unwrap();
        let said = anstream::adapter::strip_str(&explain(&result)).to_string();
        let first =
            "ALLOW (shadow until 2026-12-06T00:00:00Z; enforce denies: insufficient_scope)   a:w/allow/POST /x\n";
        assert!(said.starts_with(first) && said.contains("held      a:r") && said.contains("needed    a:w"), "{said}");
        result.reason = "scope_granted".to_owned();
        let said = anstream::adapter::strip_str(&explain(&result)).to_string();
        assert!(said.starts_with("ALLOW scope_granted ") && !said.contains("needed"), "{said}");
    }
}
