//! What events say of a token: all that it holds, in the same words whichever call it came from.

use leastgate_policy::{Timestamp, TokenLimits};
use leastgate_store::{TokenGrant, TokenRecord};

use super::detail;
use crate::api::Moment;
use crate::named::MOST;

/// The details of one event.
pub(super) type Details = Vec<(String, String)>;

/// Bytes of what it tells of each of them, unless the first has more. Whoever keeps events bounds them by their number.
const EVENT_BYTES: usize = 64 * 1024;

/// What a token is that was not there before: its name, and whatever it has.
pub(super) fn of_new(record: &TokenRecord) -> Details {
    let mut details = vec![detail("name", record.name.as_str())];
    details.extend(of_new_nameless(record));
    details
}

fn of_new_nameless(record: &TokenRecord) -> impl Iterator<Item = (String, String)> {
    let canary = record.is_canary.then(|| detail("canary", "true"));
    holdings(record).chain(canary).chain([detail("state.after", record.state.as_str())])
}

/// What new tokens are that differ in their names alone, each event with all that each of its tokens is.
pub(super) fn of_alike(records: &[TokenRecord]) -> Vec<Details> {
    let event = |batch: &[TokenRecord]| {
        let accessors: Vec<_> = batch.iter().map(|record| record.accessor.to_string()).collect();
        let names: Vec<_> = batch.iter().map(|record| record.name.as_str()).collect();
        let which = [detail("accessors", accessors.join(" ")), detail("names", names.join(" "))];
        which.into_iter().chain(batch.first().into_iter().flat_map(of_new_nameless)).collect()
    };
    records.chunks(MOST).map(event).collect()
}

/// What new tokens are that have nothing in common.
pub(super) fn of_each(records: &[TokenRecord]) -> Vec<Details> {
    let mut events: Vec<Details> = Vec::new();
    let mut bytes = 0;
    for told in records.iter().map(of_one) {
        let own = told.0.len() + told.1.len();
        match events.last_mut().filter(|event| event.len() < MOST && bytes + own <= EVENT_BYTES) {
            Some(event) => {
                event.push(told);
                bytes += own;
            }
            None => {
                events.push(vec![told]);
                bytes = own;
            }
        }
    }
    for event in &mut events {
        let accessors: Vec<_> = event.iter().map(|(accessor, _)| accessor.as_str()).collect();
        event.insert(0, detail("accessors", accessors.join(" ")));
    }
    events
}

/// Whatever it has, and nothing of what it hasn't.
pub(super) fn holdings(record: &TokenRecord) -> impl Iterator<Item = (String, String)> {
    told(record).into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| detail(name, value))
}

/// All of a new one as one value of an event that tells of many, by accessor: a JSON object, so that no name can feign another
/// field.
fn of_one(record: &TokenRecord) -> (String, String) {
    let fields = of_new(record).into_iter().map(|(name, value)| (name, value.into()));
    let value = serde_json::Value::Object(fields.collect()).to_string();
    detail(&record.accessor.to_string(), value)
}

/// What is different, before and after.
pub(super) fn differences(old: &TokenRecord, new: &TokenRecord) -> Vec<(String, String)> {
    let (before, after) = (told(old), told(new));
    let mut details = vec![detail("name", new.name.as_str())];
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        if before != after {
            details.push(detail(&format!("{name}.before"), before));
            details.push(detail(&format!("{name}.after"), after));
        }
    }
    details
}

fn told(record: &TokenRecord) -> [(&'static str, String); 8] {
    let moment = |at: Option<Timestamp>| at.map_or_else(String::new, |at| Moment(at).to_string());
    let grant = |grant: &TokenGrant| {
        grant.expires.map_or_else(|| grant.scope.clone(), |end| format!("{} until {}", grant.scope, Moment(end)))
    };
    let TokenLimits { rate, burst, concurrent } = record.limits;
    let limit = |name: &str, limit: Option<u32>| limit.map(|limit| format!("{name} {limit}"));
    let limits = [limit("rate", rate), limit("burst", burst), limit("concurrent", concurrent)];
    [
        ("owner", record.owner.clone().unwrap_or_default()),
        ("roles", record.roles.join(" ")),
        ("scopes", record.grants.iter().map(grant).collect::<Vec<_>>().join(", ")),
        ("expires", moment(record.expires)),
        ("not_before", moment(record.restrictions.not_before)),
        ("source_ip", record.restrictions.source_ip.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("limits", limits.into_iter().flatten().collect::<Vec<_>>().join(", ")),
        ("note", record.note.clone().unwrap_or_default()),
    ]
}
