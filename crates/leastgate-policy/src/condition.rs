//! Conditions of a rule: true, false or unknown (§4). An allow needs true; a deny fires on true and unknown.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::fields::is_alias_of;
use crate::query::{self, Parameter};

/// A truth value with a third case for what readers could see differently (Kleene).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Two readers could disagree.
    Unknown,
}

impl Truth {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::True, Self::True) => Self::True,
        }
    }

    fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The conditions of a rule, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Header fields and the values one of which they must have.
    pub headers: Vec<(HeaderName, Vec<Pattern>)>,
    /// Query parameters and the values one of which they must have.
    pub query: Vec<(SmolStr, Vec<SmolStr>)>,
    /// Networks one of which must hold the caller; empty: no condition.
    pub source_ip: Vec<IpNet>,
}

/// An exact value, or with one trailing `*` a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The whole value.
    Exact(SmolStr),
    /// How the value begins.
    Prefix(SmolStr),
}

/// What a request says of a header that conditions read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFact {
    /// It is not there.
    Absent,
    /// It is there once, in visible ASCII; the value with its surrounding blanks.
    Once(HeaderValue),
    /// Repeated, or not visible ASCII.
    Unknown,
}

/// Headers captured for conditions, so that a request can be decided again when it is gone.
pub type HeaderFacts = SmallVec<[(HeaderName, HeaderFact); 2]>;

/// What conditions are evaluated against.
#[derive(Clone, Copy, Debug)]
pub struct ConditionFacts<'a> {
    /// The captured headers; one that was not captured is unknown.
    pub headers: &'a HeaderFacts,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The caller's address; `None` is unknown.
    pub client: Option<IpAddr>,
}

impl Conditions {
    /// Whether all of them hold.
    #[must_use]
    pub fn evaluate(&self, facts: &ConditionFacts<'_>) -> Truth {
        let headers = self.headers.iter().map(|(name, patterns)| header(facts.headers, name, patterns));
        let query = self.query.iter().map(|(name, values)| parameter(facts.query.unwrap_or_default(), name, values));
        headers.chain(query).fold(self.source(facts.client), Truth::and)
    }

    fn source(&self, client: Option<IpAddr>) -> Truth {
        match client {
            _ if self.source_ip.is_empty() => Truth::True,
            None => Truth::Unknown,
            Some(address) => Truth::of(self.source_ip.iter().any(|net| net.contains(&address))),
        }
    }

    /// The names of its conditions, as a refused caller is told them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().map(|(name, _)| name.as_str());
        let source = (!self.source_ip.is_empty()).then_some("source_ip");
        headers.chain(self.query.iter().map(|(name, _)| name.as_str())).chain(source)
    }
}

fn header(facts: &HeaderFacts, name: &HeaderName, patterns: &[Pattern]) -> Truth {
    match facts.iter().find(|(own, _)| own == name) {
        Some((_, HeaderFact::Absent)) => Truth::False,
        Some((_, HeaderFact::Once(value))) => {
            let value = value.to_str().unwrap_or_default().trim_matches([' ', '\t']);
            Truth::of(patterns.iter().any(|pattern| pattern.matches(value)))
        }
        Some((_, HeaderFact::Unknown)) | None => Truth::Unknown,
    }
}

fn parameter(query: &str, name: &str, values: &[SmolStr]) -> Truth {
    match query::look_up(query, name) {
        // A query that no reader agrees on makes every query condition unknown, found or not.
        Parameter::Unknown => Truth::Unknown,
        Parameter::Absent => Truth::False,
        Parameter::Once(value) => Truth::of(values.iter().any(|own| own.as_bytes() == value.as_slice())),
    }
}

impl Pattern {
    /// Reads a value; `None` where a `*` stands before the end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            _ if text.strip_suffix('*').unwrap_or(text).contains('*') => None,
            Some(prefix) => Some(Self::Prefix(prefix.into())),
            None => Some(Self::Exact(text.into())),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(own) => own == value,
            Self::Prefix(own) => value.starts_with(own.as_str()),
        }
    }
}

impl HeaderFact {
    /// Reads a header. A field that some upstream takes for it makes the name ambiguous.
    #[must_use]
    pub fn read(headers: &HeaderMap, name: &HeaderName) -> Self {
        let spelled_otherwise = headers.keys().any(|own| is_alias_of(own, name));
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            _ if spelled_otherwise => Self::Unknown,
            (None, _) => Self::Absent,
            (Some(value), None) if value.to_str().is_ok() => Self::Once(value.clone()),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_three_values() {
        let name = HeaderName::from_static("x-ticket");
        let patterns = [Pattern::parse("INC-*").unwrap(), Pattern::parse("none").unwrap()];
        let truth = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value).unwrap());
            }
            let facts = SmallVec::from_elem((name.clone(), HeaderFact::read(&headers, &name)), 1);
            header(&facts, &name, &patterns)
        };
        assert_eq!(truth(&[]), Truth::False);
        assert_eq!(truth(&[b" INC-42 "]), Truth::True);
        assert_eq!(truth(&[b"INC"]), Truth::False);
        assert_eq!(truth(&[b"none"]), Truth::True);
        assert_eq!(truth(&[b"INC-1", b"INC-1"]), Truth::Unknown);
        assert_eq!(truth(&[b"INC-\xff"]), Truth::Unknown);
        assert_eq!(header(&HeaderFacts::new(), &name, &patterns), Truth::Unknown);
    }

    #[test]
    fn a_field_spelled_with_an_underscore_is_ambiguous() {
        let mut headers = HeaderMap::new();
        headers.insert("x_ticket", "INC-1".parse().unwrap());
        assert_eq!(HeaderFact::read(&headers, &HeaderName::from_static("x-ticket")), HeaderFact::Unknown);
    }

    #[test]
    fn all_must_hold_and_false_wins() {
        let conditions = Conditions {
            query: vec![("currency".into(), vec!["eur".into()])],
            source_ip: vec!["10.0.0.0/8".parse().unwrap()],
            ..Conditions::default()
        };
        let truth = |query, client: Option<&str>| {
            let client = client.map(|text| text.parse().unwrap());
            conditions.evaluate(&ConditionFacts { headers: &HeaderFacts::new(), query: Some(query), client })
        };
        assert_eq!(truth("currency=eur", Some("10.1.1.1")), Truth::True);
        assert_eq!(truth("currency=eur", None), Truth::Unknown);
        assert_eq!(truth("currency=usd", None), Truth::False);
        assert_eq!(truth("currency=eur&currency=eur", Some("11.1.1.1")), Truth::False);
    }

    #[test]
    fn a_star_stands_only_at_the_end() {
        assert!(Pattern::parse("a*b").is_none() && Pattern::parse("**").is_none());
        assert_eq!(Pattern::parse("*"), Some(Pattern::Prefix("".into())));
    }
}
