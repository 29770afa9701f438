//! The gateway's state, the policy in force, and recorded events.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::moment::Moment;
use super::shape::Event;

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// The product's version.
    pub version: String,
    /// The environment this gateway serves.
    pub environment: String,
    /// Names this gateway in events.
    pub instance: String,
    /// The policy in force; `None`: none yet.
    #[schema(required)]
    pub policy_rev: Option<String>,
    /// Whether `/readyz` says 200.
    pub ready: bool,
    /// Whether it is going away.
    pub draining: bool,
    /// When it started.
    pub started: Moment,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// `store` or `declared`.
    pub token_source: String,
    /// Tokens by state.
    pub tokens: TokenCounts,
    /// What is not kept under the current pepper.
    #[serde(default)]
    #[schema(required)]
    pub stragglers: StragglersView,
    /// Changes in force that the store does not hold yet.
    pub unsynced_changes: u64,
    /// Where it listens.
    pub listeners: Vec<ListenerView>,
    /// The last reload of the policy.
    pub reload: ReloadView,
    /// The audit sinks.
    pub audit: Vec<SinkView>,
}

/// Living tokens and administrators that are not kept under the current pepper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StragglersView {
    /// Tokens under the previous one, or, of declared ones, those that were used since the start.
    pub tokens: u64,
    /// Administrators under the previous one.
    pub admins: u64,
    /// Tokens under none that is configured: nobody can use them.
    pub unknown_tokens: u64,
    /// Administrators under none that is configured.
    pub unknown_admins: u64,
}

/// Tokens in force by state; one past its end counts as expired, unless it is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCounts {
    /// In use; those that end soon included.
    pub active: u64,
    /// Of the active ones, those that end within 7 days.
    pub expiring: u64,
    /// Replaced by a successor, in their grace.
    pub rotating: u64,
    /// Switched off for now.
    pub disabled: u64,
    /// Past their end.
    pub expired: u64,
    /// Switched off for good.
    pub revoked: u64,
    /// When the next one ends.
    #[schema(required)]
    pub next_expiry: Option<Moment>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListenerView {
    /// `data`, `ops` or `admin`.
    pub name: String,
    /// Its address or path.
    pub address: String,
}

/// The last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadView {
    /// Whether the files on disk are what is in force; `None`: nothing was reloaded yet.
    #[schema(required)]
    pub successful: Option<bool>,
    /// When.
    #[schema(required)]
    pub at: Option<Moment>,
    /// What was wrong with the files.
    #[schema(required)]
    pub error: Option<String>,
}

/// An audit sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SinkView {
    /// Its name.
    pub name: String,
    /// `ok`, or what is wrong.
    pub state: String,
}

/// `GET /v1/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// The content hash of its files.
    pub revision: String,
    /// The apis' names.
    pub apis: Vec<String>,
    /// The scopes' names.
    pub scopes: Vec<String>,
    /// The roles' names.
    pub roles: Vec<String>,
    /// How many rules it has.
    pub rules: usize,
}

/// Events as they were recorded, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Events of the audit stream, version 1.
    #[schema(value_type = Vec<Event>)]
    pub items: Vec<Value>,
}
