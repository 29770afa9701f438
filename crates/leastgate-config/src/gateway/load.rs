//! Loading the gateway's file: one path for start, reload and `config validate`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::keys::GATEWAY;
use super::{GatewayConfig, overlay, read, render, rules};
use crate::diagnostic::{Diagnostics, Fault};
use crate::node::{Node, Value};
use crate::shape::{self, View};
use crate::source::{Place, Provenance, Sources, read_file};
use crate::{document, yaml};

/// Largest gateway file.
const MOST_BYTES: u64 = 1024 * 1024;
/// Where the file is looked for if `--config` does not say, in order.
const SEARCHED: [&str; 2] = ["leastgate.yaml", "/etc/leastgate/leastgate.yaml"];
/// What the names of environment variables begin with that set a key.
const PREFIX: &str = "LEASTGATE__";

/// Everything that can set a key. Flags win over the environment, that over the file, and that over the defaults.
#[derive(Clone, Debug, Default)]
pub struct GatewayInputs {
    /// The file; `None` is a start from environment and flags alone.
    pub file: Option<PathBuf>,
    /// The environment: `LEASTGATE__SECTION__KEY` sets `section.key`, the rest is ignored.
    pub env: Vec<(OsString, OsString)>,
    /// What flags set.
    pub flags: Vec<Override>,
}

/// A key set by a flag or by an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// How the user knows it: `--workers`.
    pub name: String,
    /// The key, one name for each level.
    pub path: Vec<String>,
    /// The value, as it would be written in the file.
    pub value: String,
}

/// The gateway's configuration with the origin of every value in it.
#[derive(Clone, Debug)]
pub struct LoadedGateway {
    /// The typed values.
    pub config: GatewayConfig,
    /// The file they come from.
    pub file: Option<PathBuf>,
    tree: Node,
    sources: Sources,
}

impl LoadedGateway {
    /// The configuration in force as a file, every key in it; with `origin` each value says where it comes from.
    /// Secrets are not in it, only where they are read from.
    #[must_use]
    pub fn render(&self, origin: bool) -> String {
        render::render(&self.tree, &GATEWAY, origin.then_some(&self.sources))
    }

    /// An error about the value at `path`, which only its use has shown; the item of a list is named by its number. The
    /// line is not shown, for it may say where a secret is.
    #[must_use]
    pub fn fault(&self, path: &[&str], message: &str, hint: &str) -> Diagnostics {
        let step = |node: &'_ Node, key: &&str| match key.parse::<usize>() {
            Ok(number) => node.items().get(number).map(|item| item.at),
            Err(_) => node.get(key).map(|value| value.at),
        };
        let mut node = &self.tree;
        let mut at = node.at;
        for key in path {
            at = step(node, key).unwrap_or(at);
            node = node.get(key).unwrap_or(node);
        }
        Diagnostics::new(vec![Fault::new(at, message).hint(hint).hidden()], &self.sources)
    }

    /// The same without origins, as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        render::json(&self.tree, &GATEWAY)
    }
}

/// The file to read: `explicit`, or the first that exists of `./leastgate.yaml` and `/etc/leastgate/leastgate.yaml`.
#[must_use]
pub fn find_gateway_file(explicit: Option<&Path>) -> Option<PathBuf> {
    // One that can't even be looked at is found: reading it then says why.
    let mut searched = SEARCHED.iter().map(Path::new);
    explicit.or_else(|| searched.find(|path| path.try_exists().unwrap_or(true))).map(Path::to_owned)
}

/// Reads the gateway's file and everything laid over it.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn load_gateway(inputs: &GatewayInputs) -> Result<LoadedGateway, Diagnostics> {
    assemble(inputs, |sources, overridden| match &inputs.file {
        Some(file) => read_file(sources, file, MOST_BYTES),
        None if overridden => Ok(sources.add("the environment".to_owned(), String::new(), Provenance::Override)),
        None => {
            let source = sources.add(SEARCHED[0].to_owned(), String::new(), Provenance::File);
            let message = format!("no configuration: neither {} nor {} exists", SEARCHED[0], SEARCHED[1]);
            let fault = Fault::new(Place::whole(source), message);
            Err(fault.hint("leastgate init --upstream URL writes one, --config names another"))
        }
    })
}

/// Reads `text` as the gateway's file, `name` being what errors call it by and what paths are relative to.
///
/// # Errors
/// As [`load_gateway`].
pub fn parse_gateway(name: &str, text: &str) -> Result<LoadedGateway, Diagnostics> {
    let add = |sources: &mut Sources, _| Ok(sources.add(name.to_owned(), text.to_owned(), Provenance::File));
    assemble(&GatewayInputs { file: Some(PathBuf::from(name)), ..GatewayInputs::default() }, add)
}

fn assemble(
    inputs: &GatewayInputs,
    base: impl FnOnce(&mut Sources, bool) -> Result<u32, Fault>,
) -> Result<LoadedGateway, Diagnostics> {
    let mut sources = Sources::new();
    let mut faults = Vec::new();
    let loaded = load(inputs, base, &mut sources, &mut faults);
    match loaded {
        Some((config, tree)) if faults.is_empty() => {
            Ok(LoadedGateway { config, file: inputs.file.clone(), tree, sources })
        }
        _ => Err(Diagnostics::new(faults, &sources)),
    }
}

fn load(
    inputs: &GatewayInputs,
    base: impl FnOnce(&mut Sources, bool) -> Result<u32, Fault>,
    sources: &mut Sources,
    faults: &mut Vec<Fault>,
) -> Option<(GatewayConfig, Node)> {
    let overrides = overrides(inputs, sources, faults);
    let tree = base(sources, !overrides.is_empty()).and_then(|source| document::parse(sources, source));
    let mut tree = tree.map_err(|fault| faults.push(fault)).ok()?;
    for over in &overrides {
        if let Err(fault) = apply(over, &mut tree, sources) {
            faults.push(fault);
        }
    }
    document::refuse_tokens(&tree, faults);
    if !faults.is_empty() {
        // A misspelt variable makes other errors look as if they stood in the file: tell it alone.
        return None;
    }
    shape::check(&tree, &GATEWAY, faults);
    shape::fill(&mut tree, &GATEWAY);
    inherit_timeouts(&mut tree);
    rules::judge(View::new(&tree), faults);
    if !faults.is_empty() {
        return None;
    }
    let config = read::read(View::new(&tree), sources).map_err(|fault| faults.push(fault)).ok()?;
    Some((config, tree))
}

fn overrides(inputs: &GatewayInputs, sources: &mut Sources, faults: &mut Vec<Fault>) -> Vec<Override> {
    let mut overrides = Vec::new();
    for (name, value) in &inputs.env {
        let name = name.to_string_lossy();
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let path = path.split("__").map(str::to_ascii_lowercase).collect();
        match value.to_str() {
            Some(value) => overrides.push(Override { name: name.into_owned(), path, value: value.to_owned() }),
            None => {
                let source = sources.add(name.into_owned(), String::new(), Provenance::Override);
                faults.push(Fault::new(Place::whole(source), "is not UTF-8 text"));
            }
        }
    }
    // The environment has no order of its own; errors and results must have one.
    overrides.sort_by(|one, other| one.name.cmp(&other.name));
    overrides.extend(inputs.flags.iter().cloned());
    overrides
}

fn apply(over: &Override, tree: &mut Node, sources: &mut Sources) -> Result<(), Fault> {
    let source = sources.add(over.name.clone(), over.value.clone(), Provenance::Override);
    document::refuse_token_text(sources, source)?;
    // A misspelt variable may hold anything, a secret too: its value is not shown.
    let value = yaml::parse(&over.value, source).map_err(Fault::hidden)?;
    overlay::set(tree, &GATEWAY, &over.path, value).map_err(|closest| {
        let fault = Fault::new(Place::whole(source), "sets no key of the gateway's file");
        match closest {
            Some(path) => fault.hint(format!("did you mean {PREFIX}{}?", path.join("__").to_ascii_uppercase())),
            None => fault,
        }
    })
}

/// Gives each upstream that sets no timeout of its own the one under `limits`, origin included.
fn inherit_timeouts(tree: &mut Node) {
    for (own, shared) in [("connect_timeout", "upstream_connect"), ("response_timeout", "upstream_response")] {
        let Some(default) = tree.get("limits").and_then(|limits| limits.get(shared)).cloned() else { continue };
        let Value::Map(entries) = &mut tree.value else { return };
        for upstreams in entries.iter_mut().filter(|entry| entry.key == "upstreams") {
            let Value::Map(upstreams) = &mut upstreams.value.value else { continue };
            upstreams.iter_mut().for_each(|upstream| overlay::set_absent(&mut upstream.value, own, &default));
        }
    }
}
