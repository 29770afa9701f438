//! Types that go both ways: an answer always has what a request may leave out, so each has a schema for either.

use std::borrow::Cow;

use serde_json::{Value, json};

/// What answers always have, null or not, beyond what a request must have. Of the types that are answers only, their own
/// attributes say so.
pub(super) const ANSWERED: &[(&str, &[&str])] = &[
    ("Ceiling", &["max_ttl"]),
    ("ExportedToken", &["restrictions", "limits", "canary"]),
    ("GrantView", &["expires", "reason"]),
    ("LimitsView", &["rate", "burst", "concurrent"]),
    ("RestrictionsView", &["not_before"]),
];

const REFERENCE: &str = "#/components/schemas/";

/// Completes the schema of an answer.
pub(super) fn answer(name: &str, schema: &mut Value) {
    let Some((_, always)) = ANSWERED.iter().find(|(own, _)| *own == name) else { return };
    if schema["required"].is_null() {
        schema["required"] = json!([]);
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.extend(always.iter().map(|field| json!(field)));
    }
}

/// The name of a type in requests.
pub(super) fn taken(name: &str) -> Cow<'_, str> {
    let goes_both_ways = ANSWERED.iter().any(|(own, _)| *own == name);
    if goes_both_ways { format!("{name}.taken").into() } else { name.into() }
}

/// Has a schema of a request refer to those of requests.
pub(super) fn take(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(REFERENCE)
            {
                *reference = format!("{REFERENCE}{}", taken(name));
            }
            fields.values_mut().for_each(take);
        }
        Value::Array(items) => items.iter_mut().for_each(take),
        _ => {}
    }
}
