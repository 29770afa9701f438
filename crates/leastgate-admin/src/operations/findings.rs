//! Findings about the life of tokens: those that should have been rotated, and those that end soon.

use leastgate_policy::Timestamp;
use leastgate_store::{SortKey, StateFilter, TimeFilter, TokenQuery, TokenRecord};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Object;

use super::one_of;
use super::status::SOON;
use crate::api::{Finding, FindingList, Moment, Ttl};
use crate::call::{Call, Reply, from_query};
use crate::problem::{Kind, Problem};
use crate::state::Tokens;

/// The query of `GET /v1/findings`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindingQuery {
    /// Those of this type.
    #[serde(rename = "type")]
    #[param(schema_with = types)]
    kind: Option<String>,
}

/// What finds, by type.
type Find = fn(&Call<'_>) -> Result<(Vec<Finding>, bool), Problem>;

const TYPES: [(&str, Find); 2] = [("overdue_rotation", overdue), ("expiring", expiring)];

fn types() -> Object {
    one_of(TYPES.map(|(name, _)| name))
}

pub(crate) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let FindingQuery { kind } = from_query(call.uri)?;
    if let Some(kind) = kind.as_deref().filter(|kind| !TYPES.iter().any(|(known, _)| known == kind)) {
        let known = TYPES.map(|(known, _)| known).join(" or ");
        return Err(Problem::new(Kind::Invalid, format!("`type` is {known}, not `{kind}`")));
    }
    let mut findings = FindingList { items: Vec::new(), complete: true };
    if let Tokens::Declared { .. } = call.shared.given.tokens {
        // Who declares tokens in files has them, with their dates, before their eyes.
        return Reply::json(&findings);
    }
    for (_, find) in TYPES.iter().filter(|(known, _)| kind.as_deref().is_none_or(|kind| kind == *known)) {
        let (items, is_all) = find(call)?;
        findings.items.extend(items);
        findings.complete &= is_all;
    }
    Reply::json(&findings)
}

fn overdue(call: &Call<'_>) -> Result<(Vec<Finding>, bool), Problem> {
    let Some(every) = call.shared.policy()?.token_rules().rotation_every else { return Ok((Vec::new(), true)) };
    let before = Timestamp(call.now.0.saturating_sub(every.as_secs()));
    let times = TimeFilter { created_before: Some(before), ..TimeFilter::default() };
    let (records, is_all) = tokens(call, SortKey::Created, times)?;
    let finding = |record: &TokenRecord| {
        let due = record.created.plus(every.as_secs());
        Finding {
            detail: format!(
                "rotation is due every {}; this token is from {}",
                Ttl::from(every),
                Moment(record.created)
            ),
            fix: format!("leastgate token rotate {} --grace 48h --reason TEXT", record.name),
            ..found("overdue_rotation", record, due)
        }
    };
    Ok((records.iter().map(finding).collect(), is_all))
}

fn expiring(call: &Call<'_>) -> Result<(Vec<Finding>, bool), Problem> {
    let (mut records, is_all) = tokens(call, SortKey::Expires, TimeFilter::default())?;
    let is_soon = |record: &TokenRecord| record.expires.is_some_and(|end| end <= call.now.plus(SOON));
    // They come by their end: what lies behind the first that has time left has time too.
    let soon = records.iter().take_while(|record| is_soon(record)).count();
    let is_all = is_all || soon < records.len();
    records.truncate(soon);
    let finding = |record: &TokenRecord| Finding {
        detail: "its life ends within 7 days".to_owned(),
        fix: format!("leastgate token rotate {} --grace 48h --reason TEXT", record.name),
        ..found("expiring", record, record.expires.unwrap_or(call.now))
    };
    Ok((records.iter().map(finding).collect(), is_all))
}

/// The first tokens in use of an order, and whether that is all of them. The store leaves out what nobody rotates: a page full
/// of it would hide all else.
fn tokens(call: &Call<'_>, sort: SortKey, times: TimeFilter) -> Result<(Vec<TokenRecord>, bool), Problem> {
    let query =
        TokenQuery { state: Some(StateFilter::Active), times, is_for_review: true, sort, ..TokenQuery::all(call.now) };
    let page = call.shared.given.store.list_tokens(&query)?;
    let is_all = page.next_cursor.is_none();
    Ok((page.items, is_all))
}

fn found(kind: &str, record: &TokenRecord, at: Timestamp) -> Finding {
    Finding {
        kind: kind.to_owned(),
        accessor: record.accessor.to_string(),
        name: record.name.to_string(),
        owner: record.owner.clone(),
        at: Moment(at),
        detail: String::new(),
        fix: String::new(),
    }
}
