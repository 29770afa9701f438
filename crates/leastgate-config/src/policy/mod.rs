//! Policy files: several become one [`PolicySpec`], each value of which knows where it was written.
//!
//! Only shape is judged here. What the policy means is judged by `leastgate-policy`, whose errors come back
//! through [`LoadedPolicy::diagnose`] to file, line and column.

pub(crate) mod keys;
mod merge;
mod read;

use std::path::Path;

use leastgate_policy::spec::Origin;
use leastgate_policy::{PolicySpec, SpecError, SpecErrorKind};

use self::keys::POLICY;
use crate::diagnostic::{Diagnostics, Fault};
use crate::document;
use crate::node::Node;
use crate::shape::{self, View};
use crate::source::{Place, Provenance, Sources, read_bytes, read_file};

/// Most names that a hint lists: more are no help.
const MOST_NAMES: usize = 20;
/// Largest policy file.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// A policy as written, with the places to blame.
#[derive(Clone, Debug)]
pub struct LoadedPolicy {
    /// What the files say.
    pub spec: PolicySpec,
    /// A hash of their content: `b3:` and 16 hex digits. The files' names are not in it.
    pub revision: String,
    fingerprint: Fingerprint,
    places: Vec<Place>,
    sources: Sources,
}

/// A hash of files' content, for telling whether they changed; of missing and unreadable files too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(blake3::Hash);

impl LoadedPolicy {
    /// The compiler's errors, each at the place it came from.
    #[must_use]
    pub fn diagnose(&self, errors: Vec<SpecError>) -> Diagnostics {
        let faults = errors.into_iter().map(|error| {
            let fault = Fault::new(self.place(error.origin), error.to_string());
            match hint(&error.kind) {
                Some(hint) => fault.hint(hint),
                None => fault,
            }
        });
        Diagnostics::new(faults.collect(), &self.sources)
    }

    /// One error about a value of the policy that only its reader can find: what the gateway's file says otherwise.
    #[must_use]
    pub fn fault(&self, origin: Origin, message: &str, hint: &str) -> Diagnostics {
        Diagnostics::new(vec![Fault::new(self.place(origin), message).hint(hint)], &self.sources)
    }

    /// What [`fingerprint`] gave for the very bytes this was read from.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// `file:line` of a value of the policy.
    #[must_use]
    pub fn locate(&self, origin: Origin) -> Option<String> {
        let place = self.place(origin);
        let (line, ..) = self.sources.locate(place)?;
        Some(format!("{}:{line}", self.sources.of(place)?.name))
    }

    fn place(&self, origin: Origin) -> Place {
        let place = usize::try_from(origin.0).ok().and_then(|index| self.places.get(index));
        place.copied().unwrap_or(Place::whole(1))
    }
}

/// What to do about it; for a name that is not defined, the one most likely meant.
fn hint(kind: &SpecErrorKind) -> Option<String> {
    let names = kind.candidates().iter().map(String::as_str);
    let meant = match kind {
        SpecErrorKind::Unknown { name, .. } => shape::closest(name, names),
        _ => None,
    };
    let known = kind.candidates();
    let list = || (!known.is_empty() && known.len() <= MOST_NAMES).then(|| format!("known here: {}", known.join(", ")));
    meant.map(|meant| format!("did you mean `{meant}`?")).or_else(|| kind.hint()).or_else(list)
}

/// Reads the policy's files; the one path of start, reload and `policy lint`.
///
/// # Errors
/// Everything in all files that does not have the shape of a policy, each with its place.
pub fn load_policy<P: AsRef<Path>>(files: &[P]) -> Result<LoadedPolicy, Diagnostics> {
    let mut sources = Sources::new();
    let mut faults = Vec::new();
    let mut numbers = Vec::new();
    for file in files {
        match read_file(&mut sources, file.as_ref(), MOST_BYTES) {
            Ok(number) => numbers.push(number),
            Err(fault) => faults.push(fault),
        }
    }
    load(sources, &numbers, faults)
}

/// The same for texts already in hand, each with the name that errors call it by.
///
/// # Errors
/// As [`load_policy`].
pub fn parse_policy(texts: &[(&str, &str)]) -> Result<LoadedPolicy, Diagnostics> {
    let mut sources = Sources::new();
    let add = |(name, text): &(&str, &str)| sources.add((*name).to_owned(), (*text).to_owned(), Provenance::File);
    let numbers: Vec<u32> = texts.iter().map(add).collect();
    load(sources, &numbers, Vec::new())
}

fn load(sources: Sources, numbers: &[u32], mut faults: Vec<Fault>) -> Result<LoadedPolicy, Diagnostics> {
    let trees: Vec<Node> = numbers.iter().filter_map(|number| checked(&sources, *number, &mut faults)).collect();
    merge::refuse_redefinitions(&trees, &mut faults);
    if !faults.is_empty() {
        return Err(Diagnostics::new(faults, &sources));
    }
    let views: Vec<View<'_>> = trees.iter().map(View::new).collect();
    match read::read(&views) {
        Ok((spec, places)) => {
            let contents = || numbers.iter().filter_map(|number| sources.of(Place::whole(*number)));
            let fingerprint = Fingerprint::of(contents().map(|source| Ok(source.text.as_bytes())));
            let revision = format!("b3:{}", &fingerprint.0.to_hex()[..16]);
            Ok(LoadedPolicy { spec, revision, fingerprint, places, sources })
        }
        Err(fault) => Err(Diagnostics::new(vec![fault], &sources)),
    }
}

fn checked(sources: &Sources, number: u32, faults: &mut Vec<Fault>) -> Option<Node> {
    let mut tree = document::parse(sources, number).map_err(|fault| faults.push(fault)).ok()?;
    let before = faults.len();
    document::refuse_tokens(&tree, faults);
    if faults.len() == before {
        shape::check(&tree, &POLICY, faults);
        merge::judge_modes(&tree, faults);
    }
    shape::fill(&mut tree, &POLICY);
    Some(tree)
}

/// A hash of the files' content: equal if and only if a load would see the same bytes in the same order.
#[must_use]
pub fn fingerprint<P: AsRef<Path>>(files: &[P]) -> Fingerprint {
    let contents: Vec<Result<Vec<u8>, String>> =
        files.iter().map(|file| read_bytes(file.as_ref(), MOST_BYTES)).collect();
    Fingerprint::of(contents.iter().map(|content| content.as_deref().map_err(String::as_str)))
}

impl Fingerprint {
    fn of<'a>(contents: impl Iterator<Item = Result<&'a [u8], &'a str>>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for content in contents {
            let (kind, bytes) = content.map_or_else(|reason| (1, reason.as_bytes()), |bytes| (0, bytes));
            // The length keeps two files apart from one that holds both.
            hasher.update(&[kind]).update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes()).update(bytes);
        }
        Self(hasher.finalize())
    }
}
