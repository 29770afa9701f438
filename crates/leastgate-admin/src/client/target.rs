//! The targets of calls: ids in a path, and what a list is asked for in a query.

use super::{Answered, ClientError};
use crate::api::Moment;

/// Which tokens to list. What is `None` is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTokens {
    /// At most so many; the server's most is 200.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// `active`, `rotating`, `disabled`, `expired` or `revoked`.
    pub state: Option<String>,
    /// Those of this owner.
    pub owner: Option<String>,
    /// `current`, `previous` or `unknown`.
    pub pepper: Option<String>,
    /// `name`, `created`, `expires` or `last_used`.
    pub sort: Option<String>,
    /// Those that were neither used nor made since.
    pub unused_since: Option<Moment>,
    /// Those made before.
    pub created_before: Option<Moment>,
}

/// Which events to list. What is `None` is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEvents {
    /// At most so many, the newest.
    pub limit: Option<usize>,
    /// Those with a greater sequence number.
    pub after_seq: Option<u64>,
    /// `decision`, `admin`, …
    pub kind: Option<String>,
    /// `allow` or `deny`.
    pub effect: Option<String>,
    /// A reason's name.
    pub reason: Option<String>,
    /// A token's name or accessor.
    pub token: Option<String>,
    /// An api's name.
    pub api: Option<String>,
}

impl ListTokens {
    pub(super) fn target(&self) -> String {
        let ListTokens { limit, cursor, state, owner, pepper, sort, unused_since, created_before } = self;
        let limit = limit.map(|limit| limit.to_string());
        let [unused_since, created_before] = [unused_since, created_before].map(|at| at.map(|at| at.to_string()));
        let pairs = [
            ("limit", &limit),
            ("cursor", cursor),
            ("state", state),
            ("owner", owner),
            ("pepper", pepper),
            ("sort", sort),
            ("unused_since", &unused_since),
            ("created_before", &created_before),
        ];
        query("/v1/tokens", &pairs)
    }
}

impl ListEvents {
    pub(super) fn target(&self) -> String {
        let ListEvents { limit, after_seq, kind, effect, reason, token, api } = self;
        let limit = limit.map(|limit| limit.to_string());
        let after_seq = after_seq.map(|after| after.to_string());
        let pairs = [
            ("limit", &limit),
            ("after_seq", &after_seq),
            ("kind", kind),
            ("effect", effect),
            ("reason", reason),
            ("token", token),
            ("api", api),
        ];
        query("/v1/events", &pairs)
    }
}

/// Ids and names go into a path: what would need an escape is no id.
pub(super) fn segment(text: &str) -> Answered<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_plain = !text.is_empty() && text.len() <= 63 && text.bytes().all(plain);
    if is_plain { Ok(text) } else { Err(ClientError::InvalidId) }
}

pub(super) fn query(path: &str, pairs: &[(&str, &Option<String>)]) -> String {
    let mut target = path.to_owned();
    for (name, value) in pairs.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value))) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(name);
        target.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                target.push(char::from(byte));
            } else {
                target.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_and_ids_are_not() {
        let owner = Some("a&b=ü".to_owned());
        assert_eq!(
            query("/v1/tokens", &[("limit", &None), ("owner", &owner), ("sort", &Some("name".into()))]),
            "/v1/tokens?owner=a%26b%3D%C3%BC&sort=name"
        );
        assert!(segment("0aZ9000001").is_ok() && segment("checkout-bot").is_ok());
        for bad in ["", "a/b", "..", "a%2f", "lgt_prod_x", "a b"] {
            assert!(matches!(segment(bad), Err(ClientError::InvalidId)), "{bad}");
        }
    }
}
