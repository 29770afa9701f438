//! What a caller is told of its token's limits: the RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, two lists
//! of RFC 9651. A limit is a member of each, named after what it limits. What an upstream says there of limits of its own
//! stays: its members come first, and they bind its callers too.

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
        let _ = write!(policy, "{RATE};q={};w={}", rate.quota, rate.window);
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
fn add(headers: &mut HeaderMap, name: &HeaderName, members: &str) {
    let Ok(members) = HeaderValue::from_str(members) else { return };
    let is_ours = |line: &HeaderValue| {
        let has = |own: &str| line.as_bytes().windows(own.len()).any(|part| part == own.as_bytes());
        has(RATE) || has(CONCURRENT)
    };
    if headers.get_all(name).iter().any(is_ours) {
        let others: Vec<HeaderValue> = headers.get_all(name).iter().filter(|line| !is_ours(line)).cloned().collect();
        headers.remove(name);
        for line in others {
            headers.append(name, line);
        }
    }
    headers.append(name, members);
}

#[cfg(test)]
mod tests {
    use leastgate_policy::token::{ConcurrentLeft, RateLeft};

    use super::*;
    use crate::headers::tests::map;

    const RATE_LEFT: RateLeft = RateLeft { quota: 100, window: 2, left: 7, reset: 2 };
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
        assert_eq!(told(Some(RATE_LEFT), None), pair("\"token-rate\";q=100;w=2", "\"token-rate\";r=7;t=2"));
        assert_eq!(
            told(None, Some(PLACES_LEFT)),
            pair("\"token-concurrent\";q=10;qu=\"concurrent-requests\"", "\"token-concurrent\";r=3")
        );
        assert_eq!(
            told(Some(RATE_LEFT), Some(PLACES_LEFT)),
            pair(
                "\"token-rate\";q=100;w=2, \"token-concurrent\";q=10;qu=\"concurrent-requests\"",
                "\"token-rate\";r=7;t=2, \"token-concurrent\";r=3"
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
        assert_eq!(lines(&headers, "ratelimit"), ["\"daily\";r=5;t=9", "\"token-rate\";r=7;t=2"]);
        assert_eq!(lines(&headers, "ratelimit-policy"), ["\"daily\";q=1000;w=86400", "\"token-rate\";q=100;w=2"]);
        assert_eq!(lines(&headers, "ratelimit-limit"), ["1000"]);
    }
}
