//! Path templates: what the path part of a rule says (§4).

use std::fmt;

use crate::loosen::loosen;
use crate::path::{self, PathError};

/// Most literals of one `in(…)`.
pub const MAX_ALTERNATIVES: usize = 64;

/// A whole path from `/`, with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What each segment must be.
    pub segments: Vec<Segment>,
    /// Whether a final `**` takes whatever follows.
    pub rest: bool,
    /// Whether it ends in `/`.
    pub trailing_slash: bool,
}

/// What one segment must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text, decoded.
    Literal(Box<str>),
    /// Any one segment; with the parameter's name where it was given one.
    Any(Option<Box<str>>),
    /// One segment of a type, with the parameter's name.
    Typed(Box<str>, SegmentType),
}

/// What a typed parameter takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentType {
    /// `0|[1-9][0-9]{0,18}`
    Int,
    /// `8-4-4-4-12` hexadecimal digits in any case
    Uuid,
    /// `[0-9A-Fa-f]+`
    Hex,
    /// `[a-z0-9]+(-[a-z0-9]+)*`
    Slug,
    /// `[0-9]{4}-[0-9]{2}-[0-9]{2}`
    Date,
    /// One of these texts, sorted.
    In(Box<[Box<str>]>),
}

/// Why a template is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not begin with `/`.
    #[error("a template is a whole path and begins with `/`")]
    NotAbsolute,
    /// A literal that no accepted path could equal.
    #[error("segment `{segment}`: {rule}")]
    Literal {
        /// The segment as written.
        segment: String,
        /// The rule of the canonical path that it breaks.
        rule: &'static str,
    },
    /// `**` before the end.
    #[error("`**` may only be the last segment")]
    RestBeforeEnd,
    /// A segment with `*`, `{` or `}` that is not one of the forms.
    #[error("segment `{0}` is neither a literal nor one of `*`, `**`, `{{name}}`, `{{name:type}}`")]
    Form(String),
    /// A type nobody knows.
    #[error("unknown type `{0}`: int, uuid, hex, slug, date, in(…)")]
    UnknownType(String),
    /// Too many or no literals.
    #[error("`in(…)` takes 1 to 64 literals, here {0}")]
    Alternatives(usize),
    /// Over the caps of a path.
    #[error("{0}")]
    TooLong(&'static str),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What about it is not a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let rest_of_text = text.strip_prefix('/').ok_or(TemplateError::NotAbsolute)?;
        if text.len() > path::MAX_TARGET {
            return Err(TemplateError::TooLong("the template is over 8 KiB"));
        }
        let mut template = Self { segments: Vec::new(), rest: false, trailing_slash: false };
        if rest_of_text.is_empty() {
            return Ok(template);
        }
        let body = rest_of_text.strip_suffix('/').unwrap_or(rest_of_text);
        template.trailing_slash = body.len() != rest_of_text.len();
        let mut parts = body.split('/').peekable();
        while let Some(part) = parts.next() {
            if part == "**" {
                if parts.peek().is_some() || template.trailing_slash {
                    return Err(TemplateError::RestBeforeEnd);
                }
                template.rest = true;
            } else {
                template.segments.push(Segment::parse(part)?);
            }
        }
        if template.segments.len() > path::MAX_SEGMENTS {
            return Err(TemplateError::TooLong("the template has over 128 segments"));
        }
        Ok(template)
    }

    /// Whether every path it matches lies under these literal segments.
    #[must_use]
    pub fn is_under(&self, base: &[Box<str>]) -> bool {
        self.segments.len() >= base.len()
            && base
                .iter()
                .zip(&self.segments)
                .all(|(base, segment)| matches!(segment, Segment::Literal(text) if text == base))
    }
}

impl Template {
    /// Whether some path under these literal segments could match it, compared as denies are.
    #[must_use]
    pub fn reaches(&self, base: &[Box<str>]) -> bool {
        base.iter().enumerate().all(|(index, literal)| match self.segments.get(index) {
            None => self.rest,
            Some(Segment::Literal(text)) => loosen(text) == loosen(literal),
            Some(Segment::Typed(_, SegmentType::In(texts))) => texts.iter().any(|text| loosen(text) == loosen(literal)),
            Some(Segment::Any(_) | Segment::Typed(..)) => true,
        })
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, TemplateError> {
        if part == "*" {
            return Ok(Self::Any(None));
        }
        if let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            return Self::parse_parameter(part, inner);
        }
        if part.contains(['*', '{', '}']) {
            return Err(TemplateError::Form(part.to_owned()));
        }
        literal(part).map(Self::Literal)
    }

    fn parse_parameter(part: &str, inner: &str) -> Result<Self, TemplateError> {
        let (name, kind) = match inner.split_once(':') {
            None => (inner, None),
            Some((name, kind)) => (name, Some(kind)),
        };
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if !is_name(name) {
            return Err(TemplateError::Form(part.to_owned()));
        }
        match kind {
            None => Ok(Self::Any(Some(name.into()))),
            Some(kind) => Ok(Self::Typed(name.into(), SegmentType::parse(kind)?)),
        }
    }

    /// The parameter's name, where it has one.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Any(name) => name.as_deref(),
            Self::Typed(name, _) => Some(name),
        }
    }
}

impl SegmentType {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        match text {
            "int" => Ok(Self::Int),
            "uuid" => Ok(Self::Uuid),
            "hex" => Ok(Self::Hex),
            "slug" => Ok(Self::Slug),
            "date" => Ok(Self::Date),
            _ => match text.strip_prefix("in(").and_then(|text| text.strip_suffix(')')) {
                Some(list) => Self::parse_alternatives(list),
                None => Err(TemplateError::UnknownType(text.to_owned())),
            },
        }
    }

    fn parse_alternatives(list: &str) -> Result<Self, TemplateError> {
        let mut texts = Vec::new();
        for part in list.split(',') {
            if part.contains(['*', '{', '}', '(', ')']) {
                return Err(TemplateError::Form(part.to_owned()));
            }
            texts.push(literal(part)?);
        }
        texts.sort_unstable();
        texts.dedup();
        if texts.len() > MAX_ALTERNATIVES {
            return Err(TemplateError::Alternatives(texts.len()));
        }
        Ok(Self::In(texts.into_boxed_slice()))
    }

    /// Whether a decoded segment is of this type.
    #[must_use]
    pub fn matches(&self, segment: &[u8]) -> bool {
        match self {
            Self::Int => match segment {
                b"0" => true,
                [b'1'..=b'9', rest @ ..] => rest.len() <= 18 && rest.iter().all(u8::is_ascii_digit),
                _ => false,
            },
            Self::Uuid => has_groups(segment, [8, 4, 4, 4, 12], u8::is_ascii_hexdigit),
            Self::Hex => !segment.is_empty() && segment.iter().all(u8::is_ascii_hexdigit),
            Self::Slug => segment.split(|byte| *byte == b'-').all(|word| {
                !word.is_empty() && word.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            }),
            Self::Date => has_groups(segment, [4, 2, 2], u8::is_ascii_digit),
            Self::In(texts) => texts.iter().any(|text| text.as_bytes() == segment),
        }
    }

    /// The type's name, without the literals of `in`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Uuid => "uuid",
            Self::Hex => "hex",
            Self::Slug => "slug",
            Self::Date => "date",
            Self::In(_) => "in",
        }
    }
}

impl fmt::Display for SegmentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn literal(part: &str) -> Result<Box<str>, TemplateError> {
    let mut decoded = String::with_capacity(part.len());
    match path::decode_segment(part, &mut decoded) {
        Ok(()) => Ok(decoded.into_boxed_str()),
        Err(PathError::Ambiguous(rule) | PathError::TooLong(rule)) => {
            Err(TemplateError::Literal { segment: part.to_owned(), rule: advice(part).unwrap_or(rule) })
        }
    }
}

/// What somebody who writes this probably wants.
fn advice(part: &str) -> Option<&'static str> {
    match part {
        _ if part.contains('?') => Some("a query is no part of a path: match it in `when: query:`"),
        _ if part.contains(['[', '(', '^', '|', '$', '\\']) => {
            Some("templates have no regular expressions: use `{name}`, or a type such as `{name:int}` or `{name:uuid}`")
        }
        _ if part.contains('%') => None,
        _ if part.contains(['#', ';']) => Some("a path has no fragment and no parameters behind `;`"),
        _ => None,
    }
}

/// Groups of so many digits of a kind, a hyphen between them.
fn has_groups<const N: usize>(bytes: &[u8], lengths: [usize; N], is_digit: impl Fn(&u8) -> bool) -> bool {
    let mut rest = bytes;
    for (place, length) in lengths.into_iter().enumerate() {
        if place > 0 {
            let Some(tail) = rest.strip_prefix(b"-") else { return false };
            rest = tail;
        }
        let Some((group, tail)) = rest.split_at_checked(length) else { return false };
        if !group.iter().fold(true, |digits, byte| digits & is_digit(byte)) {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_take_what_they_say() {
        let cases = [
            ("int", "0 7 1234567890123456789", "00 01 -1 12345678901234567890 1a"),
            (
                "uuid",
                "123e4567-e89b-12d3-a456-426614174000 123E4567-E89B-12D3-A456-426614174000",
                "123e4567e89b12d3a456426614174000 123e4567-e89b-12d3-a456-42661417400g",
            ),
            ("hex", "0 DEADbeef", "g 0x1"),
            ("slug", "a a-1 abc-def", "-a a- a--b A"),
            ("date", "2026-11-21", "2026-1-21 26-11-21 2026-11-211"),
            ("in(a,b%20c)", "a", "b ab"),
        ];
        for (name, yes, no) in cases {
            let kind = SegmentType::parse(name).unwrap();
            for segment in yes.split(' ') {
                assert!(kind.matches(segment.as_bytes()), "{name} takes {segment}");
            }
            for segment in no.split(' ') {
                assert!(!kind.matches(segment.as_bytes()), "{name} refuses {segment}");
            }
        }
        assert!(SegmentType::parse("in(a,b%20c)").unwrap().matches(b"b c"));
    }

    #[test]
    fn odd_segments_are_errors() {
        for text in [
            "",
            "v1",
            "/a*",
            "/{a",
            "/a}",
            "/{}",
            "/{a:}",
            "/{a:re(.*)}",
            "/**/a",
            "/a/**/",
            "/a//b",
            "/..",
            "/a;b",
            "/%2f",
            "/{a:in()}",
            "/***",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn habits_from_elsewhere_get_advice() {
        let error = |text: &str| Template::parse(text).unwrap_err().to_string();
        assert!(error("/a/[0-9]+").contains("no regular expressions"));
        assert!(error("/a?x=1").contains("`when: query:`"));
        assert!(error("/a/%2f").contains("an escape of"));
    }

    #[test]
    fn a_literal_star_is_escaped() {
        assert_eq!(Template::parse("/%2A").unwrap().segments, [Segment::Literal("*".into())]);
    }
}
