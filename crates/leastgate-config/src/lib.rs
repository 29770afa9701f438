//! The gateway's and the policy's files as typed values, or everything that is wrong with them, each error with
//! file, line, column, the source line and what to do.
//!
//! One way leads from bytes to values, at start, at reload and in the commands that only look:
//!
//! 1. A text is read whole and searched for tokens, which no file may hold ([`SecretSource`] names where a secret
//!    really is).
//! 2. It is parsed once, strictly and under a budget, into a tree in which every key and value knows its place.
//! 3. The tree is held against a table of keys. The same table gives "did you mean", the defaults, `config show`
//!    and the JSON Schemas ([`schema`]).
//! 4. The checked tree is read into [`GatewayConfig`] or `leastgate_policy::PolicySpec`.
//!
//! What a policy means is not judged here: [`LoadedPolicy::diagnose`] gives the compiler's errors their places.

mod diagnostic;
mod document;
mod gateway;
mod node;
mod notation;
mod policy;
mod scalar;
pub mod schema;
mod secret;
mod shape;
mod source;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Related};
pub use gateway::{
    AdminAddress, AuditConfig, CertificateFiles, ClassPolicy, Classes, DataListener, Endpoint, FailureLimit, FileSink,
    Fsync, GatewayConfig, GatewayInputs, HealthCheck, HostHeader, Limits, ListenerTls, Listeners, LoadedGateway,
    MetricsConfig, Override, PepperConfig, PolicyFiles, Probe, SinkConfig, SinkKind, TokenSource, Upstream,
    UpstreamTlsFiles, Workers, find_gateway_file, load_gateway, parse_gateway, read_pem,
};
pub use policy::{Fingerprint, LoadedPolicy, fingerprint, load_policy, parse_policy};
pub use scalar::Rate;
pub use secret::{SecretError, SecretSource};
