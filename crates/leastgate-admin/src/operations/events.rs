//! Recorded decisions and other events, as far as they are still in memory.

use leastgate_telemetry::{DecisionId, RecentFilter};
use serde::Deserialize;
use utoipa::IntoParams;

use super::find::find;
use super::no_query;
use crate::call::{Call, Reply, from_query};
use crate::problem::{Kind, Problem};

/// The query of `GET /v1/events`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventQuery {
    /// At most so many, the latest; left out, 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Those after this sequence number.
    after_seq: Option<u64>,
    /// Those of this kind, such as `decision`.
    kind: Option<String>,
    /// Those with this effect: `allow` or `deny`.
    effect: Option<String>,
    /// Those with this reason.
    reason: Option<String>,
    /// Those of this token, by name or accessor.
    token: Option<String>,
    /// Those of this api.
    api: Option<String>,
}

/// Events in one answer.
const MOST_EVENTS: usize = 1000;

pub(crate) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query: EventQuery = from_query(call.uri)?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=MOST_EVENTS).contains(&limit) {
        return Err(
            Problem::new(Kind::Invalid, "`limit` must be from 1 to 1000").hint("older events are in the audit files")
        );
    }
    let filter = RecentFilter {
        limit,
        after_seq: query.after_seq,
        kind: query.kind,
        effect: query.effect,
        reason: query.reason,
        accessor: query.token.map(|wanted| accessor(call, &wanted)).transpose()?,
        subject: None,
        api: query.api,
    };
    // Each line is a whole JSON object already, as it was recorded.
    let lines = call.shared.given.telemetry.recent(&filter);
    let mut body = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum::<usize>() + 16);
    body.extend_from_slice(b"{\"items\":[");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.extend_from_slice(b"]}");
    Ok(Reply { body, ..Reply::default() })
}

pub(crate) fn decision(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let id: DecisionId = call.target().parse().map_err(|_| {
        Problem::new(Kind::Invalid, "this is not a decision's id")
            .hint("it is in X-Request-Id and in problem bodies: a UUID")
    })?;
    let event = call.shared.given.telemetry.find(id).ok_or_else(|| {
        Problem::new(Kind::NotFound, format!("the decision {id} is not among those in memory"))
            .hint("older ones are in the audit files; audit.recent says how many are kept")
    })?;
    Ok(Reply { body: event.to_vec(), ..Reply::default() })
}

/// The accessor of a token; one that is gone may still be in events, so an accessor is taken as it is.
fn accessor(call: &Call<'_>, wanted: &str) -> Result<String, Problem> {
    if wanted.parse::<leastgate_policy::Accessor>().is_ok() && wanted.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(wanted.to_owned());
    }
    Ok(find(call.shared, wanted)?.accessor.to_string())
}
