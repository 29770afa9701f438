//! The table of hostile and odd requests, `config/attacks.tsv`: its form, and the bytes a row stands for.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use crate::paths;
use crate::token::Token;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Its name.
    pub id: String,
    /// The statement of the design it tests.
    pub statement: String,
    raw: String,
    /// What may be answered: alternatives of one answer a request.
    pub answers: Vec<Vec<Expected>>,
    /// The reasons that may be recorded: alternatives of one a request.
    pub reasons: Vec<Vec<String>>,
    /// What the upstream may have got, one a request.
    pub forwarded: Vec<Forwarded>,
    /// Why it is there; the advisories it comes from.
    pub note: String,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The connection ends without an answer.
    Close,
    /// A status.
    Status {
        /// Its code.
        code: u16,
        /// Whether the connection must end after it.
        closes: bool,
    },
}

/// What the upstream may have got of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Not a byte.
    Nothing,
    /// Method and target of the row's first line.
    AsSent,
    /// This target, with this method if there is one.
    Target(Option<String>, String),
    /// Nothing, or a request for this target that never ended.
    Unfinished(String),
}

/// The bytes of a row.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// What the client sends.
    pub sent: Vec<u8>,
    /// Whether it then says that nothing more comes.
    pub ends: bool,
}

/// The table of the repository.
#[must_use]
pub fn table() -> Vec<Attack> {
    let path = paths::workspace().join("config/attacks.tsv");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads a table: lines that begin with `#` are comments, the first other line names the columns.
pub fn parse(text: &str) -> Result<Vec<Attack>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    let (_, header) = lines.next().ok_or("no header")?;
    if header != "id\tstatement\traw\tstatus\treason\tforwarded\tnote" {
        return Err(format!("unexpected columns: {header:?}"));
    }
    let mut ids = HashSet::new();
    lines
        .map(|(number, line)| {
            let attack = parse_row(line).map_err(|error| format!("line {}: {error}", number + 1))?;
            if ids.insert(attack.id.clone()) {
                Ok(attack)
            } else {
                Err(format!("line {}: {} again", number + 1, attack.id))
            }
        })
        .collect()
}

fn parse_row(line: &str) -> Result<Attack, String> {
    let cells: Vec<&str> = line.split('\t').collect();
    let [id, statement, raw, status, reason, forwarded, note] = cells[..] else {
        return Err(format!("{} columns", cells.len()));
    };
    if note.is_empty() || statement.is_empty() {
        return Err("no statement or no note".to_owned());
    }
    let answers: Vec<Vec<Expected>> = status.split('|').map(parse_answers).collect::<Result<_, _>>()?;
    let reasons = reason.split('|').map(|sequence| sequence.split(',').map(str::to_owned).collect()).collect();
    let forwarded = forwarded.split(',').map(parse_forwarded).collect();
    Ok(Attack {
        id: id.to_owned(),
        statement: statement.to_owned(),
        raw: raw.to_owned(),
        answers,
        reasons,
        forwarded,
        note: note.to_owned(),
    })
}

fn parse_answers(sequence: &str) -> Result<Vec<Expected>, String> {
    sequence.split(',').map(parse_answer).collect()
}

fn parse_answer(text: &str) -> Result<Expected, String> {
    if text == "close" {
        return Ok(Expected::Close);
    }
    let (code, closes) = text.strip_suffix("+close").map_or((text, false), |code| (code, true));
    let code = code.parse().map_err(|_| format!("not a status: {text:?}"))?;
    Ok(Expected::Status { code, closes })
}

fn parse_forwarded(text: &str) -> Forwarded {
    match text {
        "-" => Forwarded::Nothing,
        "=" => Forwarded::AsSent,
        text => match (text.strip_prefix('~'), text.split_once(' ')) {
            (Some(target), _) => Forwarded::Unfinished(target.to_owned()),
            (None, Some((method, target))) => Forwarded::Target(Some(method.to_owned()), target.to_owned()),
            (None, None) => Forwarded::Target(None, text.to_owned()),
        },
    }
}

impl Attack {
    /// The bytes to send, with the secrets of `tokens` (by upper-case placeholder) and the default host in place.
    pub fn bytes(&self, tokens: &BTreeMap<&str, &Token>) -> Result<Bytes, String> {
        let mut bytes = Bytes::default();
        let (text, ends) = self.raw.strip_suffix("{EOF}").map_or((self.raw.as_str(), false), |text| (text, true));
        bytes.ends = ends;
        let length = match text.split_once("{LEN}") {
            Some((_, after)) => {
                let (_, body) = after.split_once("\\r\\n\\r\\n").ok_or("{LEN} without a body")?;
                expand(body, tokens, 0)?.len()
            }
            None => 0,
        };
        bytes.sent = expand(text, tokens, length)?;
        Ok(bytes)
    }

    /// The first line as sent, split at spaces: method and target.
    #[must_use]
    pub fn request_line(sent: &[u8]) -> (String, String) {
        let line = sent.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text: String = line.iter().map(|byte| char::from(*byte)).collect();
        let mut words = text.trim_end().split(' ');
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned())
    }
}

/// Replaces escapes and placeholders.
fn expand(text: &str, tokens: &BTreeMap<&str, &Token>, length: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if rest.starts_with('{') {
            let end = rest.find('}').ok_or_else(|| format!("an open placeholder: {rest}"))?;
            out.extend(placeholder(&rest[1..end], tokens, length)?);
            rest = &rest[end + 1..];
        } else {
            let (byte, used) = unescape(rest)?;
            out.push(byte);
            rest = &rest[used..];
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// The byte of the escape that `text` begins with, and the escape's length.
fn unescape(text: &str) -> Result<(u8, usize), String> {
    let fault = || format!("not an escape: {text:.8}");
    match text.as_bytes().get(1).ok_or_else(fault)? {
        b'r' => Ok((b'\r', 2)),
        b'n' => Ok((b'\n', 2)),
        b't' => Ok((b'\t', 2)),
        b'\\' => Ok((b'\\', 2)),
        b'x' => {
            let digits = text.get(2..4).ok_or_else(fault)?;
            Ok((u8::from_str_radix(digits, 16).map_err(|_| fault())?, 4))
        }
        _ => Err(fault()),
    }
}

fn placeholder(text: &str, tokens: &BTreeMap<&str, &Token>, length: usize) -> Result<Vec<u8>, String> {
    if text == "HOST" {
        return Ok(b"orders.test".to_vec());
    }
    if text == "LEN" {
        return Ok(length.to_string().into_bytes());
    }
    if let Some((what, count)) = text.rsplit_once('*') {
        let count = count.parse().map_err(|_| format!("not a count: {{{text}}}"))?;
        return Ok(expand(what, tokens, length)?.repeat(count));
    }
    let name = text.trim_end_matches(['^', '!', '%']);
    let token = tokens.get(name).ok_or_else(|| format!("no such placeholder: {{{text}}}"))?;
    Ok(varied(token.secret(), &text[name.len()..]).into_bytes())
}

fn varied(secret: &str, how: &str) -> String {
    match how {
        "^" => secret[..9].to_owned() + &secret[9..].chars().map(swap_case).collect::<String>(),
        "!" => secret[..secret.len() - 1].to_owned() + if secret.ends_with('0') { "1" } else { "0" },
        "%" => secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        _ => secret.to_owned(),
    }
}

fn swap_case(c: char) -> char {
    if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "# a comment\nid\tstatement\traw\tstatus\treason\tforwarded\tnote\n";

    fn one(raw: &str) -> Attack {
        parse(&format!("{HEADER}a\tP1\t{raw}\t200,403+close|close\tx,y|z\t=,-\twhy\n")).unwrap().remove(0)
    }

    fn sent(raw: &str) -> String {
        let token = Token::new("reader", &[]);
        String::from_utf8(one(raw).bytes(&BTreeMap::from([("READER", &token)])).unwrap().sent).unwrap()
    }

    #[test]
    fn a_row_is_read() {
        let attack = one("GET");
        let status = |code, closes| Expected::Status { code, closes };
        assert_eq!(attack.answers, [vec![status(200, false), status(403, true)], vec![Expected::Close]]);
        assert_eq!(attack.reasons, [vec!["x", "y"], vec!["z"]]);
        assert_eq!(attack.forwarded, [Forwarded::AsSent, Forwarded::Nothing]);
    }

    #[test]
    fn escapes_and_placeholders_become_bytes() {
        assert_eq!(sent("a\\r\\n\\x41\\\\{b*3}{/c*2}{HOST}"), "a\r\nA\\bbb/c/corders.test");
        assert_eq!(sent("L: {LEN}\\r\\n\\r\\n{x*12}\\n"), "L: 13\r\n\r\nxxxxxxxxxxxx\n");
        assert!(one("a{EOF}").bytes(&BTreeMap::new()).unwrap().ends);
    }

    #[test]
    fn tokens_are_varied() {
        let token = Token::new("reader", &[]);
        assert_ne!(varied(token.secret(), "^"), token.secret());
        assert_ne!(varied(token.secret(), "!"), token.secret());
        assert!(varied(token.secret(), "%").starts_with("%6c%67%74%5f"));
    }

    #[test]
    fn mistakes_are_refused() {
        for raw in ["{NOBODY}", "\\q", "{open", "\\x4"] {
            one(raw).bytes(&BTreeMap::new()).unwrap_err();
        }
        assert!(
            parse(&format!("{HEADER}a\tP1\tx\t200\ty\t-\tn\na\tP1\tx\t200\ty\t-\tn\n")).unwrap_err().contains("again")
        );
    }

    #[test]
    fn the_table_of_the_repository_is_well_formed_and_long_enough() {
        let attacks = table();
        assert!(attacks.len() >= 200, "{} rows", attacks.len());
        for statement in [
            "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15", "P16",
            "P17", "P18", "P19", "P21", "P22",
        ] {
            assert!(attacks.iter().any(|attack| attack.statement == statement), "no row for {statement}");
        }
    }
}
