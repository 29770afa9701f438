//! Given a request head and a time: may it pass, under whose grant, and why?
//!
//! This crate is the policy decision point and nothing else. It holds the token table and the compiled
//! policy, and does no IO, reads no clock, runs no task and writes no log: a [`Decision`] is a pure function
//! of the policy revision, the token record, the request's facts and the time it is given.
//!
//! Read in this order: [`spec`] is what a policy says, [`compile`] makes it a [`PolicySnapshot`],
//! [`RequestFacts`] is what a request says, [`decide`] brings the two together, and [`AuthorizedRequest`] is
//! the only thing a forwarder may accept. The definition of the language is `scope-language.md` of the design;
//! sections (§) in the documentation of this crate refer to it.

pub mod answer;
pub mod authority;
pub mod case;
pub mod compile;
pub mod condition;
pub mod decision;
pub mod entitlement;
pub mod facts;
pub mod fields;
pub mod host;
pub mod issue;
pub mod loosen;
pub mod method;
pub mod path;
mod protocol;
pub mod query;
pub mod reason;
pub mod review;
pub mod shown;
pub mod snapshot;
pub mod source;
pub mod spec;
pub mod template;
pub mod time;
pub mod token;
mod trie;

pub use answer::{OWN_TOKEN_PATH, OwnAnswer, OwnToken, Preflight};
pub use authority::{Authority, Reader};
pub use case::{Bait, Basis, Case, Denial, Permit, TokenIdentity};
pub use compile::{CompileContext, SpecError, SpecErrorKind, UpstreamFacts};
pub use decision::{AuthorizedRequest, Decision, Verdict, authorize, decide};
pub use entitlement::GrantKey;
pub use facts::RequestFacts;
pub use issue::{IssueRefusal, IssueRequest};
pub use reason::{Effect, Reason};
pub use review::{CutWatch, Reviewer, Whose};
pub use snapshot::{Api, Mode, PolicySnapshot, Rule, RuleKey};
pub use source::Source;
pub use spec::PolicySpec;
pub use time::Timestamp;
pub use token::{
    Accessor, Allowance, DigestCollision, EnvironmentKey, LimitsError, Metered, OverLimit, Pepper, Restrictions,
    Secret, Straggler, StragglerKind, Terms, TokenDigest, TokenEntry, TokenKind, TokenLimits, TokenPlace, TokenState,
    TokenTable,
};
