//! Moments as events spell them: RFC 3339, UTC, microseconds.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::clock::Micros;

/// Appends `2026-11-21T22:06:27.000123Z` in quotes.
pub(crate) fn rfc3339(out: &mut Vec<u8>, moment: Micros) {
    let at = utc(moment);
    out.push(b'"');
    padded(out, at.year().unsigned_abs().into(), 4);
    for (separator, value) in
        [(b'-', at.month()), (b'-', at.day()), (b'T', at.hour()), (b':', at.minute()), (b':', at.second())]
    {
        out.push(separator);
        padded(out, value.unsigned_abs().into(), 2);
    }
    out.push(b'.');
    padded(out, moment.0 % 1_000_000, 6);
    out.extend_from_slice(b"Z\"");
}

/// `20261121T220627Z`, for file names.
pub(crate) fn compact_utc(moment: Micros) -> String {
    let at = utc(moment);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// `2026-11-21T22:06:27Z`, for people.
pub(crate) fn utc_seconds(moment: Micros) -> String {
    let at = utc(Micros(moment.0 - moment.0 % 1_000_000));
    format!("{at}Z")
}

fn utc(moment: Micros) -> DateTime {
    let micros = i64::try_from(moment.0).unwrap_or(i64::MAX);
    Offset::UTC.to_datetime(jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX))
}

fn padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(micros: u64, expect: &str) {
        let mut out = Vec::new();
        rfc3339(&mut out, Micros(micros));
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expect}\""));
    }

    #[test]
    fn moments_are_utc_with_microseconds() {
        check(0, "1970-01-01T00:00:00.000000Z");
        check(1_795_298_787_000_123, "2026-11-21T22:06:27.000123Z");
        check(1_709_164_800_999_999, "2024-02-29T00:00:00.999999Z");
    }

    #[test]
    fn file_names_sort_by_time() {
        assert_eq!(compact_utc(Micros(1_795_298_787_000_123)), "20261121T220627Z");
    }

    #[test]
    fn people_are_told_whole_seconds() {
        assert_eq!(utc_seconds(Micros(1_795_298_787_000_123)), "2026-11-21T22:06:27Z");
    }
}
