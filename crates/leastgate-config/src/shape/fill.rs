//! Writes the defaults into a document, so that the reader and `config show` find every value in it.

use super::{Field, Need, Shape};
use crate::node::{Entry, Node, Value};
use crate::source::Place;
use crate::yaml;

/// Adds every absent key that has a default, at the place of the built-in defaults.
pub(crate) fn fill(node: &mut Node, shape: &Shape) {
    match shape {
        Shape::Object(fields) | Shape::Vault(fields) => fill_object(node, fields),
        Shape::Tagged(tagged) => {
            let word = node.get(tagged.tag).and_then(Node::text).map(str::to_owned);
            let chosen = tagged.variants.iter().find(|(variant, _)| word.as_deref() == Some(variant));
            if let Some((_, fields)) = chosen {
                fill_object(node, fields);
            }
        }
        Shape::Map(_, item) => {
            if let Value::Map(entries) = &mut node.value {
                entries.iter_mut().for_each(|entry| fill(&mut entry.value, item));
            }
        }
        Shape::List(item, ..) => {
            if let Value::List(items) = &mut node.value {
                items.iter_mut().for_each(|node| fill(node, item));
            }
        }
        Shape::Either(_, compound) => fill(node, compound),
        _ => {}
    }
}

fn fill_object(node: &mut Node, fields: &[Field]) {
    let Value::Map(entries) = &mut node.value else { return };
    for field in fields {
        if !entries.iter().any(|entry| entry.key == field.name)
            && let Need::Default(text) = field.need
            // Every default parses: a test loads a file that has none of them.
            && let Ok(value) = yaml::parse(text, 0)
        {
            entries.push(Entry { key: field.name.to_owned(), key_at: Place::default(), value });
        }
        for entry in entries.iter_mut().filter(|entry| entry.key == field.name) {
            fill(&mut entry.value, &field.shape);
        }
    }
}
