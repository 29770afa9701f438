//! A new token: held to the policy's rules and to the caller's ceiling, kept, put in force, and its secret told once.

use leastgate_policy::{Accessor, Restrictions, Timestamp};
use leastgate_store::{Change, IssuedToken, NewToken, StateChange, TokenGrant, TokenName, TokenRecord, issue_token};
use serde::Serialize;
use serde_json::json;

use super::changes::check_not_declared;
use super::give::{Holding, check_may_give};
use super::parts::{distinct, limits, networks};
use super::{check_text, no_query, told, view};
use crate::api::{CreateToken, Moment};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::problem::{Kind, Problem};
use crate::replays::Ticket;
use crate::tag::TokenTag;

pub(crate) fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: CreateToken = from_json(call.body)?;
    let ticket = ticket(call)?;
    let _underway = ticket.as_ref().map(|ticket| call.shared.replays.begin(ticket)).transpose()?;
    if let Some(accessor) = ticket.as_ref().map(|ticket| call.shared.replays.made(ticket)).transpose()?.flatten() {
        return replayed(call, accessor, &asked);
    }
    let token = new_token(call, &asked)?;
    check_may_give(call, Holding::from(&token))?;
    let issued = keep(call, &token)?;
    if let Some(ticket) = ticket {
        call.shared.replays.remember(ticket, issued.record.accessor);
    }
    let change = Recorded { reason: reason(&asked), ..recorded(&issued) };
    answer(call, &issued.record, Some(issued.secret.expose()), change)
}

/// A repeated call: what it made the first time, without the secret, which nobody has any more.
fn replayed(call: &Call<'_>, accessor: Accessor, asked: &CreateToken) -> Result<Reply, Problem> {
    let record = call.shared.given.store.token(accessor)?;
    let details = vec![("replayed".to_owned(), "true".to_owned())];
    let change = Recorded { target: Some(accessor.to_string()), reason: reason(asked), durable: Some(true), details };
    answer(call, &record, None, change)
}

/// Why it is made; where nothing was said, its note has to do.
pub(super) fn reason(asked: &CreateToken) -> Option<String> {
    asked.reason.clone().or_else(|| asked.note.clone())
}

pub(super) fn answer(
    call: &Call<'_>,
    record: &TokenRecord,
    secret: Option<&str>,
    change: Recorded,
) -> Result<Reply, Problem> {
    Ok(Reply {
        created_at: Some(format!("/v1/tokens/{}", record.accessor)),
        tag: Some(TokenTag::of(record).to_string()),
        body: with_secret(&json!({"token": view::token(record, record.state, call.shared, call.now)}), secret)?,
        change,
    })
}

/// What `Idempotency-Key` says, if it is there.
pub(super) fn ticket(call: &Call<'_>) -> Result<Option<Ticket>, Problem> {
    let mut keys = call.headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && keys.next().is_none());
    let key = key.ok_or_else(|| {
        Problem::new(Kind::Invalid, "`Idempotency-Key` must be there once, with 1 to 255 visible characters")
    })?;
    // The path goes in: one key for two tokens is not a repetition.
    let asked = [call.uri.path().as_bytes(), b"\n", call.body].concat();
    let body = call.shared.given.authority.key().digest(&asked);
    Ok(Some(Ticket { caller: call.caller.identity, key: key.to_owned(), body }))
}

/// Adds `"secret":"…"` to an object. Secrets can't be serialized, so it is put there by hand, here and where many are made at
/// once; its characters are all plain.
pub(super) fn with_secret(shown: &impl Serialize, secret: Option<&str>) -> Result<Vec<u8>, Problem> {
    let mut body = Reply::json(shown)?.body;
    // The object's closing brace, which comes back behind the secret.
    body.pop();
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

pub(super) fn new_token(call: &Call<'_>, asked: &CreateToken) -> Result<NewToken, Problem> {
    let own = &call.shared.given.environment;
    if let Some(other) = asked.env.as_ref().filter(|env| *env != own) {
        return Err(Problem::new(Kind::Invalid, format!("this gateway serves the environment `{own}`, not `{other}`"))
            .hint("ask the gateway of that environment"));
    }
    check_bait(asked)?;
    for (name, text) in [("owner", &asked.owner), ("note", &asked.note), ("reason", &asked.reason)] {
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
        limits: asked.limits.map(limits).transpose()?.unwrap_or_default(),
        created: call.now,
        created_by: call.caller.subject.clone(),
        expires: expires(call.now, asked)?,
        parent: None,
        is_canary: asked.canary,
        note: asked.note.clone(),
    })
}

/// A bait that opened something would be a gift to whoever finds it.
fn check_bait(asked: &CreateToken) -> Result<(), Problem> {
    if asked.canary && !(asked.roles.is_empty() && asked.scopes.is_empty()) {
        return Err(Problem::new(
            Kind::Invalid,
            "a bait (`canary`) holds nothing: it takes no `roles` and no `scopes`",
        )
        .hint("leave them out; a name, an owner and an end make it look real"));
    }
    Ok(())
}

fn restrictions(asked: &CreateToken) -> Result<Restrictions, Problem> {
    Ok(Restrictions { source_ip: networks(&asked.allow_cidr)?, not_before: asked.not_before.map(|Moment(at)| at) })
}

fn expires(now: Timestamp, asked: &CreateToken) -> Result<Option<Timestamp>, Problem> {
    match (asked.ttl, asked.expires) {
        (Some(_), Some(_)) => Err(Problem::new(Kind::Invalid, "give `ttl` or `expires`, not both")),
        (Some(ttl), None) => Ok(Some(now.plus(ttl.seconds()))),
        (None, Some(Moment(at))) if at <= now => Err(Problem::new(Kind::Invalid, "`expires` lies in the past")),
        (None, expires) => Ok(expires.map(|Moment(at)| at)),
    }
}

/// What gives access goes to the store first.
pub(super) fn keep(call: &Call<'_>, token: &NewToken) -> Result<IssuedToken, Problem> {
    let given = &call.shared.given;
    let _held = call.lock_gift()?;
    let issued = issue_token(&*given.store, &given.environment, given.authority.key(), token)
        .inspect_err(|error| call.shared.refused_new(error))?;
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

/// What is said of a new token. One that was made without a reason of its own has its note for it.
pub(super) fn recorded(issued: &IssuedToken) -> Recorded {
    let record = &issued.record;
    Recorded {
        target: Some(record.accessor.to_string()),
        reason: record.note.clone(),
        durable: Some(true),
        details: told::of_new(record),
    }
}
