//! What several files must agree on: a name is defined once, and settings that are not sets stand in one file.

use std::collections::HashMap;

use crate::diagnostic::{Fault, quoted};
use crate::node::Node;
use crate::source::Place;

/// Refuses what is defined in two files, and tokens declared twice anywhere.
pub(super) fn refuse_redefinitions(trees: &[Node], faults: &mut Vec<Fault>) {
    for (section, what) in [("apis", "api"), ("scopes", "scope"), ("roles", "role")] {
        let names = trees.iter().filter_map(|tree| tree.get(section)).map(|names| {
            names.entries().iter().map(|entry| (entry.key.as_str(), entry.key_at)).collect::<HashMap<_, _>>()
        });
        refuse_repeats(names.flat_map(sorted), &format!("the {what}"), faults);
    }
    let rules = trees.iter().flat_map(Node::entries).filter(|entry| entry.key == "token_rules");
    refuse_repeats(rules.map(|entry| ("token_rules", entry.key_at)), "", faults);
    refuse_repeated_tokens(trees, faults);
}

/// A name repeated within one file is reported by the check; here each counts once for its file.
fn sorted(names: HashMap<&str, Place>) -> Vec<(&str, Place)> {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|(_, place)| place.start);
    names
}

fn refuse_repeated_tokens(trees: &[Node], faults: &mut Vec<Fault>) {
    let tokens = || trees.iter().filter_map(|tree| tree.get("tokens")).flat_map(Node::items);
    let key = |name: &'static str| {
        tokens().filter_map(move |token| token.get(name)).filter_map(|node| Some((node.text()?, node.at)))
    };
    refuse_repeats(key("accessor"), "a token with the accessor", faults);
    refuse_repeats(key("digest"), "a token with the digest", faults);
    let mut seen = HashMap::new();
    for token in tokens() {
        let (Some(env), Some(name)) = (token.get("env").and_then(Node::text), token.get("name")) else { continue };
        let Some(text) = name.text() else { continue };
        if let Some(earlier) = seen.insert((env, text), name.at) {
            let message = format!("the name {} is taken in the environment {}", quoted(text), quoted(env));
            faults.push(Fault::new(name.at, message).related(earlier, "taken here"));
        }
    }
}

fn refuse_repeats<'a>(names: impl IntoIterator<Item = (&'a str, Place)>, what: &str, faults: &mut Vec<Fault>) {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for (name, place) in names {
        match seen.get(name) {
            Some(earlier) => {
                let message = format!("{what} {} is defined twice", quoted(name));
                faults.push(Fault::new(place, message.trim_start()).related(*earlier, "first defined here"));
            }
            None => {
                seen.insert(name, place);
            }
        }
    }
}

/// `until` belongs to `mode: shadow` and to nothing else.
pub(super) fn judge_modes(tree: &Node, faults: &mut Vec<Fault>) {
    let apis = tree.get("apis").map(Node::entries).unwrap_or_default();
    for api in apis.iter().map(|entry| &entry.value) {
        let shadow = api.get("mode").filter(|mode| mode.text() == Some("shadow"));
        match (shadow, api.get("until")) {
            (Some(mode), None) => {
                let fault = Fault::new(mode.at, "shadow needs an end");
                faults.push(fault.hint("add until: and a day at most 30 days ahead"));
            }
            (None, Some(until)) => {
                faults.push(Fault::new(until.at, "`until` goes with mode: shadow; this api enforces"));
            }
            _ => {}
        }
    }
}
