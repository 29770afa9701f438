//! How single values are written: durations, sizes, rates, moments, networks.
//!
//! Each function here is both the check that an error comes from and the reading that the typed value comes
//! from, so the two can't differ. An error completes the sentence "expected …, found `x`" or stands alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use leastgate_policy::Timestamp;

/// A number of events in a time: `20/s`, `100/m`, `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many events.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// `count` events a second.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// Events a second.
    #[must_use]
    pub fn hertz(&self) -> f64 {
        f64::from(self.count) / self.per.as_secs_f64()
    }
}

const MILLISECOND: u64 = 1;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The longest duration: ten years.
const LONGEST: u64 = 3_650 * DAY;

const DURATION_UNITS: &[(&str, u64)] = &[("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND)];
const SIZE_UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const RATE_UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600)];

/// A duration longer than nothing: `500ms`, `2s`, `15m`, `1h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("expected a duration longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A duration that may be `0s`.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let millis = with_unit(text, DURATION_UNITS).ok_or("expected a duration such as 500ms, 2s, 15m, 1h or 30d")?;
    if millis > LONGEST { Err("a duration is at most 3650d".to_owned()) } else { Ok(Duration::from_millis(millis)) }
}

/// A duration, or `none`.
pub(crate) fn duration_or_none(text: &str) -> Result<Option<Duration>, String> {
    if text == "none" { Ok(None) } else { duration(text).map(Some).map_err(|err| format!("{err}, or none")) }
}

/// A number of bytes: `512B`, `8KiB`, `16MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    with_unit(text, SIZE_UNITS).ok_or_else(|| "expected a size such as 512B, 8KiB or 16MiB".to_owned())
}

/// A number of bytes, or `none`: more than there can be.
pub(crate) fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(u64::MAX) } else { size(text).map_err(|err| format!("{err}, or none")) }
}

/// A rate: `20/s`, `100/m`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    parse_rate(text).ok_or_else(|| "expected a rate such as 20/s or 100/m".to_owned())
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let (_, seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit)?;
    let count = u32::try_from(digits(count)?).ok().filter(|count| *count > 0)?;
    Some(Rate { count, per: Duration::from_secs(*seconds) })
}

/// Bytes a second: `240B/s`, `1KiB/s`.
pub(crate) fn byte_rate(text: &str) -> Result<u64, String> {
    let bytes = text.strip_suffix("/s").and_then(|bytes| with_unit(bytes, SIZE_UNITS));
    bytes.ok_or_else(|| "expected bytes a second such as 240B/s".to_owned())
}

/// A moment: a day, meaning its first second in UTC, or an RFC 3339 time. Parts of a second are cut off.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let expected = "expected a day such as 2026-12-01 or a time such as 2026-12-01T08:00:00Z";
    let parsed = match text.parse::<Date>() {
        Ok(date) if !text.contains(['T', 't', ' ']) => TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight())),
        _ if text.contains('[') => return Err(expected.to_owned()),
        _ => text.parse::<jiff::Timestamp>(),
    };
    let seconds = parsed.map_err(|_| expected)?.as_second();
    u64::try_from(seconds).map(Timestamp).map_err(|_| "expected a time after 1970".to_owned())
}

/// A network in CIDR notation, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| "expected a network such as 10.0.0.0/8, or an address")?;
    if network == network.trunc() {
        Ok(network)
    } else {
        Err(format!("has bits beyond its prefix: write {}", network.trunc()))
    }
}

/// An address to listen on.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// Text with something in it and no control characters.
pub(crate) fn words(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("expected some text".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("has control characters in it".to_owned())
    } else {
        Ok(())
    }
}

/// The name of an environment (§7 of the scope language).
pub(crate) fn environment(text: &str) -> Result<(), String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let named = plain && (1..=16).contains(&text.len()) && text.starts_with(|first: char| first.is_ascii_lowercase());
    if named { Ok(()) } else { Err("expected 1 to 16 of a-z and 0-9, the first a letter".to_owned()) }
}

/// `bytes` as a person would write them.
pub(crate) fn show_size(bytes: u64) -> String {
    show_unit(bytes, SIZE_UNITS)
}

fn show_unit(value: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor);
    unit.map_or_else(|| value.to_string(), |(name, factor)| format!("{}{name}", value / factor))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits(number)?.checked_mul(*factor)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_length() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert_eq!(duration_or_none("none"), Ok(None));
        assert_eq!((size_or_none("none"), size_or_none("1KiB")), (Ok(u64::MAX), Ok(1_024)));
        assert_eq!(size_or_none("1K").unwrap_err(), "expected a size such as 512B, 8KiB or 16MiB, or none");
        for wrong in ["", "5", "s", "-1s", "1.5s", "1 s", "1w", "1S", "0s", "99999999999999999999d", "3651d", "1h30m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("0B"), Ok(0));
        assert_eq!(byte_rate("240B/s"), Ok(240));
        assert_eq!(rate("20/s"), Ok(Rate::per_second(20)));
        assert_eq!(rate("90/m").map(|rate| rate.hertz()), Ok(1.5));
        for wrong in ["16", "16MB", "16mib", "99999999999GiB", "+1B"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["20", "0/s", "20/d", "/s", "20 /s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_is_its_first_second_in_utc() {
        assert_eq!(moment("2026-12-01"), Ok(Timestamp(1_796_083_200)));
        assert_eq!(moment("2026-12-01T00:00:00Z"), Ok(Timestamp(1_796_083_200)));
        assert_eq!(moment("2026-12-01T02:00:00.9+02:00"), Ok(Timestamp(1_796_083_200)));
        for wrong in ["", "2026-13-01", "tomorrow", "2026-12-01T00:00:00", "1969-12-31", "2026-12-01T00:00Z[UTC]"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_the_network_meant() {
        assert_eq!(network("10.1.2.3/8"), Err("has bits beyond its prefix: write 10.0.0.0/8".to_owned()));
        assert_eq!(network("::1"), "::1/128".parse().map_err(|_| String::new()));
    }

    #[test]
    fn sizes_are_shown_as_written() {
        for text in ["1B", "8KiB", "16MiB", "1GiB"] {
            assert_eq!(size(text).map(show_size), Ok(text.to_owned()));
        }
    }
}
