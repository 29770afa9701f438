//! Tokens: listed, made, shown, and what they were used for.

use leastgate_policy::Timestamp;
use leastgate_store::{MAX_PAGE, MadeUnder, SortKey, StateFilter, TimeFilter, TokenQuery};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Object;

use super::find::find;
use super::{issue, last_use, no_query, one_of, view};
use crate::api::{Moment, RuleUseView, TokenList, TokenUsage, TokenView};
use crate::call::{Call, Reply, from_query};
use crate::problem::{Kind, Problem};
use crate::state::Tokens;
use crate::tag::TokenTag;

pub(crate) use self::issue::create;

/// The query of `GET /v1/tokens`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most so many; left out, 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
    /// Those in this state.
    #[param(schema_with = states)]
    state: Option<String>,
    /// Those of this owner.
    owner: Option<String>,
    /// Those kept under this pepper.
    #[param(schema_with = peppers)]
    pepper: Option<String>,
    /// Their order; left out, by name.
    #[param(schema_with = orders)]
    sort: Option<String>,
    /// Those that were neither used nor made since.
    unused_since: Option<Moment>,
    /// Those made before.
    created_before: Option<Moment>,
}

pub(crate) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = from_query::<ListQuery>(call.uri)?.parse(call.now)?;
    match call.shared.given.tokens {
        Tokens::Store => list_stored(call, &query),
        Tokens::Declared { .. } => list_declared(call, &query),
    }
}

pub(crate) fn show(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let found = find(call.shared, call.target())?;
    let mut token = found.view(call.shared, call.now);
    token.iter_mut().try_for_each(|token| last_use::complete(call.shared, found.accessor, token))?;
    let tag = found.record().map(|record| TokenTag::of(record).to_string());
    Ok(Reply { tag, ..Reply::json(&token)? })
}

pub(crate) fn usage(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let found = find(call.shared, call.target())?;
    (call.shared.given.hooks.flush_usage)();
    let mut rows = call.shared.given.store.usage_of(found.accessor)?;
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
    let rules = rows
        .into_iter()
        .map(|row| RuleUseView {
            rule: row.rule.to_string(),
            count: row.count,
            last_used: Moment(row.last_used),
            last_source: row.last_source.map(|source| source.to_string()),
        })
        .collect();
    let complete = !(call.shared.given.hooks.is_usage_behind)();
    Reply::json(&TokenUsage { accessor: found.accessor.to_string(), name: found.name, rules, complete })
}

fn states() -> Object {
    one_of(["active", "rotating", "disabled", "expired", "revoked"])
}

fn peppers() -> Object {
    one_of(["current", "previous", "unknown"])
}

fn orders() -> Object {
    one_of(["name", "created", "expires", "last_used"])
}

impl ListQuery {
    fn parse(self, now: Timestamp) -> Result<TokenQuery, Problem> {
        let limit = self.limit.unwrap_or(MAX_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(
                Problem::new(Kind::Invalid, "`limit` must be from 1 to 200").hint("follow next_cursor for more")
            );
        }
        Ok(TokenQuery {
            state: self.state.as_deref().map(state).transpose()?,
            owner: self.owner,
            times: TimeFilter {
                unused_since: self.unused_since.map(|Moment(at)| at),
                created_before: self.created_before.map(|Moment(at)| at),
            },
            pepper: self.pepper.as_deref().map(pepper).transpose()?,
            is_for_review: false,
            sort: sort(self.sort.as_deref())?,
            limit,
            cursor: self.cursor,
            now,
        })
    }
}

fn state(name: &str) -> Result<StateFilter, Problem> {
    Ok(match name {
        "active" => StateFilter::Active,
        "rotating" => StateFilter::Rotating,
        "disabled" => StateFilter::Disabled,
        "expired" => StateFilter::Expired,
        "revoked" => StateFilter::Revoked,
        _ => return Err(Problem::new(Kind::Invalid, "`state` is active, rotating, disabled, expired or revoked")),
    })
}

fn pepper(name: &str) -> Result<MadeUnder, Problem> {
    MadeUnder::from_name(name).ok_or_else(|| Problem::new(Kind::Invalid, "`pepper` is current, previous or unknown"))
}

fn sort(name: Option<&str>) -> Result<SortKey, Problem> {
    Ok(match name {
        None | Some("name") => SortKey::Name,
        Some("created") => SortKey::Created,
        Some("expires") => SortKey::Expires,
        Some("last_used") => SortKey::LastUsed,
        Some(_) => return Err(Problem::new(Kind::Invalid, "`sort` is name, created, expires or last_used")),
    })
}

fn list_stored(call: &Call<'_>, query: &TokenQuery) -> Result<Reply, Problem> {
    if query.times.unused_since.is_some() || query.sort == SortKey::LastUsed {
        (call.shared.given.hooks.flush_usage)();
    }
    let page = call.shared.given.store.list_tokens(query)?;
    let show = |record| {
        let record: &leastgate_store::TokenRecord = record;
        let state = call.shared.given.authority.token(&record.digest).map_or(record.state, |token| token.state);
        let mut view = view::token(record, state, call.shared, call.now);
        last_use::freshen(call.shared, record.accessor, &mut view);
        view
    };
    Reply::json(&TokenList { items: page.items.iter().map(show).collect(), next_cursor: page.next_cursor })
}

/// Declared tokens are in memory, in no order: a page begins after the name that the cursor says.
fn list_declared(call: &Call<'_>, query: &TokenQuery) -> Result<Reply, Problem> {
    if query.sort != SortKey::Name {
        return Err(Problem::new(Kind::Invalid, "declared tokens are sorted by name only"));
    }
    if query.times != TimeFilter::default() {
        return Err(Problem::new(Kind::Invalid, "of declared tokens no times are known to filter by"));
    }
    if query.pepper.is_some_and(|under| under != MadeUnder::Previous) {
        let problem =
            Problem::new(Kind::Invalid, "of a declared token only `pepper=previous` is known, once it was used");
        return Err(problem.hint("a policy file has the digest alone, which does not say what it was made with"));
    }
    let is_wanted = |token: &TokenView| {
        (query.owner.is_none() || token.owner == query.owner)
            && (query.pepper.is_none() || token.pepper.is_some())
            && query.state.is_none_or(|wanted| token.state == filter_name(wanted))
            && query.cursor.as_ref().is_none_or(|after| token.name > *after)
    };
    let mut all: Vec<TokenView> = Vec::new();
    call.shared.policy()?.tokens().for_each(|digest, token| {
        let mut view = view::declared(digest, token, call.shared, call.now);
        if is_wanted(&view) {
            last_use::freshen(call.shared, token.accessor, &mut view);
            all.push(view);
        }
    });
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let limit = query.limit as usize;
    let is_more = all.len() > limit;
    all.truncate(limit);
    let next_cursor = all.last().filter(|_| is_more).map(|token| token.name.clone());
    Reply::json(&TokenList { items: all, next_cursor })
}

fn filter_name(filter: StateFilter) -> &'static str {
    match filter {
        StateFilter::Active => "active",
        StateFilter::Rotating => "rotating",
        StateFilter::Disabled => "disabled",
        StateFilter::Expired => "expired",
        StateFilter::Revoked => "revoked",
    }
}
