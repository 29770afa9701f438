//! The loose form of a segment, in which denies are compared (§4): what differs only in case or in Unicode
//! compatibility has the same one.

use std::borrow::Cow;

use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;

/// NFKC, upper-case, lower-case, repeated until nothing changes.
///
/// One round is not enough: upper-casing may decompose (`ΐ`) and normalizing may compose again, so that two
/// spellings of one text would differ. Characters are mapped one by one, without the context of a final sigma.
#[must_use]
pub fn loosen(segment: &str) -> Cow<'_, str> {
    if segment.is_ascii() {
        return if segment.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(segment.to_ascii_lowercase())
        } else {
            Cow::Borrowed(segment)
        };
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

/// The loose form of a path's segments, where it differs from them.
pub(crate) struct Loosened {
    text: SmallVec<[u8; 512]>,
    /// Where each segment ends in the text.
    ends: SmallVec<[usize; 16]>,
}

impl Loosened {
    /// `None` for a path of plain lower-case ASCII: it is its own loose form, and nothing is copied.
    pub(crate) fn of(segments: &[&str]) -> Option<Self> {
        let is_loose = |segment: &&str| segment.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        if segments.iter().all(is_loose) {
            return None;
        }
        let mut loosened = Self { text: SmallVec::new(), ends: SmallVec::new() };
        for segment in segments {
            if segment.is_ascii() {
                loosened.text.extend(segment.bytes().map(|byte| byte.to_ascii_lowercase()));
            } else {
                loosened.text.extend_from_slice(loosen(segment).as_bytes());
            }
            loosened.ends.push(loosened.text.len());
        }
        Some(loosened)
    }

    /// The loose segments.
    pub(crate) fn segments(&self) -> SmallVec<[&str; 16]> {
        let mut start = 0;
        let slice = |end: &usize| {
            // Whole texts were appended, so each piece is UTF-8; were it not, it would match no literal but be a segment.
            let piece = std::str::from_utf8(&self.text[start..*end]).unwrap_or("\u{FFFD}");
            start = *end;
            piece
        };
        self.ends.iter().map(slice).collect()
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
        let loosened = Loosened::of(&original).expect("it has capitals");
        assert_eq!(loosened.segments().as_slice(), ["v1", "caf\u{e9}", "x"]);
        assert!(Loosened::of(&["v1", "a-b", ""]).is_none(), "its own loose form");
    }
}
