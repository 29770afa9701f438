//! What a caller is told of its token's limits: the RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, two lists
//! of RFC 9651. A limit is a member of each, named after what it limits. What an upstream says there of limits of its own
//! stays: its members come first, and they bind its callers too.
//!
//! A rate is what passes in a second on the long run; what the burst holds beyond that stands in `r`, which may be more.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use leastgate_policy::Allowance;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The names of our members, quoted as they are written.
const RATE: &str = "\"token-rate\"";
const CONCURRENT: &str = "\"token-concurrent\"";

/// Adds what the limits of a token are and what is left of them.
pub(crate) fn tell_allowance(headers: &mut HeaderMap, allowance: &Allowance) {
    let (mut policy, mut left) = (String::new(), String::new());
    if let Some(rate) = &allowance.rate {
        let _ = write!(policy, "{RATE};q={};w=1", rate.rate);
        let _ = write!(left, "{RATE};r={};t={}", rate.left, rate.reset);
    }
    if let Some(concurrent) = &allowance.concurrent {
        let next = if policy.is_empty() { "" } else { ", " };
        let _ = write!(policy, "{next}{CONCURRENT};q={};qu=\"concurrent-requests\"", concurrent.quota);
        let _ = write!(left, "{next}{CONCURRENT};r={}", concurrent.left);
    }
    if !policy.is_empty() {
        add(headers, &POLICY, &policy);
        add(headers, &LEFT, &left);
    }
}

/// A name stands in a list once, and of ours only we speak: another gateway behind this one has the same names.
fn add(headers: &mut HeaderMap, name: &HeaderName, own: &str) {
    let Ok(own) = HeaderValue::from_str(own) else { return };
    if headers.get_all(name).iter().flat_map(members).any(is_ours) {
        let others: Vec<HeaderValue> = headers.get_all(name).iter().filter_map(without_ours).collect();
        headers.remove(name);
        for line in others {
            headers.append(name, line);
        }
    }
    headers.append(name, own);
}

fn without_ours(line: &HeaderValue) -> Option<HeaderValue> {
    let others: Vec<&[u8]> = members(line).filter(|member| !is_ours(member)).collect();
    HeaderValue::from_bytes(&others.join(&b", "[..])).ok().filter(|line| !line.is_empty())
}

fn is_ours(member: &[u8]) -> bool {
    [RATE, CONCURRENT].iter().any(|own| member.starts_with(own.as_bytes()))
}

/// The members of a line, parted by the commas that stand in no string.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = line.as_bytes().split(move |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == b',' && !is_quoted
    });
    parts.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use leastgate_policy::token::{ConcurrentLeft, RateLeft};

    use super::*;
    use crate::headers::tests::map;

    const RATE_LEFT: RateLeft = RateLeft { rate: 50, left: 70, reset: 1 };
    const PLACES_LEFT: ConcurrentLeft = ConcurrentLeft { quota: 10, left: 3 };

    fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_limit_is_a_member_of_both_lists() {
        let told = |rate, concurrent| {
            let mut headers = HeaderMap::new();
            tell_allowance(&mut headers, &Allowance { rate, concurrent });
            (lines(&headers, "ratelimit-policy").concat(), lines(&headers, "ratelimit").concat())
        };
        let pair = |policy: &str, left: &str| (policy.to_owned(), left.to_owned());
        assert_eq!(told(Some(RATE_LEFT), None), pair("\"token-rate\";q=50;w=1", "\"token-rate\";r=70;t=1"));
        assert_eq!(
            told(None, Some(PLACES_LEFT)),
            pair("\"token-concurrent\";q=10;qu=\"concurrent-requests\"", "\"token-concurrent\";r=3")
        );
        assert_eq!(
            told(Some(RATE_LEFT), Some(PLACES_LEFT)),
            pair(
                "\"token-rate\";q=50;w=1, \"token-concurrent\";q=10;qu=\"concurrent-requests\"",
                "\"token-rate\";r=70;t=1, \"token-concurrent\";r=3"
            )
        );
        assert_eq!(told(None, None), pair("", ""));
    }

    #[test]
    fn what_an_upstream_says_of_its_own_limits_stays_and_what_it_says_of_ours_does_not() {
        let mut headers = map(&[
            ("ratelimit", "\"daily\";r=5;t=9"),
            ("ratelimit", "\"token-rate\";r=1000000;t=1"),
            ("ratelimit-policy", "\"daily\";q=1000;w=86400"),
            ("ratelimit-limit", "1000"),
        ]);
        tell_allowance(&mut headers, &Allowance { rate: Some(RATE_LEFT), concurrent: None });
        assert_eq!(lines(&headers, "ratelimit"), ["\"daily\";r=5;t=9", "\"token-rate\";r=70;t=1"]);
        assert_eq!(lines(&headers, "ratelimit-policy"), ["\"daily\";q=1000;w=86400", "\"token-rate\";q=50;w=1"]);
        assert_eq!(lines(&headers, "ratelimit-limit"), ["1000"]);
    }

    #[test]
    fn a_line_that_speaks_of_ours_and_of_others_keeps_what_it_says_of_others() {
        for (line, left) in [
            (r#""daily";r=5,"token-rate";r=9;t=1, monthly;r=7"#, r#""daily";r=5, monthly;r=7"#),
            (r#" "token-concurrent";r=9 ,	"token-rate";r=9"#, ""),
            (r#""a,\",\"token-rate\"";r=1, "token-rate";r=2"#, r#""a,\",\"token-rate\"";r=1"#),
            (
                r#""token-rates";r=1, daily;r=5;pk=:dG9rZW4tcmF0ZQ==:"#,
                r#""token-rates";r=1, daily;r=5;pk=:dG9rZW4tcmF0ZQ==:"#,
            ),
        ] {
            let mut headers = map(&[("ratelimit", line.trim())]);
            tell_allowance(&mut headers, &Allowance { rate: Some(RATE_LEFT), concurrent: None });
            let expected: Vec<&str> =
                [left, "\"token-rate\";r=70;t=1"].into_iter().filter(|line| !line.is_empty()).collect();
            assert_eq!(lines(&headers, "ratelimit"), expected, "{line}");
        }
    }
}
