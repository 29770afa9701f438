//! What tokens were used for: counted in memory on the data plane, flushed here on a timer.

use std::net::IpAddr;
use std::sync::Arc;

use leastgate_policy::{Accessor, Timestamp};

/// What one token did with one rule since the last flush, or without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    /// The token.
    pub accessor: Accessor,
    /// The rule's id; `None`: requests that no rule let through, which move the token's own last use and no row.
    pub rule: Option<Arc<str>>,
    /// Requests since the last flush.
    pub count: u64,
    /// The last of them.
    pub last_used: Timestamp,
    /// Where that came from, if it is known.
    pub last_source: Option<IpAddr>,
}

/// What one token ever did with one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The token.
    pub accessor: Accessor,
    /// The rule's id.
    pub rule: Arc<str>,
    /// Requests.
    pub count: u64,
    /// The last of them.
    pub last_used: Timestamp,
    /// Where that came from, if it is known.
    pub last_source: Option<IpAddr>,
}
