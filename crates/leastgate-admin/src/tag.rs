//! The entity tag of a token (RFC 9110 §8.8.3): its accessor and its version, `"0aZ9000001.3"`. A name goes on to a successor,
//! whose versions begin anew: a version alone would be that of another token.

use std::fmt;

use leastgate_policy::Accessor;
use leastgate_store::TokenRecord;

/// What an answer shows, and a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenTag {
    pub(crate) accessor: Accessor,
    pub(crate) version: u64,
}

impl TokenTag {
    /// What a tag looks like, as a pattern of JSON Schema.
    pub(crate) const PATTERN: &str = r#""[0-9A-Za-z]{10}\.[0-9]{1,19}""#;

    pub(crate) fn of(record: &TokenRecord) -> Self {
        Self { accessor: record.accessor, version: record.version }
    }

    /// Reads what [`fmt::Display`] writes, quotes and all: one strong tag.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (accessor, version) = text.strip_prefix('"')?.strip_suffix('"')?.split_once('.')?;
        let is_plain = version.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { accessor: accessor.parse().ok()?, version: version.parse().ok().filter(|_| is_plain)? })
    }
}

impl fmt::Display for TokenTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.accessor, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        let text = r#""0aZ9000001.3""#;
        assert_eq!(TokenTag::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "*",
            "3",
            r#""3""#,
            "0aZ9000001.3",
            r#""0aZ9000001.""#,
            r#""0aZ9000001.+3""#,
            r#""0aZ9000001.3.4""#,
            r#""bot.3""#,
            r#"W/"0aZ9000001.3""#,
            r#""0aZ9000001.99999999999999999999""#,
        ] {
            assert_eq!(TokenTag::parse(bad), None, "{bad}");
        }
    }
}
