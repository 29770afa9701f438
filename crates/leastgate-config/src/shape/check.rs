//! Holds a document against its shape and reports everything that does not fit, all at once.

use std::collections::HashMap;

use super::{Field, Need, Notation, Shape, Tagged};
use crate::diagnostic::{Fault, quoted};
use crate::node::{Entry, Node, Value};

const SECRET_HINT: &str = "name where the secret is read from: { file: PATH }, { env: NAME } or { credential: NAME }";

/// The most faults looked for: a file made of errors must not cost more than one made of values.
const MOST_FAULTS: usize = 1_000;

/// Adds to `faults` what in `node` does not fit `shape`; stops at some thousand.
pub(crate) fn check(node: &Node, shape: &Shape, faults: &mut Vec<Fault>) {
    if faults.len() >= MOST_FAULTS {
        return;
    }
    match shape {
        Shape::Text(notation) => check_text(node, notation, faults),
        Shape::Flag => expect(node, "true or false", matches!(node.value, Value::Flag(_)), faults),
        Shape::Count(min, max) => check_count(node, *min, *max, faults),
        Shape::CountOr(word, min, max) => check_count_or(node, word, *min, *max, faults),
        Shape::Choice(words, later) => check_choice(node, words, later, faults),
        Shape::List(item, min, max) => check_list(node, item, *min, *max, faults),
        Shape::Map(name, item) => check_map(node, name, item, faults),
        Shape::Object(fields) => check_object(node, fields, faults),
        Shape::Vault(fields) => check_vault(node, fields, faults),
        Shape::Secret(fields) => check_secret(node, fields, faults),
        Shape::Tagged(tagged) => check_tagged(node, tagged, faults),
        Shape::Either(scalar, compound) => check(node, if is_compound(node) { compound } else { scalar }, faults),
        Shape::Later(instead) => faults.push(Fault::new(node.at, "not supported yet").hint(*instead)),
    }
}

fn is_compound(node: &Node) -> bool {
    matches!(node.value, Value::List(_) | Value::Map(_))
}

fn expect(node: &Node, what: &str, fits: bool, faults: &mut Vec<Fault>) {
    if !fits {
        faults.push(unexpected(node, what));
    }
}

fn unexpected(node: &Node, what: &str) -> Fault {
    let found = match &node.value {
        // Quotes make a text of what would be a number or a flag without them: that is the fault, and not visible.
        Value::Text(text) if is_bare_scalar(text) => format!("the text {}", quoted(text)),
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        _ => node.kind().to_owned(),
    };
    Fault::new(node.at, format!("expected {what}, found {found}"))
}

fn is_bare_scalar(text: &str) -> bool {
    text.parse::<f64>().is_ok() || matches!(text, "true" | "false")
}

fn check_text(node: &Node, notation: &Notation, faults: &mut Vec<Fault>) {
    let Value::Text(text) = &node.value else {
        // What a bare number lacks is a unit or quotes: the notation's own check knows which.
        let hint = (notation.check)("1").err().unwrap_or_else(|| "write it in quotes".to_owned());
        return faults.push(unexpected(node, "text").hint(hint));
    };
    if let Err(reason) = (notation.check)(text) {
        faults.push(Fault::new(node.at, format!("{}: {reason}", quoted(text))));
    }
}

fn check_count(node: &Node, min: u64, max: u64, faults: &mut Vec<Fault>) {
    let fits = is_within(node, min, max);
    if min == max {
        expect(node, &format!("the number {min}"), fits, faults);
    } else {
        expect(node, &format!("a whole number from {min} to {max}"), fits, faults);
    }
}

fn is_within(node: &Node, min: u64, max: u64) -> bool {
    let Value::Integer(number) = node.value else { return false };
    u64::try_from(number).is_ok_and(|number| (min..=max).contains(&number))
}

fn check_count_or(node: &Node, word: &str, min: u64, max: u64, faults: &mut Vec<Fault>) {
    let fits = match &node.value {
        Value::Integer(_) => is_within(node, min, max),
        Value::Text(text) => text == word,
        _ => false,
    };
    expect(node, &format!("{word} or a whole number from {min} to {max}"), fits, faults);
}

fn check_choice(node: &Node, words: &[&str], later: &[&str], faults: &mut Vec<Fault>) {
    let Some(text) = node.text() else {
        return faults.push(unexpected(node, &one_of(words)));
    };
    if later.contains(&text) {
        let hint = format!("it can be {}", words.join(" or "));
        faults.push(Fault::new(node.at, format!("{} is not supported yet", quoted(text))).hint(hint));
    } else if !words.contains(&text) {
        faults.push(with_closest(unexpected(node, &one_of(words)), text, words.iter().copied()));
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [only] => (*only).to_owned(),
        _ => format!("one of {}", words.join(", ")),
    }
}

fn check_list(node: &Node, item: &Shape, min: usize, max: Option<(usize, &'static str)>, faults: &mut Vec<Fault>) {
    let Value::List(items) = &node.value else {
        return faults.push(unexpected(node, "a list"));
    };
    if items.len() < min {
        faults.push(Fault::new(node.at, "the list is empty"));
    }
    for (position, node) in items.iter().enumerate() {
        match max {
            Some((most, message)) if position >= most => return faults.push(Fault::new(node.at, message)),
            _ => check(node, item, faults),
        }
    }
}

fn check_map(node: &Node, name: &Notation, item: &Shape, faults: &mut Vec<Fault>) {
    let Value::Map(entries) = &node.value else {
        return faults.push(unexpected(node, "a mapping"));
    };
    refuse_duplicates(entries, faults);
    for entry in entries {
        if let Err(reason) = (name.check)(&entry.key) {
            faults.push(Fault::new(entry.key_at, format!("{} can't be a name here: {reason}", quoted(&entry.key))));
        }
        check(&entry.value, item, faults);
    }
}

fn check_object(node: &Node, fields: &[Field], faults: &mut Vec<Fault>) {
    let Value::Map(entries) = &node.value else {
        return faults.push(unexpected(node, "a mapping"));
    };
    check_entries(entries, &fields.iter().collect::<Vec<_>>(), faults);
    require(node, fields, faults);
}

fn check_vault(node: &Node, fields: &[Field], faults: &mut Vec<Fault>) {
    let known = |entry: &Entry| fields.iter().any(|field| field.name == entry.key);
    if matches!(&node.value, Value::Map(entries) if entries.iter().all(known)) {
        let mut inner = Vec::new();
        check_object(node, fields, &mut inner);
        faults.extend(inner.into_iter().map(Fault::hidden));
    } else {
        let names: Vec<&str> = fields.iter().filter(|field| !field.shape.is_later()).map(|field| field.name).collect();
        let message = format!("expected a mapping with the key {} and no other", names.join(", "));
        faults.push(Fault::new(node.at, message).hint(SECRET_HINT).hidden());
    }
}

fn check_secret(node: &Node, fields: &[Field], faults: &mut Vec<Fault>) {
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let Value::Map(entries) = &node.value else {
        return faults.push(Fault::new(node.at, "the secret itself does not belong here").hint(SECRET_HINT).hidden());
    };
    match entries.as_slice() {
        [entry] if names.contains(&entry.key.as_str()) => {
            let shape = fields.iter().find(|field| field.name == entry.key).map(|field| field.shape);
            let mut inner = Vec::new();
            shape.iter().for_each(|shape| check(&entry.value, shape, &mut inner));
            if !inner.is_empty() {
                // The reason would quote the value.
                let fault = Fault::new(entry.value.at, format!("a secret can't be read from such a `{}`", entry.key));
                faults.push(fault.hint(SECRET_HINT).hidden());
            }
        }
        _ => faults
            .push(Fault::new(node.at, "expected one of the keys file, env and credential").hint(SECRET_HINT).hidden()),
    }
}

fn check_tagged(node: &Node, tagged: &Tagged, faults: &mut Vec<Fault>) {
    let words: Vec<&str> = tagged.variants.iter().map(|(word, _)| *word).collect();
    let Value::Map(entries) = &node.value else {
        return faults.push(unexpected(node, "a mapping"));
    };
    let Some(choice) = node.get(tagged.tag) else {
        return faults.push(missing(node, tagged.tag, &words.join("|")));
    };
    let chosen = tagged.variants.iter().find(|(word, _)| choice.text() == Some(word));
    let Some((_, fields)) = chosen else {
        return check_choice(choice, &words, tagged.later, faults);
    };
    check_entries(entries, &fields.iter().collect::<Vec<_>>(), faults);
    require(node, fields, faults);
}

fn check_entries(entries: &[Entry], fields: &[&Field], faults: &mut Vec<Fault>) {
    refuse_duplicates(entries, faults);
    for entry in entries {
        if faults.len() >= MOST_FAULTS {
            return;
        }
        match fields.iter().find(|field| field.name == entry.key) {
            Some(Field { shape: Shape::Later(instead), name, .. }) => {
                faults.push(Fault::new(entry.key_at, format!("`{name}` is not supported yet")).hint(*instead));
            }
            Some(field) => check(&entry.value, &field.shape, faults),
            None => faults.push(unknown(entry, fields)),
        }
    }
}

fn unknown(entry: &Entry, fields: &[&Field]) -> Fault {
    let known = fields.iter().filter(|field| !field.shape.is_later()).map(|field| field.name);
    let fault = Fault::new(entry.key_at, format!("unknown key {}", quoted(&entry.key))).cut();
    with_closest(fault, &entry.key, known)
}

fn refuse_duplicates(entries: &[Entry], faults: &mut Vec<Fault>) {
    let mut first = HashMap::new();
    for entry in entries {
        if faults.len() >= MOST_FAULTS {
            return;
        }
        if let Some(earlier) = first.insert(entry.key.as_str(), entry.key_at) {
            let fault = Fault::new(entry.key_at, format!("{} is written twice", quoted(&entry.key)));
            faults.push(fault.related(earlier, "first here").cut());
        }
    }
}

fn require(node: &Node, fields: &[Field], faults: &mut Vec<Fault>) {
    for field in fields {
        if matches!(field.need, Need::Required) && node.get(field.name).is_none() {
            faults.push(missing(node, field.name, &field.shape.sample()));
        }
    }
}

fn missing(node: &Node, name: &str, sample: &str) -> Fault {
    let fault = Fault::new(node.at, format!("the key `{name}` is missing"));
    // Of a plain value an example says nothing that the name does not.
    if sample == "…" { fault } else { fault.hint(format!("such as {name}: {sample}")) }
}

fn with_closest<'a>(fault: Fault, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Fault {
    match closest(name, known.clone()) {
        Some(meant) => fault.hint(format!("did you mean `{meant}`?")),
        None => fault.hint(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
    }
}

/// The one of `known` that `name` was most likely meant to be.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    // A key of this length is no slip of the finger, and the distance is quadratic.
    if name.len() > 64 {
        return None;
    }
    known
        .map(|word| (strsim::damerau_levenshtein(&folded, &word.replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
