//! Where, from when and how much a token may be used.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::meter::{Meter, Metered, OverLimit};
use crate::time::Timestamp;

/// Where and from when a token may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Networks one of which must hold the caller; empty: any.
    pub source_ip: Vec<IpNet>,
    /// The first moment of its life.
    pub not_before: Option<Timestamp>,
}

/// How much a token may be used; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenLimits {
    /// Requests a second, on the long run.
    pub rate: Option<u32>,
    /// Requests at once above the rate; without it as many as the rate.
    pub burst: Option<u32>,
    /// Requests under way.
    pub concurrent: Option<u32>,
}

/// What can't be a token's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One of them lets nothing through.
    #[error("`{0}` of a token's limits must be at least 1: disable a token that should do nothing")]
    Zero(&'static str),
    /// There is nothing that it could be a burst of.
    #[error("`burst` says how many requests may come at once above a `rate`: give the `rate` too, or leave it out")]
    BurstWithoutRate,
}

/// Where, from when and how much a token may be used: most tokens say nothing of it.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Where and from when.
    pub restrictions: Restrictions,
    /// How much.
    pub limits: TokenLimits,
    /// What was used of that, where there is a limit.
    meter: Option<Arc<Meter>>,
}

impl TokenLimits {
    /// How many requests may come at once; `None`: as many as like. Without a word about it, as many as in a second.
    #[must_use]
    pub fn at_once(&self) -> Option<u32> {
        self.rate.map(|rate| self.burst.unwrap_or(rate))
    }

    /// Whether these can be the limits of a token.
    ///
    /// # Errors
    /// Says what can't be.
    pub fn check(&self) -> Result<(), LimitsError> {
        let all = [("rate", self.rate), ("burst", self.burst), ("concurrent", self.concurrent)];
        if let Some((name, _)) = all.into_iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(LimitsError::Zero(name));
        }
        if self.burst.is_some() && self.rate.is_none() { Err(LimitsError::BurstWithoutRate) } else { Ok(()) }
    }
}

impl Terms {
    /// `None` where there is nothing to say. What is used of the limits is nothing yet.
    pub(crate) fn new(restrictions: Restrictions, limits: TokenLimits) -> Option<Self> {
        let meter = (limits != TokenLimits::default()).then(Arc::default);
        (meter.is_some() || restrictions != Restrictions::default()).then_some(Self { restrictions, limits, meter })
    }

    pub(crate) fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.as_ref()
    }

    /// Uses this meter from now on, if there is a limit: requests under way give their places back to the one they have.
    pub(crate) fn goes_on_with(&mut self, meter: Arc<Meter>) {
        if let Some(own) = &mut self.meter {
            *own = meter;
        }
    }

    /// Takes what a request needs of the limits; `None` where there is none.
    pub(crate) fn take(&self, elapsed: Duration) -> Option<Result<Metered, OverLimit>> {
        self.meter.as_ref().map(|meter| meter.take(&self.limits, elapsed))
    }
}
