//! The loose form of a segment, in which denies are compared (§4): what differs only in case or in Unicode
//! compatibility has the same one.

use std::borrow::Cow;
use std::cmp::Ordering;

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

/// Orders a loosened literal against the loose form of an ASCII segment, without building it.
pub(crate) fn compare_ascii(literal: &str, segment: &str) -> Ordering {
    literal.bytes().cmp(segment.bytes().map(|byte| byte.to_ascii_lowercase()))
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
    fn the_ascii_order_is_the_order_of_the_loose_forms() {
        assert_eq!(compare_ascii("admin", "ADMIN"), Ordering::Equal);
        assert_eq!(compare_ascii("admin", "ADMIo"), Ordering::Less);
    }
}
