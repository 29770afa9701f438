//! What is wrong with a file, and where: every error of a load, told so that it can be mended at 3 a.m.
//!
//! Inside the crate a [`Fault`] names a place in the texts of the load; what leaves the crate is a
//! [`Diagnostic`], which carries the line itself and needs the texts no more.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};

use crate::secret::holds_password;
use crate::source::{Place, Sources};

/// The most errors told at once; the rest is counted.
const MOST: usize = 50;

/// An error at a place of the texts of a load.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    place: Place,
    message: String,
    hint: Option<String>,
    related: Option<(Place, &'static str)>,
    hidden: bool,
    cut: bool,
}

impl Fault {
    /// `message`, at `place`.
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None, related: None, hidden: false, cut: false }
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a second place that explains the first.
    pub(crate) fn related(mut self, place: Place, label: &'static str) -> Self {
        self.related = Some((place, label));
        self
    }

    /// Without the source line, because a secret may stand in it.
    pub(crate) fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// With the source line up to the place only: behind a key that is not known may stand what its author meant
    /// to keep.
    pub(crate) fn cut(mut self) -> Self {
        self.cut = true;
        self
    }
}

/// Part of a source line, with the run of bytes in it that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, cut to what a terminal shows.
    pub text: String,
    /// First byte of the run.
    pub start: usize,
    /// Byte after the run.
    pub end: usize,
    /// Bytes of the line that are left out before `text`.
    pub skipped: usize,
}

/// A second place that explains an error: where a name was first defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// What the place is.
    pub label: &'static str,
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub snippet: Excerpt,
}

/// One error of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, or the environment variable or flag that took its place.
    pub file: String,
    /// Line, from 1; 0 if the error is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 if the error is about the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The source line; absent where there is none, or where it may hold a secret.
    pub snippet: Option<Excerpt>,
    /// A second place that explains the first.
    pub related: Option<Box<Related>>,
}

/// Every error of a load, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostics {
    pub(crate) fn new(mut faults: Vec<Fault>, sources: &Sources) -> Self {
        faults.sort_by_key(|fault| (fault.place.source, fault.place.start));
        let omitted = faults.len().saturating_sub(MOST);
        let items = faults.into_iter().take(MOST).map(|fault| Diagnostic::new(fault, sources)).collect();
        Self { items, omitted }
    }

    /// The errors; at most the first fifty.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// How many errors were found, those beyond the first fifty included; the search ends at some thousand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len() + self.omitted
    }

    /// Whether there is no error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first error in one line, for a log: `policy.yaml:12:7: message (and 2 more)`.
    #[must_use]
    pub fn summary_line(&self) -> String {
        let Some(first) = self.items.first() else { return "no errors".to_owned() };
        match self.len() - 1 {
            0 => first.summary_line(),
            more => format!("{} (and {more} more)", first.summary_line()),
        }
    }

    /// All errors, each with its place, source line and hint; with ANSI colours if `color`.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut out: Vec<String> = self.items.iter().map(|item| item.render(color)).collect();
        if self.omitted > 0 {
            out.push(format!("and {} more errors", self.omitted));
        }
        out.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostic {
    fn new(fault: Fault, sources: &Sources) -> Self {
        let file = sources.of(fault.place).map_or_else(String::new, |source| source.name.clone());
        let is_shown = |place| !fault.hidden && !sources.line(place).is_some_and(holds_password);
        let related = fault.related.filter(|(place, _)| is_shown(*place));
        let related = related.and_then(|related| Related::new(related, fault.cut, sources));
        let (line, column, snippet) = match sources.locate(fault.place) {
            Some((line, column, excerpt)) => {
                (line, column, is_shown(fault.place).then(|| excerpt.cut_behind(fault.cut)))
            }
            None => (0, 0, None),
        };
        let message = fault.message;
        Self { file, line, column, message, hint: fault.hint, snippet, related: related.map(Box::new) }
    }

    /// `file:line:column: message`, with nothing in it that a terminal would act on.
    #[must_use]
    pub fn summary_line(&self) -> String {
        normalize_untrusted_str(&match self.line {
            0 => format!("{}: {}", self.file, self.message),
            _ => format!("{}:{}:{}: {}", self.file, self.line, self.column, self.message),
        })
    }

    /// The error with its place, source line and hint; with ANSI colours if `color`.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut report = vec![self.primary()];
        report.extend(self.related.as_deref().map(Related::group));
        renderer.render(&report).replace(is_c1, "\u{fffd}")
    }

    fn primary(&self) -> Group<'_> {
        let group = Group::with_title(Level::ERROR.primary_title(&self.message));
        let group = match &self.snippet {
            Some(excerpt) => excerpt.show(group, &self.file, self.line, self.column),
            None if self.line == 0 => group.element(Origin::path(&self.file)),
            None => group.element(Origin::path(&self.file).line(self.line).char_column(self.column)),
        };
        match &self.hint {
            Some(hint) => group.element(Level::HELP.message(normalize_untrusted_str(hint))),
            None => group,
        }
    }
}

impl Related {
    fn new((place, label): (Place, &'static str), cut: bool, sources: &Sources) -> Option<Self> {
        let (line, column, snippet) = sources.locate(place)?;
        let snippet = snippet.cut_behind(cut);
        Some(Self { label, file: sources.of(place)?.name.clone(), line, column, snippet })
    }

    fn group(&self) -> Group<'_> {
        let group = Group::with_title(Level::NOTE.secondary_title(self.label));
        self.snippet.show(group, &self.file, self.line, self.column)
    }
}

impl Excerpt {
    /// Without what stands behind the run, if `cut`.
    fn cut_behind(mut self, cut: bool) -> Self {
        if cut {
            self.text.truncate(self.end);
        }
        self
    }

    /// Adds the place and the line to a report.
    fn show<'a>(&'a self, group: Group<'a>, file: &'a str, line: usize, column: usize) -> Group<'a> {
        let span = self.start..self.end.max(self.start);
        let snippet = Snippet::source(&self.text).line_start(line).annotation(AnnotationKind::Primary.span(span));
        if self.skipped == 0 {
            return group.element(snippet.path(file));
        }
        // Counted in the part of the line that is shown, the column would be wrong.
        group.element(Origin::path(file).line(line).char_column(column)).element(snippet)
    }
}

/// Controls beyond ASCII, which some terminals act on and the renderer lets through.
fn is_c1(character: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&character)
}

/// `name` for a message: quoted, cut to a readable length, control characters escaped, the password of a URL left
/// out.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 80;
    if holds_password(name) {
        let host = name.rsplit('@').next().unwrap_or_default();
        return quoted(&format!("…@{host}"));
    }
    let shown: String = name.chars().take(LONGEST).map(escaped).collect();
    let dots = if name.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!("`{shown}{dots}`")
}

fn escaped(character: char) -> String {
    if character == '"' || character == '\'' { character.to_string() } else { character.escape_debug().to_string() }
}
