//! A new token: held to the policy's rules and to the caller's ceiling, kept, put in force, and its secret told once.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use leastgate_policy::source::parse_network;
use leastgate_policy::{Accessor, IssueRefusal, IssueRequest, PolicySnapshot, Restrictions, Timestamp, TokenLimits};
use leastgate_store::{Change, IssuedToken, NewToken, StateChange, TokenGrant, TokenName, TokenRecord, issue_token};
use serde::Serialize;

use super::changes::check_not_declared;
use super::{check_text, no_query, view};
use crate::api::{CreateToken, Moment, Ttl};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling::{self, Gift};
use crate::problem::{Kind, Problem};
use crate::replays::Ticket;

pub(crate) fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: CreateToken = from_json(call.body)?;
    let ticket = ticket(call)?;
    if let Some(accessor) = ticket.as_ref().map(|ticket| call.shared.replays.made(ticket)).transpose()?.flatten() {
        return replayed(call, accessor);
    }
    let token = new_token(call, &asked)?;
    check_may_issue(call, &token)?;
    let issued = keep(call, &token)?;
    if let Some(ticket) = ticket {
        call.shared.replays.remember(ticket, issued.record.accessor);
    }
    answer(call, &issued.record, Some(issued.secret.expose()), recorded(&issued))
}

/// A repeated call: what it made the first time, without the secret, which nobody has any more.
fn replayed(call: &Call<'_>, accessor: Accessor) -> Result<Reply, Problem> {
    let record = call.shared.given.store.token(accessor)?;
    let details = vec![("replayed".to_owned(), "true".to_owned())];
    let change = Recorded { target: Some(accessor.to_string()), reason: None, durable: Some(true), details };
    answer(call, &record, None, change)
}

fn answer(call: &Call<'_>, record: &TokenRecord, secret: Option<&str>, change: Recorded) -> Result<Reply, Problem> {
    Ok(Reply {
        created_at: Some(format!("/v1/tokens/{}", record.accessor)),
        version: Some(record.version),
        body: with_secret(
            "token",
            &view::token(record, record.state, call.shared.given.authority.snapshot().as_deref(), call.now),
            secret,
        )?,
        change,
    })
}

/// What `Idempotency-Key` says, if it is there.
fn ticket(call: &Call<'_>) -> Result<Option<Ticket>, Problem> {
    let mut keys = call.headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && keys.next().is_none());
    let key = key.ok_or_else(|| {
        Problem::new(Kind::Invalid, "`Idempotency-Key` must be there once, with 1 to 255 visible characters")
    })?;
    let body = call.shared.given.authority.key().digest(call.body);
    Ok(Some(Ticket { caller: call.caller.identity, key: key.to_owned(), body }))
}

/// Writes `{"<kind>":…,"secret":"…"}`: the one place where a secret goes onto a wire. Secrets can't be serialized,
/// so it is put there by hand; its characters are all plain.
pub(super) fn with_secret(kind: &str, shown: &impl Serialize, secret: Option<&str>) -> Result<Vec<u8>, Problem> {
    let shown = Reply::json(shown)?.body;
    let mut body = Vec::with_capacity(shown.len() + secret.map_or(0, str::len) + 32);
    body.extend_from_slice(format!("{{\"{kind}\":").as_bytes());
    body.extend_from_slice(&shown);
    body.extend_from_slice(b",\"secret\":");
    match secret {
        None => body.extend_from_slice(b"null"),
        Some(secret) => {
            body.push(b'"');
            body.extend_from_slice(secret.as_bytes());
            body.push(b'"');
        }
    }
    body.push(b'}');
    Ok(body)
}

fn new_token(call: &Call<'_>, asked: &CreateToken) -> Result<NewToken, Problem> {
    let own = &call.shared.given.environment;
    if let Some(other) = asked.env.as_ref().filter(|env| *env != own) {
        return Err(Problem::new(Kind::Invalid, format!("this gateway serves the environment `{own}`, not `{other}`"))
            .hint("ask the gateway of that environment"));
    }
    for (name, text) in [("owner", &asked.owner), ("note", &asked.note)] {
        text.as_deref().map_or(Ok(()), |text| check_text(name, text))?;
    }
    Ok(NewToken {
        name: TokenName::parse(&asked.name).map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?,
        owner: asked.owner.clone(),
        roles: distinct("roles", &asked.roles)?,
        grants: distinct("scopes", &asked.scopes)?
            .into_iter()
            .map(|scope| TokenGrant { scope, expires: None, reason: None })
            .collect(),
        restrictions: restrictions(asked)?,
        limits: TokenLimits::default(),
        created: call.now,
        created_by: call.caller.subject.clone(),
        expires: expires(call.now, asked)?,
        parent: None,
        is_canary: false,
        note: asked.note.clone(),
    })
}

/// Names as a set: sorted, and none twice.
fn distinct(field: &str, names: &[String]) -> Result<Vec<String>, Problem> {
    let mut sorted = names.to_vec();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Problem::new(Kind::Invalid, format!("`{field}` has `{}` twice", pair[0]))),
        None => Ok(sorted),
    }
}

fn restrictions(asked: &CreateToken) -> Result<Restrictions, Problem> {
    Ok(Restrictions {
        source_ip: asked.allow_cidr.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
        not_before: asked.not_before.map(|Moment(at)| at),
    })
}

/// As in the policy's files; one address may also be written without its prefix.
fn network(text: &str) -> Result<IpNet, Problem> {
    let one = text.parse::<IpAddr>().map(|address| IpNet::from(address).to_string());
    parse_network(one.as_deref().unwrap_or(text))
        .map_err(|error| Problem::new(Kind::Invalid, format!("`allow_cidr`: `{text}` {error}")))
}

fn expires(now: Timestamp, asked: &CreateToken) -> Result<Option<Timestamp>, Problem> {
    match (asked.ttl, asked.expires) {
        (Some(_), Some(_)) => Err(Problem::new(Kind::Invalid, "give `ttl` or `expires`, not both")),
        (Some(ttl), None) => Ok(Some(now.plus(ttl.seconds()))),
        (None, Some(Moment(at))) if at <= now => Err(Problem::new(Kind::Invalid, "`expires` lies in the past")),
        (None, expires) => Ok(expires.map(|Moment(at)| at)),
    }
}

/// The policy's rules first, because they bind everybody; then the caller's own ceiling.
fn check_may_issue(call: &Call<'_>, token: &NewToken) -> Result<(), Problem> {
    let roles: Vec<&str> = token.roles.iter().map(String::as_str).collect();
    let scopes: Vec<&str> = token.grants.iter().map(|grant| grant.scope.as_str()).collect();
    let policy = call.shared.policy()?;
    let request = IssueRequest {
        owner: token.owner.as_deref(),
        roles: &roles,
        grants: &scopes.iter().map(|scope| (*scope, None)).collect::<Vec<_>>(),
        from: call.now,
        expires: token.expires,
    };
    check_rules(&policy, &request)?;
    let life = token.expires.map(|end| end.since(call.now));
    let gift = Gift { environment: &call.shared.given.environment, roles: &token.roles, scopes: &scopes, life };
    ceiling::check(&call.caller.may_grant, &gift)
}

/// Whether the policy in force permits such a token. All that it breaks is told at once.
pub(super) fn check_rules(policy: &PolicySnapshot, request: &IssueRequest<'_>) -> Result<(), Problem> {
    let refusals = policy.refusals(request);
    if refusals.is_empty() {
        return Ok(());
    }
    let scopes: Vec<&str> = request.grants.iter().map(|(scope, _)| *scope).collect();
    // Roles and scopes that are not there set no limit.
    let longest = policy.longest_life(request.roles, &scopes).or_else(|_| policy.longest_life(&[], &[]));
    let longest = longest.ok().flatten().map(|(life, by)| (Ttl::from(life), by));
    let details: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let hints: Vec<String> = refusals.iter().map(|refusal| hint(refusal, longest.as_ref())).collect();
    Err(Problem::new(Kind::TokenRules, details.join("; ")).hint(hints.join("; ")))
}

fn hint(refusal: &IssueRefusal, longest: Option<&(Ttl, Arc<str>)>) -> String {
    let has = |kind: &str, known: &[String]| match known {
        [] => format!("the policy in force has no {kind}s"),
        _ => format!("the policy in force has the {kind}s: {}", known.join(", ")),
    };
    match (refusal, longest) {
        (IssueRefusal::UnknownRole { known, .. }, _) => has("role", known),
        (IssueRefusal::UnknownScope { known, .. }, _) => has("scope", known),
        (IssueRefusal::OwnerRequired, _) => "give an `owner`".to_owned(),
        (IssueRefusal::ExpiryRequired | IssueRefusal::TooLong { .. }, Some((ttl, by))) => {
            format!("give a `ttl` of at most {ttl}, which `{by}` sets")
        }
        (IssueRefusal::ExpiryRequired | IssueRefusal::TooLong { .. }, None) => "give a `ttl`, such as 90d".to_owned(),
        (IssueRefusal::EndsBeforeItBegins, _) => "give an `expires` that lies ahead".to_owned(),
    }
}

/// What gives access goes to the store first.
fn keep(call: &Call<'_>, token: &NewToken) -> Result<IssuedToken, Problem> {
    let given = &call.shared.given;
    let _held = call.shared.lock_gift()?;
    let issued = issue_token(&*given.store, &given.environment, given.authority.key(), token)?;
    if let Err(collision) = call.shared.put_in_force(&issued.record) {
        // One in 2^64: nobody gets the secret, so nothing is lost by taking the record back.
        let change = StateChange {
            change: Change::Revoke,
            reason: collision.to_string(),
            by: call.caller.subject.clone(),
            at: call.now,
        };
        given.store.change_state(issued.record.accessor, change, None)?;
        return Err(Problem::new(Kind::Overloaded, collision.to_string()).hint("try again"));
    }
    Ok(issued)
}

fn recorded(issued: &IssuedToken) -> Recorded {
    let record = &issued.record;
    let detail = |name: &str, value: String| (name.to_owned(), value);
    let mut details = vec![
        detail("name", record.name.to_string()),
        detail("owner", record.owner.clone().unwrap_or_default()),
        detail("roles", record.roles.join(" ")),
        detail("scopes", record.grants.iter().map(|grant| grant.scope.as_str()).collect::<Vec<_>>().join(" ")),
        detail("state.after", record.state.as_str().to_owned()),
    ];
    details.extend(record.expires.map(|end| detail("expires", Moment(end).to_string())));
    Recorded { target: Some(record.accessor.to_string()), reason: record.note.clone(), durable: Some(true), details }
}
