//! What a refusal says (RFC 9457), with a hint that says what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// `urn:leastgate:problem:` and its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ProblemView {
    /// The part of the type after `urn:leastgate:problem:`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.kind.strip_prefix(problem_prefix()).unwrap_or(&self.kind)
    }
}

/// What every problem type begins with.
pub(crate) const fn problem_prefix() -> &'static str {
    "urn:leastgate:problem:"
}
