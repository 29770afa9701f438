//! Everything the demo adds to a gateway: an API behind it, a policy, tokens, and some traffic.

mod feed;
mod orders;
mod traffic;

pub(crate) use orders::OrdersApi;
pub(crate) use traffic::Traffic;

/// The demo's policy, as its README explains it.
pub(crate) const POLICY: &str = include_str!("policy.yaml");

/// The environment the demo's gateway serves.
pub(crate) const ENVIRONMENT: &str = "demo";

/// A token of the demo: the variable it is printed as, its name and its roles.
pub(crate) struct DemoToken {
    pub(crate) variable: &'static str,
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    pub(crate) about: &'static str,
}

/// The tokens that are printed at start.
pub(crate) const TOKENS: &[DemoToken] = &[
    DemoToken { variable: "READER", name: "reader", role: "reader", about: "reads orders" },
    DemoToken { variable: "CLERK", name: "clerk", role: "clerk", about: "reads and writes orders" },
    DemoToken { variable: "BOT", name: "bot", role: "orders-all", about: "may do everything, and only reads" },
];
