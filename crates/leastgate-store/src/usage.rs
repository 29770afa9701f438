//! What tokens were used for: counted in memory on the data plane, flushed here on a timer.

use std::net::IpAddr;
use std::sync::Arc;

use leastgate_policy::{Accessor, Timestamp};

use crate::draw::fill;
use crate::error::StoreError;

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

/// What is handed over in one go, and again as it is for as long as the store has not said that it has it.
#[derive(Clone, Debug)]
pub struct UsageBatch {
    pub(crate) number: i64,
    pub(crate) deltas: Arc<[UsageDelta]>,
}

impl UsageBatch {
    /// A batch that is told from any other by a number of its own.
    ///
    /// # Errors
    /// `NoRandomness`.
    pub fn draw(deltas: Vec<UsageDelta>) -> Result<Self, StoreError> {
        let mut number = [0; 8];
        fill(&mut number)?;
        Ok(Self { number: i64::from_le_bytes(number), deltas: deltas.into() })
    }
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
