//! What each call may be refused for: the kinds of the closed table, by status.

use std::collections::{BTreeMap, BTreeSet};

use leastgate_store::AdminRole;
use serde_json::{Map, Value, json};

use crate::api::problem_prefix;
use crate::call::Effect;
use crate::problem::Kind;
use crate::route::{Condition, Route};

/// What any call may be refused for.
const ALWAYS: &[Kind] = &[
    Kind::Malformed,
    Kind::AmbiguousPath,
    Kind::CredentialRequired,
    Kind::InvalidCredential,
    Kind::Browser,
    Kind::PeerRefused,
    Kind::Timeout,
    Kind::HostUnknown,
    Kind::Invalid,
    Kind::TooManyFailures,
    Kind::Internal,
    Kind::Store,
    Kind::Overloaded,
];

/// Kinds of one status.
type ByStatus = BTreeMap<u16, BTreeSet<Kind>>;

fn by_status(kinds: impl Iterator<Item = Kind>) -> ByStatus {
    kinds.fold(ByStatus::new(), |mut all, kind| {
        all.entry(kind.status()).or_default().insert(kind);
        all
    })
}

/// The responses of a call that refuse it.
pub(super) fn of(route: &Route) -> Value {
    let refer = |(status, kinds): (u16, BTreeSet<Kind>)| {
        (status.to_string(), json!({"$ref": format!("#/components/responses/{}", name(&kinds))}))
    };
    Value::Object(kinds(route).into_iter().map(refer).collect())
}

/// Every response that refuses a call; each kind is in one at least.
pub(super) fn responses(routes: &[Route]) -> Value {
    let of_routes = routes.iter().flat_map(|route| kinds(route).into_values());
    let unrouted = [BTreeSet::from([Kind::MethodNotAllowed])];
    let all: BTreeMap<String, Value> =
        of_routes.chain(unrouted).map(|kinds| (name(&kinds), response(&kinds))).collect();
    json!(all)
}

fn kinds(route: &Route) -> ByStatus {
    let mut kinds: BTreeSet<Kind> = ALWAYS.iter().chain(route.says.refusals).copied().collect();
    if route.operation.role > AdminRole::Viewer {
        kinds.insert(Kind::InsufficientRole);
    }
    if route.operation.effect.has_body() {
        kinds.extend([Kind::BodyTooLarge, Kind::MediaType]);
    }
    if route.operation.effect.needs_record() {
        kinds.insert(Kind::AuditFull);
    }
    if route.operation.effect == Effect::Gives {
        kinds.insert(Kind::StorageFull);
    }
    if route.path.contains('{') {
        kinds.insert(Kind::NotFound);
    }
    match route.says.condition {
        Condition::None => {}
        Condition::Taken => kinds.extend([Kind::Stale]),
        Condition::Needed => kinds.extend([Kind::Stale, Kind::ConditionRequired]),
    }
    by_status(kinds.into_iter())
}

fn name(kinds: &BTreeSet<Kind>) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(".")
}

fn response(kinds: &BTreeSet<Kind>) -> Value {
    let told: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.name(), kind.title())).collect();
    let types: Vec<String> = kinds.iter().map(|kind| format!("{}{}", problem_prefix(), kind.name())).collect();
    let statuses: BTreeSet<u16> = kinds.iter().map(|kind| kind.status()).collect();
    let mut headers = Map::new();
    for (status, header, description) in [
        (401, "WWW-Authenticate", "How to show who calls."),
        (405, "Allow", "The methods that the path has."),
        (429, "Retry-After", "Seconds to wait."),
        (503, "Retry-After", "Seconds to wait."),
    ] {
        if statuses.contains(&status) {
            headers.insert(header.to_owned(), json!({"description": description, "schema": {"type": "string"}}));
        }
    }
    json!({
        "description": told.join(" "),
        "headers": headers,
        "content": {"application/problem+json": {"schema": {
            "allOf": [{"$ref": "#/components/schemas/ProblemView"}],
            "properties": {"type": {"enum": types}, "status": {"enum": statuses}},
        }}},
    })
}
