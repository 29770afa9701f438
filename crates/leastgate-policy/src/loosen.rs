//! The loose form of a segment, in which denies are compared (§4): what differs only in case or in Unicode
//! compatibility has the same one.

use std::borrow::Cow;

use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;

use crate::path::{Ends, Segments, end_at};

/// NFKC, upper-case, lower-case, repeated until nothing changes.
///
/// One round is not enough: upper-casing may decompose (`ΐ`) and normalizing may compose again, so that two
/// spellings of one text would differ. Characters are mapped one by one, without the context of a final sigma.
#[must_use]
pub fn loosen(segment: &str) -> Cow<'_, str> {
    if segment.is_ascii() {
        let is_loose = is_plainly_loose(segment);
        return if is_loose { Cow::Borrowed(segment) } else { Cow::Owned(segment.to_ascii_lowercase()) };
    }
    let mut current = loosen_once(segment);
    loop {
        let next = loosen_once(&current);
        if next == current {
            return Cow::Owned(current);
        }
        current = next;
    }
}

fn loosen_once(text: &str) -> String {
    text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

/// Whether a text has no byte but ASCII, and no capital: it is its own loose form, and need not be copied.
pub(crate) fn is_plainly_loose(text: &str) -> bool {
    text.bytes().fold(true, |loose, byte| loose & byte.is_ascii() & !byte.is_ascii_uppercase())
}

/// The loose form of a path's segments.
pub(crate) struct Loosened {
    text: SmallVec<[u8; 512]>,
    ends: Ends,
}

impl Loosened {
    pub(crate) fn of<'a>(segments: impl Iterator<Item = &'a str>) -> Self {
        let mut loosened = Self { text: SmallVec::new(), ends: Ends::new() };
        for segment in segments {
            loosened.text.push(b'/');
            if segment.is_ascii() {
                loosened.text.extend(segment.bytes().map(|byte| byte.to_ascii_lowercase()));
            } else {
                loosened.text.extend_from_slice(loosen(segment).as_bytes());
            }
            loosened.ends.push(end_at(loosened.text.len()));
        }
        loosened
    }

    pub(crate) fn segments(&self) -> Segments<'_> {
        Segments { text: &self.text, ends: &self.ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_every_character_share_one_form() {
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            let variants: [String; 5] = [
                text.to_uppercase(),
                text.to_lowercase(),
                text.nfkc().collect(),
                text.nfkd().collect(),
                text.nfc().collect(),
            ];
            if variants.iter().all(|variant| *variant == text) {
                continue;
            }
            let form = loosen(&text);
            assert_eq!(loosen(&form), form, "{c:?}");
            for variant in variants {
                assert_eq!(loosen(&variant), form, "{c:?} as {variant:?}");
            }
        }
    }

    #[test]
    fn look_alikes_meet() {
        assert_eq!(loosen("ＡＤＭＩＮ"), "admin");
        assert_eq!(loosen("\u{212A}ey"), "key");
        assert_eq!(loosen("Straße"), loosen("STRASSE"));
        assert_eq!(loosen("ſecret"), "secret");
    }

    #[test]
    fn a_path_is_loosened_segment_by_segment() {
        let original = ["V1", "caf\u{c9}", "x"];
        let loosened = Loosened::of(original.into_iter());
        let segments = (0..4).map(|index| loosened.segments().get(index).map(String::from_utf8_lossy));
        assert!(segments.eq([Some("v1".into()), Some("caf\u{e9}".into()), Some("x".into()), None]));
        assert!(is_plainly_loose("/v1/a-b") && !is_plainly_loose("/V1") && !is_plainly_loose("/caf\u{e9}"));
    }
}
