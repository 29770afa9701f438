//! Why a request goes no further, and what its caller is to hear.

use leastgate_policy::{Denial, Reason};

use crate::respond::Refusal;

/// A request that will not be forwarded, or whose forwarding failed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There was no policy to judge it by.
    Unjudged(Reason),
    /// It must be on record, and can't be.
    Unrecorded,
    /// It was judged, or could have been.
    Denied(Box<Denial>),
    /// As above, and the caller should wait.
    Limited(Box<Denial>, std::time::Duration),
}

const NO_PLACE_ON_RECORD: &str = "nothing was forwarded: the gateway can't put the request on record. Try again";

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl Refused {
    /// The decision behind it, where there was one.
    pub(crate) fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Unjudged(_) | Self::Unrecorded => None,
            Self::Denied(denial) | Self::Limited(denial, _) => Some(denial),
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Unjudged(reason) => *reason,
            Self::Unrecorded => Reason::AuthorizationUnavailable,
            Self::Denied(denial) | Self::Limited(denial, _) => denial.reason,
        }
    }

    pub(super) fn refusal(&self) -> Refusal<'_> {
        match self {
            Self::Unjudged(reason) => Refusal::without_case(*reason, None),
            Self::Unrecorded => Refusal::without_case(self.reason(), Some(NO_PLACE_ON_RECORD)),
            Self::Denied(denial) => Refusal::of(denial),
            Self::Limited(denial, wait) => Refusal { retry_after: Some(*wait), ..Refusal::of(denial) },
        }
    }

    /// Whether it was refused for what it is, and not for when it came or for the state of the gateway or of an upstream.
    pub(super) fn is_of_request(&self) -> bool {
        let is_early = self.denial().is_some_and(|denial| denial.over.is_some());
        !is_early && self.reason().status().is_some_and(|status| (400..500).contains(&status))
    }

    /// After bytes whose meaning is in doubt, nothing more is read from the connection (P16, P18).
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self.reason(), Reason::RequestMalformed | Reason::HeadTooLarge)
    }
}
