//! The one module that parses YAML.
//!
//! A document becomes a [`Node`] tree, read by serde-saphyr under strict options and a budget; what the tree
//! must look like is judged elsewhere, from the table of keys. Duplicate keys pass through here, so that the
//! checker can refuse them together with all other errors and show both places.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, NonFiniteFloatPolicy, Options, Spanned, UserMessageFormatter};

use crate::diagnostic::{Fault, quoted};
use crate::node::{Entry, Node, Value};
use crate::secret::speaks_of_secrets;
use crate::source::Place;

/// Deepest nesting; a policy needs eight levels.
const MOST_DEPTH: usize = 32;
/// Most values in a document: some 10,000 declared tokens.
const MOST_NODES: usize = 250_000;
/// Most events an alias may replay, in all: aliases are a convenience here, never a multiplier.
const MOST_REPLAYED: usize = 20_000;

/// Reads `text`, which is the source of number `source`.
pub(crate) fn parse(text: &str, source: u32) -> Result<Node, Fault> {
    match serde_saphyr::from_str_with_options::<Document>(text, options()) {
        Ok(Document(mut node)) => {
            node.for_each_place(&mut |place| place.source = source);
            Ok(node)
        }
        Err(err) => Err(fault(&err, text, source)),
    }
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_depth: MOST_DEPTH,
        flow_nesting_limit: MOST_DEPTH,
        max_nodes: MOST_NODES,
        max_events: 3 * MOST_NODES,
        max_documents: 1,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_recorded_anchor_events: 10 * MOST_REPLAYED,
        max_total_scalar_bytes: 64 * 1024 * 1024,
    };
    let aliases: AliasLimits = serde_saphyr::alias_limits! {
        max_total_replayed_events: MOST_REPLAYED,
        max_replay_stack_depth: 8,
    };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: aliases,
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn fault(err: &Error, text: &str, source: u32) -> Fault {
    let place = err.location().map_or_else(|| Place::whole(source), |location| place_of(&location, text, source));
    let inner = innermost(err);
    let lines = Lines::at(text, place);
    if lines.may_hold_secret() {
        let reason = UserMessageFormatter.format_message(inner);
        let reason = if lines.is_quoted_in(&reason) { String::new() } else { format!(": {reason}") };
        let hint = "the line is not shown: a secret may stand in it; the fault may be in the line above too";
        return Fault::new(place, format!("not valid YAML{reason}")).hint(hint).hidden();
    }
    let fault = told(inner, place, &lines);
    // A comment may speak of secrets, and hold one.
    if speaks_of_secrets(lines.line) { fault.cut() } else { fault }
}

fn told(inner: &Error, place: Place, lines: &Lines<'_>) -> Fault {
    match inner {
        Error::Budget { breach, .. } => Fault::new(place, breach_message(breach)),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            Fault::new(place, "aliases expand to too many values").hint("write the values out")
        }
        Error::MergeKeyNotAllowed { .. } => {
            Fault::new(place, "merge keys (`<<`) are not allowed").hint("write the keys out")
        }
        Error::UnsupportedTag { tag, .. } => Fault::new(place, format!("unknown tag {}", quoted(tag))),
        Error::MultipleDocuments { .. } => Fault::new(place, "a second document begins here; one file holds one"),
        _ => {
            let message = UserMessageFormatter.format_message(inner);
            let hint = lines.hint(&message);
            let fault = Fault::new(place, format!("not valid YAML: {message}"));
            if let Some(hint) = hint { fault.hint(hint) } else { fault }
        }
    }
}

/// The line of a fault, and what it belongs to.
struct Lines<'a> {
    line: &'a str,
    /// From the top-level key above it to the line behind it.
    around: &'a str,
    section: &'a str,
}

impl<'a> Lines<'a> {
    fn at(text: &'a str, place: Place) -> Self {
        let start = text.floor_char_boundary(usize::try_from(place.start).unwrap_or(usize::MAX));
        let end_of = |from: usize| text[from..].find('\n').map_or(text.len(), |at| from + at);
        let end = end_of(start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let is_top = |line: &str| line.starts_with(|first: char| !first.is_whitespace() && first != '#');
        let mut top = begin;
        while top > 0 && !is_top(&text[top..]) {
            top = text[..top - 1].rfind('\n').map_or(0, |at| at + 1);
        }
        let around = &text[top..end_of((end + 1).min(text.len()))];
        Self { line: &text[begin..end], around, section: around.lines().next().unwrap_or_default() }
    }

    /// Whether the line, or the top-level key it belongs to, speaks of secrets: what is broken there may be one.
    fn may_hold_secret(&self) -> bool {
        speaks_of_secrets(code_of(self.line)) || speaks_of_secrets(code_of(self.section))
    }

    /// Whether something of these lines is in `message`; what the parser says without them is fit for anybody.
    fn is_quoted_in(&self, message: &str) -> bool {
        let words = |text: &'a str| {
            text.split(|character: char| !character.is_alphanumeric()).filter(|word| word.chars().count() > 2)
        };
        let message = message.to_lowercase();
        self.around.lines().any(|line| words(line).any(|word| message.contains(&word.to_lowercase())))
    }

    /// What is most often behind such a message, where there is more to say than the parser does.
    fn hint(&self, message: &str) -> Option<&'static str> {
        let has_brace = self.line.contains('{') && self.line.contains('[');
        if message.contains("flow sequence") && has_brace {
            return Some("in brackets, quote a text that has braces or commas: [ \"GET /v1/orders/{id}\" ]");
        }
        let colons = ["simple key", "expected ':'", "mapping values are not allowed"];
        let is_about_colon = colons.iter().any(|words| message.contains(words));
        is_about_colon.then_some("a key ends with a colon and a blank; look at the line above too")
    }
}

/// A line without its comment. Where a quote stands before it, it may be no comment.
fn code_of(line: &str) -> &str {
    let at = if line.starts_with('#') { Some(0) } else { line.find(" #") };
    match at {
        Some(at) if !line[..at].contains(['"', '\'']) => &line[..at],
        _ => line,
    }
}

fn innermost(mut err: &Error) -> &Error {
    while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = err {
        err = error;
    }
    err
}

fn breach_message(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("nested deeper than {MOST_DEPTH} levels"),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => format!("more than {MOST_NODES} values"),
        BudgetBreach::Documents { .. } => "a second document begins here; one file holds one".to_owned(),
        BudgetBreach::Aliases { .. }
        | BudgetBreach::Anchors { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => "too many anchors and aliases; write the values out".to_owned(),
        _ => "too large for a configuration file".to_owned(),
    }
}

/// The place of a location that may know only line and column, or lie behind the end.
fn place_of(location: &Location, text: &str, source: u32) -> Place {
    let mut place = exact_place(location).unwrap_or_else(|| {
        let number = |value: u64| usize::try_from(value).unwrap_or(1).saturating_sub(1);
        let (line, column) = (number(location.line()), number(location.column()));
        let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        let within = text[before..].chars().take_while(|character| *character != '\n').take(column);
        let start = before + within.map(char::len_utf8).sum::<usize>();
        Place { source: 0, start: u32::try_from(start).unwrap_or(0), len: 0 }
    });
    place.source = source;
    place
}

fn exact_place(location: &Location) -> Option<Place> {
    let span = location.span();
    let start = u32::try_from(span.byte_offset()?).ok()?;
    Some(Place { source: 0, start, len: u32::try_from(span.byte_len().unwrap_or(0)).ok()? })
}

/// A whole document.
struct Document(Node);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: exact_place(&spanned.referenced).unwrap_or_default(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.try_into().unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<Key>>()? {
            let key_at = exact_place(&key.referenced).unwrap_or_default();
            entries.push(Entry { key: key.value.0, key_at, value: access.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}

/// A key: a scalar, kept as text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor).map(Self)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name as key")
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}
