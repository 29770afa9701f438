//! What events say of a token: all that it holds, in the same words whichever call it came from.

use leastgate_policy::{Timestamp, TokenLimits};
use leastgate_store::{TokenGrant, TokenRecord};

use super::detail;
use crate::api::Moment;

/// What a token is that was not there before: its name, and whatever it has.
pub(super) fn of_new(record: &TokenRecord) -> Vec<(String, String)> {
    let mut details = vec![detail("name", record.name.as_str())];
    details.extend(holdings(record));
    details.extend(record.is_canary.then(|| detail("canary", "true")));
    details.push(detail("state.after", record.state.as_str()));
    details
}

/// Whatever it has, and nothing of what it hasn't.
pub(super) fn holdings(record: &TokenRecord) -> impl Iterator<Item = (String, String)> {
    told(record).into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| detail(name, value))
}

/// The same as one value of an event that tells of many, by accessor: a JSON object, so that no name can feign another field.
pub(super) fn of_many(record: &TokenRecord) -> (String, String) {
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
