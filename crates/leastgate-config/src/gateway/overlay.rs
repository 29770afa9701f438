//! Laying one value over a document: what an environment variable or a flag does.

use crate::node::{Entry, Node, Value};
use crate::shape::{Shape, closest};
use crate::source::Place;

/// Sets the value at `path`; if the table of keys has no such path, the error is the one most likely meant.
pub(super) fn set(node: &mut Node, shape: &Shape, path: &[String], value: Node) -> Result<(), Option<Vec<String>>> {
    let Some((name, rest)) = path.split_first() else {
        *node = value;
        return Ok(());
    };
    let (key, inner) = match shape {
        Shape::Map(_, inner) => (existing(node, name), **inner),
        _ => {
            let fields = shape.fields();
            let field = fields.iter().find(|field| field.name == name);
            let field = field.ok_or_else(|| suggest(name, rest, fields.iter().map(|field| field.name)))?;
            (name.clone(), field.shape)
        }
    };
    if matches!(shape, Shape::Secret(_)) || !matches!(node.value, Value::Map(_)) {
        // Of the places a secret can be read from, the one named last is the one meant; and where a file has
        // something that is no mapping, the override mends it.
        node.value = Value::Map(Vec::new());
    }
    // Always so, by the lines above.
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    set(entry(entries, key, value.at), &inner, rest, value).map_err(|meant| prefixed(name, meant))
}

/// Adds `key` with a copy of `value` to a mapping that lacks it.
pub(super) fn set_absent(node: &mut Node, key: &str, value: &Node) {
    let absent = node.get(key).is_none();
    if let Value::Map(entries) = &mut node.value
        && absent
    {
        entries.push(Entry { key: key.to_owned(), key_at: value.at, value: value.clone() });
    }
}

/// The name in the file that a variable's name stands for: case and `-` can't be written in one.
fn existing(node: &Node, name: &str) -> String {
    let folded = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let found = node.entries().iter().find(|entry| folded(&entry.key) == folded(name));
    found.map_or_else(|| name.to_owned(), |entry| entry.key.clone())
}

fn entry(entries: &mut Vec<Entry>, key: String, at: Place) -> &mut Node {
    let position = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        entries.push(Entry { key, key_at: at, value: Node { at, value: Value::Null } });
        entries.len() - 1
    });
    &mut entries[position].value
}

fn suggest<'a>(name: &str, rest: &[String], known: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let meant = closest(name, known)?;
    Some(std::iter::once(meant.to_owned()).chain(rest.iter().cloned()).collect())
}

fn prefixed(name: &str, meant: Option<Vec<String>>) -> Option<Vec<String>> {
    meant.map(|meant| std::iter::once(name.to_owned()).chain(meant).collect())
}
