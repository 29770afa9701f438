//! Tokens taken from another gateway: all or none, and never one that was taken away here.

use std::collections::HashMap;

use leastgate_policy::{Accessor, Restrictions, TokenDigest, TokenState};
use leastgate_store::draw::made_under;
use leastgate_store::{
    Change, MadeUnder, StateChange, StoreError, Taken, TokenGrant, TokenName, TokenRecord, Tombstone,
};

use super::bulk::{MOST, keep, reserve, tell_each};
use super::changes::check_not_declared;
use super::give::{Holding, check_may_give};
use super::parts::{distinct, limits, networks};
use super::{check_text, detail, no_query, told};
use crate::api::{ExportedToken, ImportTokens, ImportedTokens, Moment};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem};

pub(crate) fn import(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: ImportTokens = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    if !(1..=MOST).contains(&asked.tokens.len()) {
        return Err(Problem::new(Kind::Invalid, "`tokens` has 1 to 10000 of them").hint("take more in several calls"));
    }
    // What is here must stay: with the turn, nothing of it is still to be taken back.
    let held = call.lock_gift()?;
    let Sorted { fresh, unchanged } = sort(call, &asked)?;
    let events = reserve(call, told::of_each(&fresh))?;
    keep(call, &held, &fresh, untakeable).map_err(|problem| named_by(call, &asked, &fresh, problem))?;
    drop(held);
    tell_each(call, "token.import", Some(&asked.reason), events);
    let imported = u64::try_from(fresh.len()).unwrap_or(u64::MAX);
    let details = vec![detail("imported", imported.to_string()), detail("unchanged", unchanged.to_string())];
    let change = Recorded { target: None, reason: Some(asked.reason), durable: Some(true), details };
    Ok(Reply { change, ..Reply::json(&ImportedTokens { imported, unchanged })? })
}

/// What is to be taken, and how many are here already.
#[derive(Debug, Default)]
struct Sorted {
    fresh: Vec<TokenRecord>,
    unchanged: u64,
}

fn sort(call: &Call<'_>, asked: &ImportTokens) -> Result<Sorted, Problem> {
    let mut sorted = Sorted::default();
    let mut seen = HashMap::new();
    for (number, token) in asked.tokens.iter().enumerate() {
        let named = |problem: Problem| problem.about(&item(number, token));
        let record = record(call, token, &asked.reason).map_err(named)?;
        check_may_give(call, Holding::from(&record)).map_err(named)?;
        check_not_seen(&mut seen, number, &record).map_err(named)?;
        if is_here(call, &record).map_err(named)? {
            sorted.unchanged += 1;
            continue;
        }
        sorted.fresh.push(record);
    }
    Ok(sorted)
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

fn item(number: usize, token: &ExportedToken) -> String {
    format!("tokens[{number}] ({})", token.name)
}

/// What the store refuses is said of the token that it is about.
fn named_by(call: &Call<'_>, asked: &ImportTokens, fresh: &[TokenRecord], problem: Problem) -> Problem {
    let store = &call.shared.given.store;
    let is_culprit = |record: &&TokenRecord| match problem.kind {
        Kind::NameTaken => store.find_token(record.name.as_str()).is_ok_and(|held| {
            matches!(held.state, TokenState::Active | TokenState::Disabled) && !held.is_expired(call.now)
        }),
        _ => is_here(call, record).is_err(),
    };
    let culprit =
        matches!(problem.kind, Kind::NameTaken | Kind::Conflict).then(|| fresh.iter().find(is_culprit)).flatten();
    let culprit = culprit.map(|record| record.accessor.to_string());
    let mut items = asked.tokens.iter().enumerate();
    match culprit.and_then(|accessor| items.find(|(_, token)| token.accessor == accessor)) {
        Some((number, token)) => problem.about(&item(number, token)),
        None => problem,
    }
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

/// A second import of the same file changes nothing. What was taken away here stays so, its record purged or not.
fn is_here(call: &Call<'_>, record: &TokenRecord) -> Result<bool, Problem> {
    let store = &call.shared.given.store;
    match store.token(record.accessor) {
        Ok(known) => return same(call, &known, record).map(|()| true),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Asked after the record: a purge between the two is seen.
    if let Some(tombstone) = store.tombstone_of(record.accessor, &record.digest)? {
        return Err(taken_away(&tombstone));
    }
    match call.shared.given.authority.token(&record.digest) {
        Some(other) => Err(Problem::new(
            Kind::Conflict,
            format!("its digest is that of {} here, which is another token by its accessor", other.accessor),
        )
        .hint("import what `leastgate token export` prints, as it is")),
        None => Ok(false),
    }
}

/// Digests of one token differ when one of the two gateways has a new pepper and the token was used there since: they can't be
/// compared then, and what never changes of a token says whether it is the same. Nothing of it is taken from the file.
fn same(call: &Call<'_>, known: &TokenRecord, record: &TokenRecord) -> Result<(), Problem> {
    let conflict = |detail: String, hint: &str| Err(Problem::new(Kind::Conflict, detail).hint(hint));
    if known.digest == record.digest {
        return Ok(());
    }
    let is_other = known.pepper_id == record.pepper_id
        || (&known.name, known.created, known.is_canary) != (&record.name, record.created, record.is_canary);
    if is_other {
        let detail = format!("another token here has the accessor {}: `{}`", known.accessor, known.name);
        return conflict(detail, "import what `leastgate token export` prints, as it is");
    }
    if made_under(&known.pepper_id, call.shared.given.authority.key()) == MadeUnder::Unknown {
        let detail =
            format!("{} is here, kept under a pepper that is not configured, and is not replaced", known.accessor);
        return conflict(detail, "name that pepper as pepper.previous, or create another token");
    }
    Ok(())
}

fn taken_away(tombstone: &Tombstone) -> Problem {
    let Tombstone { accessor, taken } = tombstone;
    let what = match taken {
        Taken::Revoked(at) => format!("{accessor} was revoked here at {}", Moment(*at)),
        Taken::Ended(at) => format!("the end of {accessor} was moved nearer here, to {}", Moment(*at)),
    };
    Problem::new(Kind::Conflict, format!("{what}, and purged since: an import does not bring it back"))
        .hint("leave it out, and create another token")
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
