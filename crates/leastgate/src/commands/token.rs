//! `leastgate token`: making, listing, showing and ending tokens.

mod declare;
mod life;
mod many;
mod namesakes;

use leastgate_admin::api::{CreateToken, LastUseView, LimitsRequest, LimitsView, TokenChanged, TokenUsage, TokenView};
use leastgate_admin::client::{Answered, Client, ListTokens};

use super::client::{self, Handover};
use crate::cli::{self, Global, Token, TokenChange, TokenCreate, TokenRevoke};
use crate::exit::Failure;
use crate::output::{self, DIM, Format};

/// Tokens asked for at a time.
const PAGE: u32 = 200;

pub(super) fn run(global: &Global, command: Token) -> Result<(), Failure> {
    match command {
        Token::Create(arguments) if arguments.declare => declare::run(global, &arguments),
        Token::Create(arguments) => create(global, &arguments),
        Token::List(arguments) => list(global, &arguments),
        Token::Show { token } => {
            let token = client::subject(&token)?;
            show(global, &client::connect(global)?.token(&token)?)
        }
        Token::Rotate(arguments) => life::rotate(global, &arguments),
        Token::Revoke(arguments) => revoke(global, arguments),
        Token::Disable(arguments) => change(global, &arguments, "Disable", Client::disable_token),
        Token::Enable(arguments) => {
            change(global, &TokenChange { yes: true, ..arguments }, "Enable", Client::enable_token)
        }
        Token::Grant(arguments) => life::grant(global, &arguments),
        Token::Restrict(arguments) => life::restrict(global, &arguments),
        Token::Edit(arguments) => life::edit(global, &arguments),
        Token::Export => many::export(global),
        Token::Import(arguments) => many::import(global, &arguments),
        Token::Usage { token } => {
            let token = client::subject(&token)?;
            usage(global, &client::connect(global)?.usage(&token)?)
        }
    }
}

fn create(global: &Global, arguments: &TokenCreate) -> Result<(), Failure> {
    let request = CreateToken {
        name: arguments.name.clone(),
        env: None,
        owner: arguments.owner.clone(),
        roles: arguments.roles.clone(),
        scopes: arguments.scopes.clone(),
        ttl: arguments.ttl.as_deref().map(|text| client::ttl("--ttl", text)).transpose()?,
        expires: None,
        allow_cidr: arguments.allow_cidrs.clone(),
        not_before: arguments.not_before.as_deref().map(client::moment).transpose()?,
        limits: limits(arguments),
        note: arguments.note.clone(),
        canary: arguments.canary,
        reason: arguments.reason.clone(),
    };
    if let Some(count) = arguments.count {
        return many::create(global, &request, count, arguments.secret_file.as_deref());
    }
    let client = client::connect(global)?;
    let if_lost = format!("revoke it with `leastgate token revoke {} --reason lost`", arguments.name);
    let handover = Handover::prepare(global, arguments.secret_file.as_deref(), if_lost)?;
    let issued = client.create_token(&request)?;
    if issued.token.canary {
        output::note("this token is a bait: leave it where only somebody who should not be there finds it");
    } else if issued.token.roles.is_empty() && issued.token.grants.is_empty() {
        output::warn("this token holds no role and no scope: it may use public rules alone");
    }
    handover.give(global, &issued.token, issued.secret.expose())
}

/// What was asked for, if anything was.
fn limits(arguments: &TokenCreate) -> Option<LimitsRequest> {
    let TokenCreate { rate, burst, concurrent, .. } = *arguments;
    let limits = LimitsRequest { rate, burst, concurrent };
    (limits != LimitsRequest::default()).then_some(limits)
}

/// As a sentence would have them.
pub(super) fn in_words(limits: LimitsView) -> String {
    let LimitsView { rate, burst, concurrent } = limits;
    let words = [
        rate.map(|rate| format!("{rate} a second")),
        rate.map(|rate| format!("{} at once", burst.unwrap_or(rate))),
        concurrent.map(|most| format!("{most} under way")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn list(global: &Global, arguments: &cli::TokenList) -> Result<(), Failure> {
    let client = client::connect(global)?;
    let unused_since =
        arguments.unused_since.as_deref().map(|text| client::past("--unused-since", text)).transpose()?;
    let created_before =
        arguments.created_before.as_deref().map(|text| client::past("--created-before", text)).transpose()?;
    let mut tokens: Vec<TokenView> = Vec::new();
    let mut cursor = None;
    loop {
        let page = client.tokens(&ListTokens {
            limit: Some(PAGE),
            cursor,
            state: arguments.state.map(|state| state.as_str().to_owned()),
            owner: arguments.owner.clone(),
            pepper: arguments.pepper.map(|pepper| pepper.as_str().to_owned()),
            sort: None,
            unused_since,
            created_before,
        })?;
        tokens.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match global.output {
        Format::Json => return output::json(&tokens),
        Format::Name => tokens.iter().for_each(|token| output::data(&token.name)),
        Format::Table if tokens.is_empty() => output::note("no tokens"),
        Format::Table => {
            let rows = tokens.iter().map(|token| {
                vec![
                    token.name.clone(),
                    token.accessor.clone(),
                    token.state.clone(),
                    holdings(token),
                    token.owner.clone().unwrap_or_else(|| "-".into()),
                    token.expires.map_or_else(|| "never".into(), |end| end.to_string()),
                    token.last_used.as_ref().map_or_else(|| "-".into(), |last| last.at.to_string()),
                ]
            });
            let head = ["NAME", "ACCESSOR", "STATE", "HOLDS", "OWNER", "EXPIRES", "LAST USED"];
            output::data(output::table(&head, rows.collect()));
        }
    }
    Ok(())
}

fn holdings(token: &TokenView) -> String {
    if token.canary {
        return "(a bait)".into();
    }
    let all: Vec<String> = [marked(token, roles(token)), marked(token, scopes(token))].concat();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

fn roles(token: &TokenView) -> impl Iterator<Item = &str> {
    token.roles.iter().map(String::as_str)
}

fn scopes(token: &TokenView) -> impl Iterator<Item = &str> {
    token.grants.iter().map(|grant| grant.scope.as_str())
}

/// Names a token holds; those that give it nothing say so.
fn marked<'a>(token: &TokenView, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mark = |name: &str| {
        let is_known = !token.not_in_policy.iter().any(|lost| lost == name);
        if is_known { name.to_owned() } else { format!("{name} (not in the policy)") }
    };
    names.map(mark).collect()
}

fn show(global: &Global, token: &TokenView) -> Result<(), Failure> {
    match global.output {
        Format::Json => return output::json(token),
        Format::Name => output::data(&token.name),
        Format::Table => {
            let row = |name: &str, value: String| {
                if !value.is_empty() {
                    output::data(format_args!("{DIM}{name:<12}{DIM:#} {value}"));
                }
            };
            row("name", token.name.clone());
            row("accessor", token.accessor.clone());
            row("environment", token.env.clone());
            row("state", token.state.clone());
            row("canary", if token.canary { "a bait: any use of it is an alarm".into() } else { String::new() });
            row("owner", token.owner.clone().unwrap_or_default());
            row("roles", marked(token, roles(token)).join(", "));
            row("scopes", marked(token, scopes(token)).join(", "));
            row("source_ip", token.restrictions.source_ip.join(", "));
            row("not_before", token.restrictions.not_before.map(|start| start.to_string()).unwrap_or_default());
            row("limits", in_words(token.limits));
            row("created", token.created.map(|at| at.to_string()).unwrap_or_default());
            row("created by", token.created_by.clone().unwrap_or_default());
            row("expires", token.expires.map_or_else(|| "never".into(), |end| end.to_string()));
            if let Some(change) = &token.state_changed {
                row("changed", format!("{} by {} at {}: {}", change.change, change.by, change.at, change.reason));
            }
            row("pepper", token.pepper.clone().unwrap_or_default());
            row("last used", token.last_used.as_ref().map(last_used).unwrap_or_default());
            row("note", token.note.clone().unwrap_or_default());
        }
    }
    Ok(())
}

fn last_used(last: &LastUseView) -> String {
    let source = last.source.as_ref().map(|source| format!(" from {source}")).unwrap_or_default();
    let rule = last.rule.as_ref().map(|rule| format!(", {rule}")).unwrap_or_default();
    format!("{}{source}{rule}", last.at)
}

fn revoke(global: &Global, arguments: TokenRevoke) -> Result<(), Failure> {
    match &arguments.token {
        None => many::revoke(global, &arguments),
        Some(token) => {
            let one = TokenChange { token: token.clone(), reason: arguments.reason, yes: arguments.yes };
            change(global, &one, "Revoke", Client::revoke_token)
        }
    }
}

type Change = fn(&Client, &str, &str) -> Answered<TokenChanged>;

fn change(global: &Global, arguments: &TokenChange, verb: &str, change: Change) -> Result<(), Failure> {
    let token = client::subject(&arguments.token)?;
    client::confirm(&format!("{verb} token {token}?"), arguments.yes)?;
    let changed = change(&client::connect(global)?, &token, &arguments.reason)?;
    match global.output {
        Format::Json => output::json(&changed)?,
        Format::Name => output::data(&changed.name),
        Format::Table => output::data(format_args!(
            "{} ({}) is {}{}",
            changed.name,
            changed.accessor,
            changed.state,
            cut(changed.streams_cut)
        )),
    }
    namesakes::tell(&changed.name, &changed.also, &format!("is {}", changed.state));
    match verb {
        "Enable" => namesakes::warn_of_disabled(&changed.name, &changed.in_grace),
        _ => namesakes::warn(&changed.name, &changed.in_grace, &verb.to_lowercase()),
    }
    client::warn_unless(changed.durable);
    if !changed.streams_cut_complete {
        output::warn("more of its requests may still be open; the gateway's log says why");
    }
    Ok(())
}

/// What a change did to requests under way.
fn cut(requests: u64) -> String {
    match requests {
        0 => String::new(),
        1 => "; 1 open request was cut".into(),
        requests => format!("; {requests} open requests were cut"),
    }
}

fn usage(global: &Global, usage: &TokenUsage) -> Result<(), Failure> {
    match global.output {
        Format::Json => return output::json(usage),
        Format::Name => usage.rules.iter().for_each(|rule| output::data(&rule.rule)),
        Format::Table if usage.rules.is_empty() => output::note(format_args!("{} was not used", usage.name)),
        Format::Table => {
            let rows = usage.rules.iter().map(|rule| {
                let source = rule.last_source.clone().unwrap_or_else(|| "-".into());
                vec![rule.rule.clone(), rule.count.to_string(), rule.last_used.to_string(), source]
            });
            output::data(output::table(&["RULE", "COUNT", "LAST USED", "FROM"], rows.collect()));
        }
    }
    if !usage.complete {
        output::warn("the store could not be written; the last uses are missing");
    }
    Ok(())
}
