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
    /// Requests a second, on the long run; a million at most.
    pub rate: Option<u32>,
    /// Requests at once above the rate, at most those of a day; without it as many as the rate.
    pub burst: Option<u32>,
    /// Requests under way.
    pub concurrent: Option<u32>,
}

/// The highest rate: a request of it is a microsecond.
const MOST_A_SECOND: u32 = 1_000_000;
/// Seconds that a burst may take to come back: who has used one up by mistake has it again the next day.
const DAY: u32 = 86_400;

/// What can't be a token's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One of them lets nothing through.
    #[error("`{0}` of a token's limits must be at least 1: disable a token that should do nothing")]
    Zero(&'static str),
    /// More than can be counted in time.
    #[error("`rate` of a token's limits must be at most {MOST_A_SECOND} a second: leave it out for no limit")]
    Rate,
    /// It would take longer than a day to come back.
    #[error("`burst` must be at most what the rate gives in a day, {DAY} for each request a second")]
    Burst,
    /// There is nothing that it could be a burst of.
    #[error("`burst` says how many requests may come at once above a `rate`: give the `rate` too, or leave it out")]
    BurstWithoutRate,
}

/// Where, from when and how much a token may be used: most tokens say nothing of it.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Where and from when.
    pub restrictions: Restrictions,
    /// How much, as its own record says: where it shares its meter, that of another may govern.
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
        match (self.rate, self.burst) {
            (None, Some(_)) => Err(LimitsError::BurstWithoutRate),
            (Some(rate), _) if rate > MOST_A_SECOND => Err(LimitsError::Rate),
            (Some(rate), Some(burst)) if burst > rate.saturating_mul(DAY) => Err(LimitsError::Burst),
            _ => Ok(()),
        }
    }
}

impl Terms {
    /// `None` where there is nothing to say. What is used of the limits is nothing yet.
    pub(crate) fn new(restrictions: Restrictions, limits: TokenLimits) -> Option<Self> {
        let meter = (limits != TokenLimits::default()).then(|| Arc::new(Meter::new(&limits)));
        (meter.is_some() || restrictions != Restrictions::default()).then_some(Self { restrictions, limits, meter })
    }

    pub(crate) fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.as_ref()
    }

    /// Comes in place of these, of the same token: their meter goes on, if both have limits. Where these are others, they
    /// govern from now on, for all that share the meter.
    pub(crate) fn follow(&mut self, before: &Self) {
        if let Some(meter) = before.meter() {
            self.share(meter, before.limits != self.limits);
        }
    }

    /// Uses this meter from now on, if there is a limit: requests under way give their places back to the one they have.
    pub(crate) fn share(&mut self, meter: &Arc<Meter>, governs: bool) {
        if let Some(own) = &mut self.meter {
            *own = Arc::clone(meter);
            if governs {
                own.govern(&self.limits);
            }
        }
    }

    /// Takes what a request needs of the limits; `None` where there is none.
    pub(crate) fn take(&self, elapsed: Duration) -> Option<Result<Metered, OverLimit>> {
        self.meter.as_ref().map(|meter| meter.take(elapsed))
    }
}
