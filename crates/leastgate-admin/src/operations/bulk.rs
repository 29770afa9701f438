//! Many tokens at once: made alike, handed to another gateway, and taken from one.

use std::collections::HashMap;

use leastgate_policy::{Accessor, Restrictions, TokenDigest, TokenState};
use leastgate_store::MadeUnder;
use leastgate_store::draw::{draw_token, made_under};
use leastgate_store::{
    Change, MAX_PAGE, NewToken, SortKey, StateChange, StateFilter, StoreError, TimeFilter, TokenGrant, TokenName,
    TokenQuery, TokenRecord,
};
use leastgate_telemetry::Reservation;
use serde::Deserialize;
use utoipa::IntoParams;

use super::changes::check_not_declared;
use super::give::{Holding, check_may_give};
use super::issue::{new_token, reason};
use super::parts::{distinct, limits, networks};
use super::{check_text, detail, no_query, told, view};
use crate::api::{CreateToken, CreateTokens, ExportedToken, ExportedTokens, ImportTokens, ImportedTokens, Moment};
use crate::call::{Call, Change as Recorded, Reply, from_json, from_query};
use crate::ceiling;
use crate::problem::{Kind, Problem};

/// Tokens of one call.
const MOST: usize = 10_000;

pub(crate) fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: CreateTokens = from_json(call.body)?;
    if !(1..=MOST).contains(&(asked.count as usize)) {
        return Err(Problem::new(Kind::Invalid, "`count` is from 1 to 10000").hint("make more in several calls"));
    }
    let model = new_token(call, &asked.token)?;
    check_may_give(call, Holding::from(&model))?;
    let (first, count) = (asked.first.unwrap_or(1), asked.count);
    let Some(last) = first.checked_add(count - 1) else {
        return Err(Problem::new(Kind::Invalid, "`first` and `count` lead beyond 4294967295"));
    };
    let given = &call.shared.given;
    // `{"items":[{"accessor":…,"name":…,"secret":…},…]}`, by hand because a secret can't be serialized.
    let mut body = Vec::with_capacity(asked.count as usize * 180);
    body.extend_from_slice(b"{\"items\":[");
    let mut records = Vec::with_capacity(asked.count as usize);
    for number in first..=last {
        let name = numbered(&asked.token, number)?;
        let (record, secret) =
            draw_token(&given.environment, given.authority.key(), NewToken { name, ..model.clone() })?;
        if !records.is_empty() {
            body.push(b',');
        }
        push_item(&mut body, &record, secret.expose());
        records.push(record);
    }
    let places = reserve(call, records.len())?;
    keep(call, &records, Problem::from)?;
    body.extend_from_slice(b"]}");
    let mut details =
        vec![detail("name", format!("{}-{first} and on", asked.token.name)), detail("count", count.to_string())];
    details.extend(records.first().into_iter().flat_map(told::holdings));
    let reason = reason(&asked.token);
    tell_each(call, &records, "token.create", reason.as_deref(), places);
    let change = Recorded { target: None, reason, durable: Some(true), details };
    Ok(Reply { created_at: Some("/v1/tokens".to_owned()), tag: None, body, change })
}

fn numbered(token: &CreateToken, number: u32) -> Result<TokenName, Problem> {
    TokenName::parse(&format!("{}-{number}", token.name))
        .map_err(|error| Problem::new(Kind::Invalid, error.to_string()))
}

fn push_item(body: &mut Vec<u8>, record: &TokenRecord, secret: &str) {
    for part in [
        "{\"accessor\":\"",
        &record.accessor.to_string(),
        "\",\"name\":\"",
        record.name.as_str(),
        "\",\"secret\":\"",
        secret,
        "\"}",
    ] {
        body.extend_from_slice(part.as_bytes());
    }
}

/// The store first, all or none; then in force.
fn keep(call: &Call<'_>, records: &[TokenRecord], refused: fn(StoreError) -> Problem) -> Result<(), Problem> {
    let given = &call.shared.given;
    let _held = call.lock_gift()?;
    given.store.create_tokens(records.to_vec()).map_err(refused)?;
    for record in records {
        // The store has no two digests that begin alike, and the table has the store's.
        call.shared.put_in_force(record).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    }
    Ok(())
}

/// Accessors that one event names.
const EVENT: usize = 500;

/// Places on record for the events that name them all: what can't be recorded is not made.
fn reserve(call: &Call<'_>, records: usize) -> Result<Vec<Reservation>, Problem> {
    (0..records.div_ceil(EVENT)).map(|_| call.reserve()).collect()
}

fn tell_each(
    call: &Call<'_>,
    records: &[TokenRecord],
    operation: &str,
    reason: Option<&str>,
    places: Vec<Reservation>,
) {
    for (batch, place) in records.chunks(EVENT).zip(places) {
        let accessors: Vec<String> = batch.iter().map(|record| record.accessor.to_string()).collect();
        let mut details = vec![detail("accessors", accessors.join(" "))];
        details.extend(batch.iter().map(told::of_many));
        let change = Recorded { target: None, reason: reason.map(str::to_owned), durable: Some(true), details };
        call.tell(operation, &change, Some(place));
    }
}

/// The query of `GET /v1/exports`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
}

/// Digests are worth nothing without the pepper; all the same they are for administrators alone.
pub(crate) fn export(call: &Call<'_>) -> Result<Reply, Problem> {
    check_not_declared(call, None)?;
    let ExportQuery { cursor } = from_query(call.uri)?;
    let query = TokenQuery {
        state: Some(StateFilter::Active),
        owner: None,
        pepper: None,
        times: TimeFilter::default(),
        is_for_review: false,
        sort: SortKey::Created,
        limit: MAX_PAGE,
        cursor,
        now: call.now,
    };
    let page = call.shared.given.store.list_tokens(&query)?;
    // Who stands in for another one ends with a command over there.
    let items =
        page.items.iter().filter(|record| record.parent.is_none()).map(|record| exported(call, record)).collect();
    Reply::json(&ExportedTokens { items, next_cursor: page.next_cursor })
}

fn exported(call: &Call<'_>, record: &TokenRecord) -> ExportedToken {
    let shown = view::token(record, record.state, call.shared, record.created);
    ExportedToken {
        accessor: shown.accessor,
        name: shown.name,
        env: shown.env,
        digest: record.digest.to_string(),
        pepper_id: record.pepper_id.clone(),
        owner: shown.owner,
        roles: shown.roles,
        grants: shown.grants,
        restrictions: shown.restrictions,
        limits: shown.limits,
        created: Moment(record.created),
        expires: shown.expires,
        canary: record.is_canary,
        note: shown.note,
    }
}

pub(crate) fn import(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: ImportTokens = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    if !(1..=MOST).contains(&asked.tokens.len()) {
        return Err(Problem::new(Kind::Invalid, "`tokens` has 1 to 10000 of them").hint("take more in several calls"));
    }
    let mut fresh = Vec::with_capacity(asked.tokens.len());
    let mut unchanged = 0;
    let mut seen = HashMap::new();
    for (number, token) in asked.tokens.iter().enumerate() {
        let named = |problem: Problem| problem.about(&format!("tokens[{number}] ({})", token.name));
        let record = record(call, token, &asked.reason).map_err(named)?;
        check_may_give(call, Holding::from(&record)).map_err(named)?;
        check_not_seen(&mut seen, number, &record).map_err(named)?;
        if is_here(call, &record).map_err(named)? {
            unchanged += 1;
        } else {
            fresh.push(record);
        }
    }
    let places = reserve(call, fresh.len())?;
    keep(call, &fresh, untakeable)?;
    tell_each(call, &fresh, "token.import", Some(&asked.reason), places);
    let imported = u64::try_from(fresh.len()).unwrap_or(u64::MAX);
    let details = vec![detail("imported", imported.to_string()), detail("unchanged", unchanged.to_string())];
    let change = Recorded { target: None, reason: Some(asked.reason), durable: Some(true), details };
    Ok(Reply { change, ..Reply::json(&ImportedTokens { imported, unchanged })? })
}

/// Two of one body that can't both be taken; `seen` knows whose an accessor, a name or a digest is.
fn check_not_seen(
    seen: &mut HashMap<(&'static str, String), usize>,
    number: usize,
    record: &TokenRecord,
) -> Result<(), Problem> {
    let TokenRecord { accessor, name, digest, .. } = record;
    for (what, own) in [("accessor", accessor.to_string()), ("name", name.to_string()), ("digest", digest.to_string())]
    {
        if let Some(first) = seen.insert((what, own), number) {
            let problem = Problem::new(Kind::Invalid, format!("it has the {what} of tokens[{first}]"));
            return Err(problem.hint("leave one of the two out: no token was taken"));
        }
    }
    Ok(())
}

/// What was drawn elsewhere is not drawn again: another attempt would end as this one.
fn untakeable(error: StoreError) -> Problem {
    match error {
        StoreError::AlreadyDrawn => Problem::new(
            Kind::Conflict,
            "another token here has the accessor or the digest of one of them: none was taken",
        )
        .hint("leave out what is here already, under whatever name: `leastgate token list` shows accessors"),
        error => error.into(),
    }
}

/// A second import of the same file changes nothing. What was revoked here stays so.
fn is_here(call: &Call<'_>, record: &TokenRecord) -> Result<bool, Problem> {
    match call.shared.given.store.token(record.accessor) {
        Ok(known) if known.digest == record.digest => Ok(true),
        Ok(_) => Err(Problem::new(Kind::Conflict, "another token here has this accessor")),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn record(call: &Call<'_>, token: &ExportedToken, reason: &str) -> Result<TokenRecord, Problem> {
    let given = &call.shared.given;
    let invalid = |detail: String| Problem::new(Kind::Invalid, detail);
    if token.env != given.environment {
        let detail =
            format!("it is of the environment `{}`, and this gateway serves `{}`", token.env, given.environment);
        return Err(invalid(detail).hint("a token works in its own environment only: create another one here"));
    }
    if made_under(&token.pepper_id, given.authority.key()) == MadeUnder::Unknown {
        return Err(invalid(
            "its digest was made with another pepper, so it would never be recognized here".to_owned(),
        )
        .hint("give both gateways the same pepper, or create another token here"));
    }
    for (name, text) in [("owner", &token.owner), ("note", &token.note)] {
        text.as_deref().map_or(Ok(()), |text| check_text(name, text))?;
    }
    if token.created.0 > call.now {
        return Err(invalid("`created` lies ahead".to_owned()));
    }
    if token.canary && !(token.roles.is_empty() && token.grants.is_empty()) {
        return Err(invalid("a bait holds nothing".to_owned()));
    }
    let scopes: Vec<String> = token.grants.iter().map(|grant| grant.scope.clone()).collect();
    distinct("grants", &scopes)?;
    for grant in &token.grants {
        grant.reason.as_deref().map_or(Ok(()), |reason| check_text("reason", reason))?;
    }
    // So are all that are drawn: what people type is a name or an accessor, and never both.
    if !token.accessor.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(invalid("an accessor has an upper-case letter".to_owned()));
    }
    let grants = token.grants.iter().map(|grant| {
        let expires = grant.expires.map(|Moment(at)| at);
        TokenGrant { scope: grant.scope.clone(), expires, reason: grant.reason.clone() }
    });
    Ok(TokenRecord {
        accessor: token.accessor.parse::<Accessor>().map_err(|error| invalid(error.to_string()))?,
        digest: TokenDigest::parse(&token.digest).map_err(|error| invalid(error.to_string()))?,
        name: TokenName::parse(&token.name).map_err(|error| invalid(error.to_string()))?,
        env: token.env.clone(),
        owner: token.owner.clone(),
        roles: distinct("roles", &token.roles)?,
        grants: grants.collect(),
        restrictions: Restrictions {
            source_ip: networks(&token.restrictions.source_ip)?,
            not_before: token.restrictions.not_before.map(|Moment(at)| at),
        },
        limits: limits(token.limits)?,
        created: token.created.0,
        created_by: call.caller.subject.clone(),
        expires: token.expires.map(|Moment(at)| at),
        state: TokenState::Active,
        // Its life here begins now: nobody could use it before, and it is not idle for that.
        state_changed: Some(StateChange {
            change: Change::Enable,
            reason: reason.to_owned(),
            by: call.caller.subject.clone(),
            at: call.now,
        }),
        pepper_id: token.pepper_id.clone(),
        successor: None,
        parent: None,
        is_canary: token.canary,
        note: token.note.clone(),
        last_use: None,
        version: 1,
    })
}
