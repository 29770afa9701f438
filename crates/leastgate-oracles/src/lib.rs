//! Dev only: what must hold of any bytes whatever, one function for each place where the product reads bytes that
//! somebody else wrote.
//!
//! Such a function takes bytes and panics if what it looks at does not hold. The normal tests run each over its corpus
//! (`crates/fuzz/corpus`) and over mutations of it; `cargo xtask fuzz` hands the same functions to libFuzzer. They are a
//! crate of their own because they link the product, which `leastgate-testkit` must not, and because `crates/fuzz` lies
//! outside the workspace and can use nothing but a library.

// A body that does not hold ends the test or the fuzzer it is in: that is its error channel.
#![allow(clippy::panic, clippy::unwrap_used, clippy::missing_panics_doc)]

mod audit;
mod fields;
mod gateway_file;
mod head;
mod head_http2;
mod path;
mod policy_file;
mod redaction;
/// The naive evaluator of the policy crate's own suite, compiled here a second time: it shares no code with the product,
/// and as a crate it would make that suite depend on everything else.
#[path = "../../leastgate-policy/tests/policy/reference/mod.rs"]
#[allow(dead_code)]
mod reference;
mod template;
mod text_file;
mod token;
mod world;

/// A place that reads hostile bytes, and what must hold there.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its program in `crates/fuzz/fuzz_targets`, of its corpus and of its dictionary.
    pub name: &'static str,
    /// Panics if something does not hold of these bytes.
    pub body: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "audit", body: audit::body },
    Target { name: "gateway_file", body: gateway_file::body },
    Target { name: "head", body: head::body },
    Target { name: "head_http2", body: head_http2::body },
    Target { name: "path", body: path::body },
    Target { name: "policy_file", body: policy_file::body },
    Target { name: "redaction", body: redaction::body },
    Target { name: "template", body: template::body },
    Target { name: "token", body: token::body },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}
