//! What somebody should look at, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::moment::Moment;

/// `GET /v1/findings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FindingList {
    /// The findings, the most urgent ones of each type first.
    pub items: Vec<Finding>,
    /// Whether that is all; if not, mend these first.
    pub complete: bool,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// `overdue_rotation` or `expiring`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The token's public id.
    pub accessor: String,
    /// Its name.
    pub name: String,
    /// Who answers for it.
    #[schema(required)]
    pub owner: Option<String>,
    /// Since when it is due, or until when there is time.
    pub at: Moment,
    /// What it is, in words.
    pub detail: String,
    /// What to do about it.
    pub fix: String,
}
