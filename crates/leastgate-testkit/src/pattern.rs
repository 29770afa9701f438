//! A body of any length that nobody has to keep: bytes that are made on the way, and told from any other by a checksum.

/// A block's length is no power of two, so that a part that is left out or comes twice moves everything behind it.
const BLOCK: usize = 65_521;

/// The body, from where it was last left.
#[derive(Clone, Debug)]
pub struct Pattern {
    block: Vec<u8>,
    number: u64,
    at: usize,
    left: u64,
}

impl Pattern {
    /// A body of that many bytes.
    #[must_use]
    pub fn new(length: u64) -> Self {
        let mut state = 0x9e37_79b9_u32;
        let block = std::iter::repeat_with(|| {
            // Marsaglia's xorshift, which is good enough to be told from itself a byte further on.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        });
        Self { block: block.take(BLOCK).collect(), number: 0, at: BLOCK, left: length }
    }

    /// The next bytes, `most` at most; none at the end.
    pub fn next(&mut self, most: usize) -> &[u8] {
        if self.at == BLOCK {
            self.at = 0;
            // Each block begins with its number: no two are alike.
            self.block[..8].copy_from_slice(&self.number.to_be_bytes());
            self.number += 1;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = most.min(BLOCK - self.at).min(left);
        let from = self.at;
        self.at += length;
        self.left -= length as u64;
        &self.block[from..self.at]
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// BLAKE3 of the whole body, in hex.
    #[must_use]
    pub fn checksum(length: u64) -> String {
        let (mut pattern, mut hasher) = (Self::new(length), blake3::Hasher::new());
        loop {
            let part = pattern.next(BLOCK);
            if part.is_empty() {
                return hasher.finalize().to_hex().to_string();
            }
            hasher.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_in_parts_of_any_size() {
        let length = 3 * BLOCK as u64 + 7;
        let in_parts = |most: usize| {
            let (mut pattern, mut hasher, mut taken) = (Pattern::new(length), blake3::Hasher::new(), 0);
            while pattern.left() > 0 {
                let part = pattern.next(most);
                hasher.update(part);
                taken += part.len() as u64;
            }
            assert_eq!(taken, length);
            hasher.finalize().to_hex().to_string()
        };
        assert_eq!((in_parts(1), in_parts(16_384)), (Pattern::checksum(length), Pattern::checksum(length)));
        assert_ne!(Pattern::checksum(length), Pattern::checksum(length + 1));
    }
}
