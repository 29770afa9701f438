//! Many tokens at once, made alike; and what has to be done for many, wherever they come from.

use leastgate_store::draw::draw_token;
use leastgate_store::{NewToken, StoreError, TokenName, TokenRecord};
use leastgate_telemetry::Reservation;

use super::changes::check_not_declared;
use super::give::{Holding, check_may_give};
use super::issue::{new_token, reason};
use super::{detail, no_query, told};
use crate::api::{CreateToken, CreateTokens};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::named;
use crate::problem::{Kind, Problem};
use crate::turn::Held;

/// Tokens of one call.
pub(super) const MOST: usize = 10_000;

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
    keep(call, &call.lock_gift()?, &records, Problem::from)?;
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
pub(super) fn keep(
    call: &Call<'_>,
    _held: &Held<'_>,
    records: &[TokenRecord],
    refused: fn(StoreError) -> Problem,
) -> Result<(), Problem> {
    let given = &call.shared.given;
    let kept = given.store.create_tokens(records.to_vec());
    kept.inspect_err(|error| call.shared.refused_new(error)).map_err(refused)?;
    for record in records {
        // The store has no two digests that begin alike, and the table has the store's.
        call.shared.put_in_force(record).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    }
    Ok(())
}

/// Places on record for the events that name them all: what can't be recorded is not made.
pub(super) fn reserve(call: &Call<'_>, records: usize) -> Result<Vec<Reservation>, Problem> {
    (0..named::events(records)).map(|_| call.reserve()).collect()
}

pub(super) fn tell_each(
    call: &Call<'_>,
    records: &[TokenRecord],
    operation: &str,
    reason: Option<&str>,
    places: Vec<Reservation>,
) {
    for ((of_event, accessors), place) in named::each(records, |record| record.accessor).zip(places) {
        let mut details = vec![accessors];
        details.extend(of_event.iter().map(told::of_many));
        let change = Recorded { target: None, reason: reason.map(str::to_owned), durable: Some(true), details };
        call.tell(operation, &change, Some(place));
    }
}
