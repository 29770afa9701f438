//! Searches what the gateway wrote for any part of a secret, in the encodings in which secrets get out.

use std::collections::HashMap;

use crate::token::Token;

/// So many bytes of a secret in a row are a leak.
const WINDOW: usize = 12;

/// Finds windows of secrets in any number of outputs.
#[derive(Debug, Default)]
pub struct LeakSearch {
    /// Encoded windows by their first eight bytes, with the token's name and the encoding.
    needles: HashMap<[u8; 8], Vec<(Vec<u8>, String)>>,
}

impl LeakSearch {
    /// Looks for every 12-byte window of each token's secret part: raw, hex, base64 (at each alignment), percent-encoded.
    #[must_use]
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a Token>) -> Self {
        let mut search = Self::default();
        for token in tokens {
            search.add(&token.name, token.secret());
        }
        search
    }

    /// Adds a whole token text; its environment and accessor are public and not looked for.
    pub fn add(&mut self, name: &str, text: &str) {
        let secret = text.split('_').nth(3).unwrap_or(text);
        for window in secret.as_bytes().windows(WINDOW) {
            self.needle(window.to_vec(), name, "raw");
            self.needle(hex(window).into_bytes(), name, "hex");
            self.needle(hex(window).to_uppercase().into_bytes(), name, "HEX");
            self.needle(window.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect(), name, "percent");
            self.needle(window.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect(), name, "PERCENT");
            // Three bytes make four digits, so a window that starts a group covers the other alignments too.
            self.needle(base64(window, b'+', b'/'), name, "base64");
            self.needle(base64(window, b'-', b'_'), name, "base64url");
        }
    }

    fn needle(&mut self, bytes: Vec<u8>, name: &str, encoding: &str) {
        let key = bytes[..8].try_into().expect("a window has at least eight bytes in every encoding");
        self.needles.entry(key).or_default().push((bytes, format!("{name} ({encoding})")));
    }

    /// Whose secret stands in `haystack`, and where.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Option<(String, usize)> {
        haystack.windows(8).enumerate().find_map(|(at, head)| {
            let candidates = self.needles.get(head)?;
            let (_, what) = candidates.iter().find(|(needle, _)| haystack[at..].starts_with(needle))?;
            Some((what.clone(), at))
        })
    }

    /// Fails the test on a leak, naming where.
    pub fn assert_clean(&self, place: &str, haystack: &[u8]) {
        if let Some((whose, at)) = self.find(haystack) {
            panic!("a secret of {whose} stands in {place} at byte {at}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 of a multiple of three bytes, so without padding.
fn base64(bytes: &[u8], sixty_two: u8, sixty_three: u8) -> Vec<u8> {
    let mut alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    alphabet.extend([sixty_two, sixty_three]);
    let digit = |group: usize, shift: u32| alphabet[group >> shift & 63];
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let group = usize::from(three[0]) << 16 | usize::from(three[1]) << 8 | usize::from(three[2]);
            [digit(group, 18), digit(group, 12), digit(group, 6), digit(group, 0)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_found_and_public_parts_are_not() {
        let token = Token::new("reader", &[]);
        let search = LeakSearch::new([&token]);
        let secret = token.secret().split('_').nth(3).unwrap();
        let part = &secret.as_bytes()[7..25];
        let percent: String = part.iter().map(|byte| format!("%{byte:02X}")).collect();
        for text in [secret.to_owned(), hex(part), percent, String::from_utf8(base64(part, b'+', b'/')).unwrap()] {
            assert!(search.find(format!("before {text} after").as_bytes()).is_some(), "{text}");
        }
        let public = format!("lgt_test_{}_REDACTED {}", token.accessor, &secret[..11]);
        assert_eq!(search.find(public.as_bytes()), None);
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        assert_eq!(base64(b"foobar", b'+', b'/'), b"Zm9vYmFy");
    }
}
