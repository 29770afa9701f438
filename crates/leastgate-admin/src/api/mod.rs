//! What goes over the wire: requests and answers of the admin API, version 1. The server and [`crate::client`] share
//! these types, so they can't drift apart.
//!
//! Requests refuse unknown fields; answers may grow. Times are RFC 3339 in UTC, lives are texts such as `90d`.

mod admin;
mod bulk;
mod check;
mod findings;
mod life;
mod limits;
mod moment;
mod problem;
mod secret;
pub(crate) mod shape;
mod status;
mod token;
mod ttl;

pub use admin::{AdminList, AdminRevoked, AdminView, Ceiling, CreateAdmin, IssuedAdminView, Names};
pub use bulk::{
    CreateChild, CreateTokens, ExportedToken, ExportedTokens, ImportTokens, ImportedTokens, IssuedOfMany, IssuedTokens,
    RevokeTokens, RevokedToken, RevokedTokens,
};
pub use check::{CheckRequest, CheckResult, CheckedToken, NearestMiss};
pub use findings::{Finding, FindingList};
pub use life::{
    GrantScope, LastUseView, PatchToken, PredecessorView, RestrictToken, RotateToken, RotatedToken, RotationView,
    TokenEdited,
};
pub use limits::{LimitsRequest, LimitsView};
pub use moment::Moment;
pub use problem::ProblemView;
pub(crate) use problem::problem_prefix;
pub use secret::SecretText;
pub use status::{EventList, ListenerView, PolicyView, ReloadView, SinkView, StatusView, StragglersView, TokenCounts};
pub use token::{
    CreateToken, GrantView, IssuedTokenView, NamesakeView, ReasonRequest, RestrictionsView, RuleUseView,
    StateChangeView, TokenChanged, TokenList, TokenUsage, TokenView,
};
pub use ttl::{InvalidTtl, Ttl};
