//! From a text to a tree, with what holds for every file: no token may stand in it.

use crate::diagnostic::Fault;
use crate::node::{Node, Value};
use crate::secret::find_token;
use crate::source::{Place, Sources};
use crate::yaml;

/// Parses source number `source`. An empty document is a mapping without keys.
pub(crate) fn parse(sources: &Sources, source: u32) -> Result<Node, Fault> {
    refuse_token_text(sources, source)?;
    let text = sources.of(Place::whole(source)).map_or("", |source| source.text.as_str());
    let mut node = yaml::parse(text, source)?;
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    Ok(node)
}

/// Refuses a source with a token anywhere in it, comments included, before anything of it could be shown.
pub(crate) fn refuse_token_text(sources: &Sources, source: u32) -> Result<(), Fault> {
    let text = sources.of(Place::whole(source)).map_or("", |source| source.text.as_str());
    match find_token(text) {
        Some((start, len)) => Err(exposed(Place {
            source,
            start: u32::try_from(start).unwrap_or(0),
            len: u32::try_from(len).unwrap_or(0),
        })),
        None => Ok(()),
    }
}

/// Refuses a token that only shows once escapes and folded lines are read.
pub(crate) fn refuse_tokens(node: &Node, faults: &mut Vec<Fault>) {
    node.any_text(&mut |text, place| {
        let found = find_token(text).is_some();
        if found {
            faults.push(exposed(place));
        }
        found
    });
}

fn exposed(place: Place) -> Fault {
    Fault::new(place, "a token stands here, in plain text")
        .hint("revoke it, for it is exposed; files hold digests (leastgate token create --declare), never tokens")
        .hidden()
}
