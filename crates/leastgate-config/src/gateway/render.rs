//! The configuration in force, written as a file again: `leastgate config show`.

use std::fmt::Write;

use crate::node::{Entry, Node, Value};
use crate::secret::masked;
use crate::shape::Shape;
use crate::source::{Place, Provenance, Sources};
use crate::yaml;

/// `tree` in the order of `shape`; with `origins`, each value says where it comes from.
pub(super) fn render(tree: &Node, shape: &Shape, origins: Option<&Sources>) -> String {
    let mut writer = Writer { out: String::new(), origins };
    writer.mapping(tree, shape, 0);
    writer.out
}

struct Writer<'a> {
    out: String,
    origins: Option<&'a Sources>,
}

impl Writer<'_> {
    fn mapping(&mut self, node: &Node, shape: &Shape, depth: usize) {
        for (key, inner) in keys(node, shape) {
            match node.get(key) {
                Some(value) if matches!(shape, Shape::Secret(_)) => self.entry(key, &unread(value), &inner, depth),
                Some(value) => self.entry(key, value, &inner, depth),
                None => {}
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Node, shape: &Shape, depth: usize) {
        self.out.push_str(&"  ".repeat(depth));
        self.out.push_str(&scalar(key));
        if value.entries().is_empty() {
            let written = format!(": {}", leaf(value));
            self.out.push_str(&written);
            self.origin(value.at);
            self.out.push('\n');
        } else {
            self.out.push_str(":\n");
            self.mapping(value, shape, depth + 1);
        }
    }

    fn origin(&mut self, at: Place) {
        let Some(sources) = self.origins else { return };
        let Some(source) = sources.of(at) else { return };
        let line = sources.locate(at).map_or(0, |(line, ..)| line);
        // Writing to a string can't fail.
        let _ = match source.provenance {
            Provenance::Default => write!(self.out, "  # default"),
            Provenance::File => write!(self.out, "  # {}:{line}", shown(&source.name)),
            Provenance::Override if source.name.starts_with('-') => write!(self.out, "  # {}", shown(&source.name)),
            Provenance::Override => write!(self.out, "  # env {}", shown(&source.name)),
        };
    }
}

/// `tree` as JSON.
pub(super) fn json(node: &Node, shape: &Shape) -> serde_json::Value {
    use serde_json::Value as Json;
    match (&node.value, shape) {
        (Value::Map(_), _) => {
            let is_secret = matches!(shape, Shape::Secret(_));
            let entry = |(key, inner): (&str, Shape)| {
                let value = node.get(key)?;
                Some((key.to_owned(), if is_secret { json(&unread(value), &inner) } else { json(value, &inner) }))
            };
            Json::Object(keys(node, shape).into_iter().filter_map(entry).collect())
        }
        (Value::List(items), Shape::List(item, ..)) => items.iter().map(|node| json(node, item)).collect(),
        (Value::List(items), _) => items.iter().map(|node| json(node, shape)).collect(),
        (Value::Null, _) => Json::Null,
        (Value::Flag(flag), _) => Json::from(*flag),
        (Value::Integer(number), _) => Json::from(*number),
        (Value::Float(number), _) => Json::from(*number),
        (Value::Text(text), _) => Json::from(text.as_str()),
    }
}

/// Where a secret is read from, as far as it can be shown.
fn unread(node: &Node) -> Node {
    let mut shown = node.clone();
    if let Value::Text(text) = &mut shown.value {
        *text = masked(text);
    }
    shown
}

/// The keys of `node` with their shapes: fixed ones in the order of the table, names as they were written.
fn keys<'a>(node: &'a Node, shape: &Shape) -> Vec<(&'a str, Shape)> {
    if let Shape::Map(_, inner) = shape {
        return node.entries().iter().map(|entry| (entry.key.as_str(), **inner)).collect();
    }
    let mut keys: Vec<(&str, Shape)> = Vec::new();
    for field in shape.fields() {
        if !keys.iter().any(|(key, _)| *key == field.name) {
            keys.push((field.name, field.shape));
        }
    }
    keys
}

fn leaf(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => scalar(text),
        Value::List(items) if items.is_empty() => "[]".to_owned(),
        Value::List(items) => format!("[ {} ]", items.iter().map(leaf).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Map(entries) => {
            let entry = |entry: &Entry| format!("{}: {}", scalar(&entry.key), leaf(&entry.value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// `text` plain where YAML reads it back as the same text anywhere, else in double quotes.
fn scalar(text: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:+@-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'/');
    let plain = first
        && text.bytes().all(harmless)
        && !text.ends_with(':')
        && yaml::parse(text, 0).is_ok_and(|node| node.text() == Some(text));
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A file's name for a comment.
fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).collect()
}
