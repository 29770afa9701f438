//! Bodies: JSON of at most 64 KiB, where many tokens come at once 8 MiB, at most 32 deep, no field that isn't known (P34).

use axum::body::Body;
use http::request::Parts;
use http::{Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Problem};

/// Largest body of most calls.
pub(crate) const MOST_BYTES: usize = 64 * 1024;
/// Largest body of a call about many tokens.
pub(crate) const MOST_BYTES_OF_MANY: usize = 8 * 1024 * 1024;
/// Deepest nesting of arrays and objects.
const MOST_DEPTH: usize = 32;

/// Holds a call that has no body to it.
pub(super) fn none(parts: &Parts) -> Result<Vec<u8>, Problem> {
    let has_length = parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || parts.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Problem::new(Kind::Malformed, "this call takes no body").hint("send it without one"));
    }
    Ok(Vec::new())
}

/// Reads a JSON body. The call's deadline holds meanwhile.
pub(super) async fn read(parts: &Parts, body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    if !is_json(parts) {
        return Err(Problem::new(Kind::MediaType, "the Content-Type must be application/json")
            .hint("add -H 'Content-Type: application/json'"));
    }
    let collected = Limited::new(body, most).collect().await.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            Problem::new(Kind::BodyTooLarge, format!("the body is over {} KiB", most / 1024))
                .hint("split it into several calls")
        } else {
            Problem::new(Kind::Malformed, "the body ended before its end")
        }
    })?;
    let bytes = collected.to_bytes();
    if depth(&bytes) > MOST_DEPTH {
        return Err(Problem::new(Kind::Malformed, "the JSON is nested more than 32 deep"));
    }
    Ok(bytes.to_vec())
}

fn is_json(parts: &Parts) -> bool {
    let mut fields = parts.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let essence = field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// How deep brackets outside of strings are nested. What isn't JSON is for the parser to say.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Reads a body as what the call expects.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let kind = if error.is_data() { Kind::Invalid } else { Kind::Malformed };
        Problem::new(kind, error.to_string()).hint("see the admin API's documentation for the fields of this call")
    })
}

/// Reads a query as what the call expects.
pub(crate) fn from_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    axum::extract::Query::try_from_uri(uri).map(|axum::extract::Query(query)| query).map_err(|error| {
        Problem::new(Kind::Invalid, error.body_text())
            .hint("see the admin API's documentation for the parameters of this call")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[{\"[["}],"c":[]}"#), 3);
        assert_eq!(depth(&[b'['; 500]), 500);
        assert_eq!(depth(b"]]]{"), 1);
        assert_eq!(depth(b""), 0);
    }
}
