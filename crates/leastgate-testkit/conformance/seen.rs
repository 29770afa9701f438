//! What an upstream saw, in its own words: the lines of its `seen.log`, as `peers/README.md` describes them.

use std::fs;
use std::path::Path;

/// One request as the upstream read it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    columns: Vec<String>,
}

macro_rules! columns {
    ($($name:ident $at:literal)*) => {
        impl Seen {
            $(pub(crate) fn $name(&self) -> &str { &self.columns[$at] })*
        }
    };
}

columns! {
    cell 0 method 1 decoded 3 port 4 host 5 authorization 6 subject 7 forwarded_for 8 expect 9 te 10 connection 11 upgrade 12
    length 13 coding 14 file 15
}

impl Seen {
    pub(crate) fn parse(line: &str) -> Self {
        let columns: Vec<String> = line.split('\t').map(plain).collect();
        assert_eq!(columns.len(), 16, "a line of an upstream's log: {line}");
        Self { columns }
    }

    /// The target as it came. Some servers only keep the whole request line.
    pub(crate) fn target(&self) -> &str {
        let column = &self.columns[2];
        column.split(' ').nth(1).unwrap_or(column)
    }
}

/// Every line so far, bytes as Latin-1. Of a line that is still being written nothing.
pub(crate) fn read(log: &Path) -> Vec<Seen> {
    let bytes = fs::read(log).unwrap_or_default();
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(Seen::parse).collect()
}

/// nginx and Apache write some bytes as escapes.
fn plain(column: &str) -> String {
    let mut text = String::new();
    let mut rest = column;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let hex = rest.strip_prefix('x').and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        match (hex, rest.chars().next()) {
            (Some(byte), _) => {
                text.push(char::from(byte));
                rest = &rest[3..];
            }
            (None, Some(c @ ('"' | '\\'))) => {
                text.push(c);
                rest = &rest[1..];
            }
            _ => text.push('\\'),
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(plain(r#"a\x22b\"c\\d\xe9\q\"#), "a\"b\"c\\d\u{e9}\\q\\");
        let line = "c\tGET\tGET /a\\x5cb HTTP/1.1\t/a\t1\th\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-";
        assert_eq!((Seen::parse(line).target(), Seen::parse(line).host()), ("/a\\b", "h"));
    }
}
