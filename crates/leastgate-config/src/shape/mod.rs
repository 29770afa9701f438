//! What a file must look like, as data: one table of keys drives the checks, "did you mean", the defaults, the
//! JSON Schema and `config show`, so none of them can know a key that the others don't.

mod check;
mod fill;
mod schema;
mod view;

pub(crate) use check::{check, closest};
pub(crate) use fill::fill;
pub(crate) use schema::schema;
pub(crate) use view::View;

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A string in some notation.
    Text(&'static Notation),
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Count(u64, u64),
    /// A whole number within bounds, or this word.
    CountOr(&'static str, u64, u64),
    /// One of these words. The second list is known, but not built yet.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// A list of at least so many items; `Some` is the most, with what to say of more.
    List(&'static Shape, usize, Option<(usize, &'static str)>),
    /// A mapping from names of the user's choice.
    Map(&'static Notation, &'static Shape),
    /// A mapping with fixed keys.
    Object(&'static [Field]),
    /// A mapping with fixed keys that hold [`Shape::Secret`]s: what stands there by mistake is not shown either.
    Vault(&'static [Field]),
    /// A mapping with exactly one of these keys, saying where a secret is read from. What stands there by mistake
    /// may be the secret itself, so it is never shown.
    Secret(&'static [Field]),
    /// A mapping whose first field chooses which further keys it has.
    Tagged(&'static Tagged),
    /// One value in the first shape, or a list or mapping in the second.
    Either(&'static Shape, &'static Shape),
    /// Known, but not built yet; with what to do instead.
    Later(&'static str),
}

fn sample_of(fields: &[Field], is_shown: impl Fn(&Field) -> bool) -> String {
    let shown: Vec<String> = fields
        .iter()
        .filter(|field| is_shown(field))
        .map(|field| format!("{}: {}", field.name, field.shape.sample()))
        .collect();
    if shown.is_empty() { "{ … }".to_owned() } else { format!("{{ {} }}", shown.join(", ")) }
}

/// The alternatives of a [`Shape::Tagged`].
#[derive(Debug)]
pub(crate) struct Tagged {
    /// The key that chooses.
    pub(crate) tag: &'static str,
    /// What it may be, with the other keys of that alternative.
    pub(crate) variants: &'static [(&'static str, &'static [Field])],
    /// What it will be able to be.
    pub(crate) later: &'static [&'static str],
}

/// How a string is written.
#[derive(Debug)]
pub(crate) struct Notation {
    /// Accepts a string, or says what was expected.
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// The same for a JSON Schema, as far as a regular expression can say it.
    pub(crate) pattern: Option<&'static str>,
}

/// A key with what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The key.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) shape: Shape,
    /// What if it is absent.
    pub(crate) need: Need,
    /// What it means, in one line.
    pub(crate) doc: &'static str,
}

/// What if a key is absent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// That is an error.
    Required,
    /// Then there is no such thing.
    Optional,
    /// Then it is this, as it would be written.
    Default(&'static str),
}

/// A key that must be there.
pub(crate) const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, need: Need::Required, doc }
}

/// A key that may be absent.
pub(crate) const fn optional(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, need: Need::Optional, doc }
}

/// A key with a default.
pub(crate) const fn defaulted(name: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Field {
    Field { name, shape, need: Need::Default(default), doc }
}

impl Shape {
    /// The fixed keys of a mapping of this shape; those of all alternatives.
    pub(crate) fn fields(&self) -> Vec<&'static Field> {
        match self {
            Self::Object(fields) | Self::Vault(fields) | Self::Secret(fields) => fields.iter().collect(),
            Self::Tagged(tagged) => tagged.variants.iter().flat_map(|(_, fields)| fields.iter()).collect(),
            Self::Either(_, compound) => compound.fields(),
            _ => Vec::new(),
        }
    }

    /// What a value of this shape looks like, with what must be there; `…` stands for a value of one's own.
    pub(crate) fn sample(&self) -> String {
        match self {
            Self::Text(_) | Self::Later(_) => "…".to_owned(),
            Self::Flag => "true".to_owned(),
            Self::Count(least, _) => least.to_string(),
            Self::CountOr(word, ..) => (*word).to_owned(),
            Self::Choice(words, _) => words.join("|"),
            Self::List(item, ..) => format!("[ {} ]", item.sample()),
            Self::Map(_, item) => format!("{{ NAME: {} }}", item.sample()),
            Self::Object(fields) | Self::Vault(fields) => {
                sample_of(fields, |field| matches!(field.need, Need::Required))
            }
            // One of its keys is required, whichever.
            Self::Secret(fields) => sample_of(&fields[..fields.len().min(1)], |_| true),
            Self::Tagged(tagged) => {
                let (word, fields) = tagged.variants.first().copied().unwrap_or_default();
                let rest = sample_of(fields, |field| field.name != tagged.tag && matches!(field.need, Need::Required));
                format!("{{ {}: {word}, {}", tagged.tag, rest.trim_start_matches("{ "))
            }
            Self::Either(scalar, _) => scalar.sample(),
        }
    }

    /// Whether this is known but not built.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self, Self::Later(_))
    }
}
