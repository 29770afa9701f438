//! The work of each call: plain functions that block, without a word of HTTP but the query.

pub(crate) mod admins;
mod advice;
pub(crate) mod bulk;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod children;
mod cut;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod export;
mod find;
pub(crate) mod findings;
mod give;
pub(crate) mod idle;
pub(crate) mod import;
mod issue;
mod last_use;
mod parts;
pub(crate) mod policy;
pub(crate) mod restrict;
pub(crate) mod revocations;
pub(crate) mod rotate;
pub(crate) mod status;
mod taking;
pub(crate) mod tokens;
mod told;
mod view;

use leastgate_store::{StoreError, TokenRecord};
use leastgate_telemetry::redact;
use serde::Deserialize;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::call::{Call, from_query};
use crate::problem::{Kind, Problem};
use crate::tag::TokenTag;

/// The query of a call that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// Holds a call without parameters to that: `?stat=revoked`, ignored, would list what nobody asked for.
pub(crate) fn no_query(call: &Call<'_>) -> Result<(), Problem> {
    from_query::<NoQuery>(call.uri).map(drop)
}

/// The schema of a parameter that is one of these words.
fn one_of<const N: usize>(words: [&'static str; N]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// A name and a value for the record.
fn detail(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// The scopes a token was granted by name, for the record.
fn scope_names(record: &TokenRecord) -> String {
    record.grants.iter().map(|grant| grant.scope.as_str()).collect::<Vec<_>>().join(" ")
}

/// Holds a call to the token and the version that its `If-Match` names.
fn check_version(call: &Call<'_>, record: &TokenRecord) -> Result<(), Problem> {
    match call.expected_version()? {
        Some(expected) if expected.accessor != record.accessor => Err(Problem::new(
            Kind::Stale,
            format!("the condition is for {}, and this is {} by now", expected.accessor, record.accessor),
        )
        .hint("the token was rotated, or made anew: read it again and repeat the change")),
        Some(TokenTag { version: expected, .. }) if expected != record.version => {
            Err(StoreError::Conflict { accessor: record.accessor, expected, actual: record.version }.into())
        }
        _ => Ok(()),
    }
}

/// A text for people that goes into records and terminals: visible, of a length one reads, and without a secret, which
/// would be told to whoever reads it.
fn check_text(name: &str, text: &str) -> Result<(), Problem> {
    let is_plain = !text.trim().is_empty() && text.chars().count() <= 500 && !text.chars().any(char::is_control);
    if !is_plain {
        return Err(Problem::new(Kind::Invalid, format!("`{name}` must be 1 to 500 characters in one line")));
    }
    if redact(text) != text {
        return Err(Problem::new(Kind::Invalid, format!("`{name}` holds what looks like a token (lgt_… or lga_…)"))
            .hint(
                "name a token by its accessor; if this one is real, revoke it: it was sent where it does not belong",
            ));
    }
    Ok(())
}
