//! The control plane: the admin API, the ops endpoints, and the client that the commands use.
//!
//! Read in this order: [`AdminPlane::start`] binds the listeners and starts the one thread; `listener` takes
//! connections; `gate` refuses what no honest client sends; `routes` is the whole API at a glance; `call` is the way of
//! each call (who, may they, the body, the work, the event); `operations` is the work. [`api`] holds what goes over the
//! wire, shared with [`client`].
//!
//! Nothing here is on the way of a proxied request: what is allowed changes through the one writer, `Authority`, and
//! the workers see it with their next request.

pub mod api;
mod asking;
mod baits;
mod bootstrap;
mod call;
mod ceiling;
pub mod client;
#[cfg(test)]
mod fixture;
mod gate;
mod lanes;
mod listener;
mod named;
mod openapi;
mod operations;
mod ops;
mod plane;
mod problem;
mod replays;
mod restriction;
mod route;
mod routes;
mod state;
mod sweeps;
mod tag;
mod turn;
mod unsynced;

pub use bootstrap::{BootstrapError, UnfitCredential, bootstrap_given};
pub use listener::{AdminTls, Handshake, Secure, Secured};
pub use operations::idle::Looked;
pub use ops::ProbeTarget;
pub use plane::{AdminConfig, AdminHandle, AdminPlane, IdleTokens, StartError, address_in_use};
pub use state::{AdminState, Hooks, ShadowEnd, Tokens};
