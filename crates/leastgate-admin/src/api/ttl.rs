//! A life in one unit: `30s`, `15m`, `1h`, `90d`, `2w`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How long something lives: whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u64);

/// Not a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a life is a whole number and one of s, m, h, d and w, such as 90d")]
pub struct InvalidTtl;

const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
/// Longer than anybody plans for, and small enough to be added to any date.
const MOST: u64 = 100 * 366 * 86_400;

impl Ttl {
    /// One hour.
    pub const HOUR: Self = Self(3_600);

    /// One day.
    pub const DAY: Self = Self(86_400);
    /// Thirty days.
    pub const DAYS_30: Self = Self(30 * 86_400);

    /// So many seconds, held to one second and a hundred years.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.clamp(1, MOST))
    }

    /// Its length in seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::from_seconds(duration.as_secs())
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Weeks are read, never written: `14d` is what policies say.
        let unit = UNITS.iter().skip(1).find(|(_, size)| self.0.is_multiple_of(*size));
        let (name, size) = unit.copied().unwrap_or(("s", 1));
        write!(f, "{}{name}", self.0 / size)
    }
}

impl FromStr for Ttl {
    type Err = InvalidTtl;

    fn from_str(text: &str) -> Result<Self, InvalidTtl> {
        let (digits, size) = UNITS
            .iter()
            .find_map(|(name, size)| text.strip_suffix(name).map(|digits| (digits, *size)))
            .ok_or(InvalidTtl)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = is_number.then(|| digits.parse().ok()).flatten().ok_or(InvalidTtl)?;
        let seconds = number.checked_mul(size).filter(|seconds| (1..=MOST).contains(seconds));
        seconds.map(Self).ok_or(InvalidTtl)
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_written() {
        for (text, seconds, shown) in
            [("30s", 30, "30s"), ("90m", 5_400, "90m"), ("1h", 3_600, "1h"), ("2w", 1_209_600, "14d")]
        {
            let ttl: Ttl = text.parse().unwrap();
            assert_eq!((ttl.seconds(), ttl.to_string().as_str()), (seconds, shown));
        }
        for bad in ["", "0s", "h", "1", "1.5h", "-1h", "+1h", "1 h", "1y", "999999999999w", "18446744073709551615s"] {
            assert_eq!(bad.parse::<Ttl>(), Err(InvalidTtl), "{bad}");
        }
    }
}
