//! A YAML document as a tree in which every key and value knows its place.

use crate::source::Place;

/// A value of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it is written; for an alias, where it is used.
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// What a node is, by YAML's core schema.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Flag(bool),
    /// Saturating: no key takes a number this large.
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its value. Keys may repeat: the checker refuses that, and shows both places.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Place,
    pub(crate) value: Node,
}

impl Node {
    /// The value of `key`, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a text node.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// How a message names what was found.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Flag(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Calls `visit` with every place in the tree.
    pub(crate) fn for_each_place(&mut self, visit: &mut impl FnMut(&mut Place)) {
        visit(&mut self.at);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.for_each_place(visit)),
            Value::Map(entries) => {
                for entry in entries {
                    visit(&mut entry.key_at);
                    entry.value.for_each_place(visit);
                }
            }
            Value::Null | Value::Flag(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// Calls `visit` with every text in the tree, keys included, until it returns true; whether it did.
    pub(crate) fn any_text(&self, visit: &mut impl FnMut(&str, Place) -> bool) -> bool {
        match &self.value {
            Value::Text(text) => visit(text, self.at),
            Value::List(items) => items.iter().any(|item| item.any_text(visit)),
            Value::Map(entries) => {
                entries.iter().any(|entry| visit(&entry.key, entry.key_at) || entry.value.any_text(visit))
            }
            Value::Null | Value::Flag(_) | Value::Integer(_) | Value::Float(_) => false,
        }
    }
}
