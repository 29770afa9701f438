//! Mutations of a corpus, from a fixed seed: without the feedback that a fuzzer has, but with its steps and its words.

/// The longest input that is made.
const LONGEST: usize = 16 * 1024;

/// Draws inputs that are like those of a corpus.
#[derive(Debug)]
pub(crate) struct Mutator {
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    state: u64,
}

impl Mutator {
    pub(crate) fn new(corpus: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> Self {
        Self { corpus, words, state: 0x9E37_79B9_7F4A_7C15 }
    }

    /// A file of the corpus, changed in one to eight places.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let chosen = self.below(self.corpus.len());
        let mut bytes = self.corpus[chosen].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut bytes);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 => bytes.insert(at, self.byte()),
            1 => drop(bytes.drain(at..end)),
            2 if at < bytes.len() => bytes[at] = self.byte(),
            3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            4 => {
                let again = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, again);
            }
            5 => {
                let other = self.below(self.corpus.len());
                let from = self.below(self.corpus[other].len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&self.corpus[other][from..]);
            }
            _ => {
                let word = self.below(self.words.len());
                let replaced = if self.below(2) == 0 { at } else { end };
                bytes.splice(at..replaced, self.words[word].iter().copied());
            }
        }
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// xorshift64* (Vigna 2016), and a bias that does not matter here.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap() % bound
    }
}
