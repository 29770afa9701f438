//! What a caller is told about its own token (`/.well-known/leastgate`): what it is, what it holds under the policy in force,
//! and when that ends. Never its secret, which it knows, nor where it may be used from, which a thief would like to know.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};
use leastgate_policy::{GrantKey, OwnToken, Timestamp};
use serde_json::{Map, Value, json};

use super::{Answering, NO_STORE};
use crate::headers::{self, REQUEST_ID};
use crate::moment::rfc3339;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a token's question about itself.
pub(super) fn own_token(own: &OwnToken, answering: &Answering<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(Value::Object(description(own)).to_string()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, JSON);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(REQUEST_ID, answering.request_id.clone());
    headers::tell_end(fields, own.case().ending());
    if let Some(allowance) = own.allowance() {
        headers::tell_allowance(fields, allowance);
    }
    if answering.close {
        headers::close_after(fields);
    }
    response
}

fn description(own: &OwnToken) -> Map<String, Value> {
    let case = own.case();
    let mut members = Map::new();
    members.insert("environment".into(), json!(case.snapshot().environment()));
    members.insert("policy_revision".into(), json!(case.revision()));
    members.insert("scopes".into(), json!(case.held()));
    members.insert("grants".into(), own.grants().map(grant).collect());
    if let Some(identity) = own.identity() {
        members.insert("accessor".into(), json!(identity.accessor.to_string()));
        members.insert("name".into(), json!(identity.name.as_str()));
        members.insert("roles".into(), identity.holdings().roles.iter().map(|role| json!(**role)).collect());
        members.insert("state".into(), json!(identity.state.as_str()));
        insert_moment(&mut members, "expires", identity.expires);
        insert_moment(&mut members, "not_before", identity.not_before());
    }
    members
}

fn grant((scope, expires): &(GrantKey, Option<Timestamp>)) -> Value {
    let mut members = Map::new();
    members.insert("scope".into(), json!(**scope));
    insert_moment(&mut members, "expires", *expires);
    Value::Object(members)
}

fn insert_moment(members: &mut Map<String, Value>, name: &str, moment: Option<Timestamp>) {
    if let Some(moment) = moment {
        members.insert(name.into(), json!(rfc3339(moment)));
    }
}
