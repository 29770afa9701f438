//! How tokens are listed: a filter, an order, and a page at a time.
//!
//! Pages follow a key, not an offset: a token made or revoked meanwhile neither repeats nor hides another, and
//! the last page of a million costs what the first one does.

use leastgate_policy::Timestamp;

use crate::pepper::MadeUnder;
use crate::record::TokenRecord;

/// The most tokens of one page.
pub const MAX_PAGE: u32 = 200;

/// Which tokens to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenQuery {
    /// Those in this state; `None`: all.
    pub state: Option<StateFilter>,
    /// Those of this owner; `None`: all.
    pub owner: Option<String>,
    /// Those of a certain time.
    pub times: TimeFilter,
    /// Those whose digest was made under this pepper; `None`: all.
    pub pepper: Option<MadeUnder>,
    /// Only those that somebody looks after: neither baits nor what stands in for another token.
    pub is_for_review: bool,
    /// Their order, ascending.
    pub sort: SortKey,
    /// How many at most; held to 1 ..= [`MAX_PAGE`].
    pub limit: u32,
    /// Where the page before ended: its [`TokenPage::next_cursor`].
    pub cursor: Option<String>,
    /// The time that tells the expired from the living.
    pub now: Timestamp,
}

impl TokenQuery {
    /// The first page of all tokens, by name.
    #[must_use]
    pub fn all(now: Timestamp) -> Self {
        Self {
            state: None,
            owner: None,
            times: TimeFilter::default(),
            pepper: None,
            is_for_review: false,
            sort: SortKey::Name,
            limit: MAX_PAGE,
            cursor: None,
            now,
        }
    }
}

/// A filter of times; what is `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeFilter {
    /// Those that were neither used nor made since; none where it is not known since then what is used.
    pub unused_since: Option<Timestamp>,
    /// Those made before.
    pub created_before: Option<Timestamp>,
}

/// A state as people ask for it: a token that is past its end counts as expired, unless it is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// In use.
    Active,
    /// Replaced by a successor, in its grace.
    Rotating,
    /// Switched off for now.
    Disabled,
    /// Past its end.
    Expired,
    /// Switched off for good.
    Revoked,
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// The name.
    #[default]
    Name,
    /// The oldest first.
    Created,
    /// The one that ends next first; those without an end last.
    Expires,
    /// The one that lies idle longest first.
    LastUsed,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenPage {
    /// The tokens.
    pub items: Vec<TokenRecord>,
    /// Where the next page begins; `None`: this was the last.
    pub next_cursor: Option<String>,
}

/// Where a page ended: the row's sort key and, where keys are equal, its row id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) sort: SortKey,
    pub(crate) row: i64,
    pub(crate) key: CursorKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CursorKey {
    Text(String),
    Number(i64),
}

impl Cursor {
    /// `n.<row>.<name>`, and with `c`, `e` or `u` `.<row>.<seconds>`: fit for a URL as it is.
    pub(crate) fn encode(&self) -> String {
        let letter = letter(self.sort);
        match &self.key {
            CursorKey::Text(text) => format!("{letter}.{}.{text}", self.row),
            CursorKey::Number(number) => format!("{letter}.{}.{number}", self.row),
        }
    }

    /// `None` when the text is not a cursor of a list sorted by `sort`.
    pub(crate) fn decode(text: &str, sort: SortKey) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        if parts.next()? != letter(sort) {
            return None;
        }
        let row = parts.next()?.parse().ok()?;
        let key = parts.next()?;
        let key = match sort {
            SortKey::Name => CursorKey::Text(key.to_owned()),
            SortKey::Created | SortKey::Expires | SortKey::LastUsed => CursorKey::Number(key.parse().ok()?),
        };
        Some(Self { sort, row, key })
    }
}

fn letter(sort: SortKey) -> &'static str {
    match sort {
        SortKey::Name => "n",
        SortKey::Created => "c",
        SortKey::Expires => "e",
        SortKey::LastUsed => "u",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_returns_to_its_own_order_only() {
        let cursor = Cursor { sort: SortKey::Name, row: 42, key: CursorKey::Text("bot-1".into()) };
        assert_eq!(Cursor::decode(&cursor.encode(), SortKey::Name), Some(cursor.clone()));
        assert_eq!(Cursor::decode(&cursor.encode(), SortKey::Created), None);
        for bad in ["", "n", "n.x.a", "c.1.x", "z.1.a"] {
            assert_eq!(Cursor::decode(bad, SortKey::Created), None, "{bad}");
        }
    }
}
