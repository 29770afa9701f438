//! Metrics: exactly the families of the interface, their labels from configuration or closed enums, never from a request.
//! What a request touches is resolved when a policy loads or a worker starts; nothing is formatted on its way.

mod audit;
mod endpoints;
mod families;
mod routes;
mod tls;
mod upstream_tls;

pub(crate) use audit::SinkMetrics;
pub use endpoints::{CheckResult, EjectionCause, EndpointMetrics};
pub(crate) use families::{Decisions, Families};
pub use families::{LimitKind, TokenGauge};
pub use routes::ConnectError;
pub(crate) use routes::{MethodLabel, RedactedSegment, RouteTable, RouteTables};
pub use tls::HandshakeFailure;
