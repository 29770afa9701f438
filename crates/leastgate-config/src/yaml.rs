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
    if may_hold_secret(text, place) {
        return Fault::new(place, "not valid YAML").hint("the line is not shown: a secret may stand in it").hidden();
    }
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
        _ => Fault::new(place, format!("not valid YAML: {}", UserMessageFormatter.format_message(inner))),
    }
}

/// Whether the line, or the top-level key it belongs to, speaks of secrets: what is broken there may be one.
fn may_hold_secret(text: &str, place: Place) -> bool {
    let start = text.floor_char_boundary(usize::try_from(place.start).unwrap_or(usize::MAX));
    let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let mut above = text[..end].lines().rev();
    let line = above.next().unwrap_or_default();
    let is_top = |line: &&str| line.starts_with(|first: char| !first.is_whitespace() && first != '#');
    let section = std::iter::once(line).chain(above).find(is_top).unwrap_or_default();
    speaks_of_secrets(line) || speaks_of_secrets(section)
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
