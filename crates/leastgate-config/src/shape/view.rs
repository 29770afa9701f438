//! Typed reading of a checked document. What the check let pass can't fail here; if it does, the two disagree,
//! and the answer is an error at that place rather than a guess or a panic.

use crate::diagnostic::Fault;
use crate::node::{Node, Value};
use crate::source::Place;

/// A node about to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a>(&'a Node);

impl<'a> View<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self(node)
    }

    pub(crate) fn at(self) -> Place {
        self.0.at
    }

    /// The value of `key`, if it is there.
    pub(crate) fn find(self, key: &str) -> Option<View<'a>> {
        self.0.get(key).map(View)
    }

    /// The value of `key`, which the check saw or a default filled in.
    pub(crate) fn get(self, key: &str) -> Result<View<'a>, Fault> {
        self.find(key).ok_or_else(|| Fault::new(self.0.at, format!("the key `{key}` is missing")))
    }

    /// The entries of a mapping: name, the name's place, value.
    pub(crate) fn entries(self) -> impl Iterator<Item = (&'a str, Place, View<'a>)> {
        self.0.entries().iter().map(|entry| (entry.key.as_str(), entry.key_at, View(&entry.value)))
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(crate) fn items(self) -> impl Iterator<Item = View<'a>> {
        let items = if let Value::List(items) = &self.0.value { items } else { std::slice::from_ref(self.0) };
        items.iter().map(View)
    }

    /// Whether this is a mapping rather than a single value.
    pub(crate) fn is_map(self) -> bool {
        matches!(self.0.value, Value::Map(_))
    }

    pub(crate) fn text(self) -> Result<&'a str, Fault> {
        self.0.text().ok_or_else(|| self.unexpected("text"))
    }

    /// The text, read by `parse`.
    pub(crate) fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Fault> {
        parse(self.text()?).map_err(|reason| Fault::new(self.0.at, reason))
    }

    pub(crate) fn flag(self) -> Result<bool, Fault> {
        if let Value::Flag(flag) = self.0.value { Ok(flag) } else { Err(self.unexpected("true or false")) }
    }

    /// The whole number, in the type asked for.
    pub(crate) fn count<T: TryFrom<i64>>(self) -> Result<T, Fault> {
        match self.0.value {
            Value::Integer(number) => T::try_from(number).map_err(|_| self.unexpected("a smaller number")),
            _ => Err(self.unexpected("a whole number")),
        }
    }

    fn unexpected(self, what: &str) -> Fault {
        Fault::new(self.0.at, format!("expected {what}, found {}", self.0.kind()))
    }
}
