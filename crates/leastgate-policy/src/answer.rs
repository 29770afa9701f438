//! What the gateway answers by itself, in no upstream's place: one kind for each variant, so that whoever answers or
//! records a decision deals with all of them.

use std::sync::Arc;

use http::Method;

use crate::case::{Case, TokenIdentity};
use crate::entitlement::GrantKey;
use crate::facts::RequestFacts;
use crate::reason::Reason;
use crate::snapshot::{Cors, PolicySnapshot};
use crate::spec::CorsSpec;
use crate::time::Timestamp;
use crate::token::Allowance;

/// Where a caller asks about its own token, in this one spelling (RFC 8615).
pub const OWN_TOKEN_PATH: &str = "/.well-known/leastgate";

/// A request that the gateway itself answers.
#[derive(Clone, Debug)]
pub enum OwnAnswer {
    /// A CORS preflight.
    Preflight(Preflight),
    /// A caller's question about its own token.
    OwnToken(OwnToken),
}

impl OwnAnswer {
    /// The case that was judged.
    #[must_use]
    pub fn case(&self) -> &Case {
        match self {
            Self::Preflight(preflight) => &preflight.case,
            Self::OwnToken(own) => &own.case,
        }
    }

    /// The reason an event gives.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Preflight(_) => Reason::Preflight,
            Self::OwnToken(_) => Reason::OwnToken,
        }
    }
}

/// A CORS preflight to answer from the api's `cors` block, the same for every caller.
#[derive(Clone, Debug)]
pub struct Preflight {
    pub(crate) cors: Arc<Cors>,
    pub(crate) case: Case,
}

impl Preflight {
    /// The api's `cors` block.
    #[must_use]
    pub fn cors(&self) -> &CorsSpec {
        &self.cors.spec
    }

    /// The union of the api's methods.
    #[must_use]
    pub fn methods(&self) -> &[String] {
        &self.cors.methods
    }
}

/// A token that may be used, whose holder asks what it is and holds.
#[derive(Clone, Debug)]
pub struct OwnToken {
    pub(crate) case: Case,
    pub(crate) allowance: Option<Allowance>,
}

impl OwnToken {
    /// The case that was judged.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// What is left of its limits: the question has used its rate.
    #[must_use]
    pub fn allowance(&self) -> Option<&Allowance> {
        self.allowance.as_ref()
    }

    /// The token; there always is one.
    #[must_use]
    pub fn identity(&self) -> Option<&TokenIdentity> {
        self.case.identity()
    }

    /// The scopes that were granted to it by name and have not ended, each until the moment it does.
    pub fn grants(&self) -> impl Iterator<Item = &(GrantKey, Option<Timestamp>)> {
        let grants = self.identity().map(|identity| identity.holdings().grants.as_slice()).unwrap_or_default();
        grants.iter().filter(|(_, end)| end.is_none_or(|end| self.case.decided < end))
    }
}

/// Whether a request asks about its own token, where that is answered. The target is compared as it was received:
/// what is spelled otherwise is a path like any other.
pub(crate) fn asks_about_own_token(facts: &RequestFacts, snapshot: &PolicySnapshot) -> bool {
    snapshot.well_known && facts.raw_path() == OWN_TOKEN_PATH && matches!(facts.method, Method::GET | Method::HEAD)
}
