//! A moment as people read it: RFC 3339, whole seconds, UTC.

use std::fmt;
use std::str::FromStr;

use leastgate_policy::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, written as `2026-11-21T22:30:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A moment past the year 9999 can't be written as RFC 3339: the last one that can stands for it.
        let seconds = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{at:.0}")
    }
}

/// Not a moment of RFC 3339 since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a moment is written as 2026-11-21T22:30:00Z")]
pub struct InvalidMoment;

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        let at: jiff::Timestamp = text.parse().map_err(|_| InvalidMoment)?;
        u64::try_from(at.as_second()).map(|seconds| Self(Timestamp(seconds))).map_err(|_| InvalidMoment)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        let moment = Moment(Timestamp(1_800_000_000));
        assert_eq!(moment.to_string(), "2027-01-15T08:00:00Z");
        assert_eq!(moment.to_string().parse(), Ok(moment));
        assert_eq!("2027-01-15T09:00:00.9+01:00".parse(), Ok(moment));
        for bad in ["", "tomorrow", "2027-01-15", "1969-12-31T23:59:59Z"] {
            assert_eq!(bad.parse::<Moment>(), Err(InvalidMoment), "{bad}");
        }
        assert!(Moment(Timestamp(u64::MAX)).to_string().starts_with("9999-"));
    }
}
