//! The texts a configuration was read from, and places in them.
//!
//! Every value keeps a [`Place`], so that whoever finds fault with it later, the policy compiler included, can
//! be answered with file, line and column. A value of the environment or of a flag is a text of its own here,
//! so it is read, checked and reported by the same code as a line of a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::diagnostic::{Excerpt, Fault};

/// Where a text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// Built in.
    Default,
    /// A file, by the path it was opened with.
    File,
    /// An environment variable or a flag.
    Override,
}

/// One text.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) provenance: Provenance,
}

/// All texts of one load. The first is the built-in defaults.
#[derive(Clone, Debug)]
pub(crate) struct Sources(Vec<Source>);

/// A run of bytes in one of the texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Place {
    /// The text as a whole: reported without a line.
    pub(crate) fn whole(source: u32) -> Self {
        Self { source, start: u32::MAX, len: 0 }
    }

    fn is_whole(self) -> bool {
        self.start == u32::MAX
    }
}

/// Longest part of a line that is shown.
const EXCERPT_BYTES: usize = 160;

impl Sources {
    /// Texts with nothing but the built-in defaults.
    pub(crate) fn new() -> Self {
        Self(vec![Source { name: "default".to_owned(), text: String::new(), provenance: Provenance::Default }])
    }

    /// Adds a text and returns its number.
    pub(crate) fn add(&mut self, name: String, text: String, provenance: Provenance) -> u32 {
        self.0.push(Source { name, text, provenance });
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// The text `place` lies in.
    pub(crate) fn of(&self, place: Place) -> Option<&Source> {
        self.0.get(usize::try_from(place.source).ok()?)
    }

    /// The whole line that `place` begins in.
    pub(crate) fn line(&self, place: Place) -> Option<&str> {
        let text = self.of(place).filter(|_| !place.is_whole())?.text.as_str();
        let start = floor(text, to_usize(place.start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        text[line_start..].lines().next()
    }

    /// Line, column (both from 1, columns in characters) and the line's text around `place`; `None` if it
    /// stands for a whole text.
    pub(crate) fn locate(&self, place: Place) -> Option<(usize, usize, Excerpt)> {
        let source = self.of(place).filter(|_| !place.is_whole())?;
        let text = source.text.as_str();
        let start = floor(text, to_usize(place.start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, start.saturating_add(to_usize(place.len))).clamp(start, line_end);
        let line = 1 + text[..line_start].bytes().filter(|byte| *byte == b'\n').count();
        let column = 1 + text[line_start..start].chars().count();
        Some((line, column, Excerpt::cut(&text[line_start..line_end], start - line_start, end - line_start)))
    }
}

impl Excerpt {
    /// The part of `line` around `start..end` that fits a terminal.
    fn cut(line: &str, start: usize, end: usize) -> Self {
        let line = line.trim_end_matches('\r');
        let start = start.min(line.len());
        let from = if line.len() <= EXCERPT_BYTES { 0 } else { floor(line, start.saturating_sub(EXCERPT_BYTES / 4)) };
        let to = floor(line, from.saturating_add(EXCERPT_BYTES));
        Self {
            text: line[from..to].to_owned(),
            start: start - from,
            end: end.clamp(start, to.max(start)) - from,
            skipped: from,
        }
    }
}

/// The greatest character boundary that is not beyond `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Reads `path` as UTF-8 text of at most `limit` bytes and adds it; the fault names what to do.
pub(crate) fn read_file(sources: &mut Sources, path: &Path, limit: u64) -> Result<u32, Fault> {
    let name = path.display().to_string();
    let outcome = read_bytes(path, limit).and_then(|bytes| {
        String::from_utf8(bytes)
            .map_err(|err| format!("is not UTF-8 text: byte {} is invalid", err.utf8_error().valid_up_to() + 1))
    });
    match outcome {
        Ok(text) => Ok(sources.add(name, text, Provenance::File)),
        Err(reason) => {
            let source = sources.add(name, String::new(), Provenance::File);
            Err(Fault::new(Place::whole(source), format!("the file {reason}")))
        }
    }
}

/// The content of `path`, or why it can't be had.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|err| format!("can't be opened: {err}"))?;
    // With room for all of it, a secret leaves no copies behind as the buffer grows.
    let len = file.metadata().map_or(0, |metadata| metadata.len()).min(limit).saturating_add(2);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|err| format!("can't be read: {err}"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(format!("is larger than the {} allowed here", crate::scalar::show_size(limit)));
    }
    Ok(bytes)
}
