//! How much a token may be used, as it is asked for and as it is shown.

use leastgate_policy::TokenLimits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The limits a token is made with; what is left out is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Requests a second, on the long run; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub rate: Option<u32>,
    /// How many of them may come at once, at least 1; without it as many as the rate. Only together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub burst: Option<u32>,
    /// Requests under way at a time; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub concurrent: Option<u32>,
}

/// How much a token may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsView {
    /// Requests a second, on the long run.
    pub rate: Option<u32>,
    /// How many of them may come at once; without it as many as the rate.
    pub burst: Option<u32>,
    /// Requests under way at a time.
    pub concurrent: Option<u32>,
}

impl From<LimitsView> for TokenLimits {
    fn from(LimitsView { rate, burst, concurrent }: LimitsView) -> Self {
        Self { rate, burst, concurrent }
    }
}

impl From<LimitsRequest> for TokenLimits {
    fn from(LimitsRequest { rate, burst, concurrent }: LimitsRequest) -> Self {
        Self { rate, burst, concurrent }
    }
}
