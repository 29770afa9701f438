//! `GET /v1/openapi.json`: the API as an OpenAPI 3.1 document, made of the same table as the router.
//!
//! The types say what goes over the wire, the table says which calls there are, and the refusals of each call follow from
//! its role, its effect and its path, and from what the table adds.

mod calls;
mod refusals;
mod ways;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::api::ProblemView;
use crate::call::{Call, Reply};
use crate::operations::no_query;
use crate::problem::Problem;
use crate::route::Shape;
use crate::routes::{ROUTES, served};

/// Made when it is first asked for.
static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let body = serde_json::to_vec(&document()).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Written { tag: format!("\"{:016x}\"", hasher.finish()), body }
});

struct Written {
    /// Another one for another text.
    tag: String,
    body: Vec<u8>,
}

pub(crate) fn show(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    Ok(Reply { tag: Some(WRITTEN.tag.clone()), body: WRITTEN.body.clone(), ..Reply::default() })
}

const ABOUT: &str = "\
The admin API of a gateway: tokens, administrators, decisions and events. It listens on loopback, elsewhere with mutual \
TLS only, and on a unix socket for root and the gateway's own user, who need no credential there. Requests refuse fields and parameters that they don't know; \
answers may grow. Times are RFC 3339 in UTC, integers have no fraction, not even `.0`. Every refusal is a problem document (RFC 9457) of a kind that \
`components.responses` lists; `method-not-allowed` is the answer to a method that a path does not have, `not-found` also that \
to a path that is not here. A change takes no condition but where `If-Match` is named; what takes access away is done even \
where the store can't be read, and then without its condition.";

fn document() -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leastgate admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The listener that this document comes from"}],
        "security": [{"admin": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {"admin": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "lga_…",
                "description": "The credential of an administrator, in force from its making to its revocation. Over the \
                                unix socket none is needed.",
            }},
            "schemas": schemas(),
            "responses": refusals::responses(ROUTES),
        },
    });
    speak_json(&mut document);
    document
}

fn paths() -> Value {
    let mut paths = Map::new();
    for (path, route) in served() {
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[calls::method(route.verb)] = calls::operation(path, route);
    }
    Value::Object(paths)
}

/// Every type of the wire by name.
fn schemas() -> Value {
    let answers = ROUTES.iter().filter_map(|route| route.says.answer).chain([Shape::of::<ProblemView>()]);
    let bodies = ROUTES.iter().filter_map(|route| route.says.body);
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for (name, schema) in answers.flat_map(|shape| (shape.schemas)()) {
        let mut schema = serde_json::to_value(schema).unwrap_or_default();
        ways::answer(&name, &mut schema);
        schemas.entry(name).or_insert(schema);
    }
    for (name, schema) in bodies.flat_map(|shape| (shape.schemas)()) {
        let mut schema = serde_json::to_value(schema).unwrap_or_default();
        ways::take(&mut schema);
        schemas.entry(ways::taken(&name).into_owned()).or_insert(schema);
    }
    json!(schemas)
}

/// Comments on types speak of `None` where JSON has null. utoipa has `u-int64` for what the registry calls `uint64`, and no
/// bound with it, though a format binds nobody.
fn speak_json(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace("`None`", "`null`");
            }
            if let Some(Value::String(format)) = fields.get_mut("format") {
                *format = format.replace("u-int", "uint");
                let most = [("uint16", u64::from(u16::MAX)), ("uint32", u64::from(u32::MAX)), ("uint64", u64::MAX)];
                if let Some((_, most)) = most.iter().find(|(name, _)| name == format) {
                    fields.entry("maximum").or_insert(json!(most));
                }
            }
            fields.values_mut().for_each(speak_json);
        }
        Value::Array(items) => items.iter_mut().for_each(speak_json),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
