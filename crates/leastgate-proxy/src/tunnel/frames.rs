//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2). Nothing is judged here: the gateway only has to know
//! when it may say something of its own without breaking into a frame.

use std::hash::{BuildHasher, RandomState};

/// The longest header: two bytes, eight of length, four of mask.
const HEADER: usize = 14;

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// Why a side is told to close (§7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Whoever was here is leaving.
    GoingAway = 1001,
    /// The policy does not allow it.
    PolicyViolation = 1008,
}

/// A place in a sequence of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of the payload that are not.
    payload: u64,
    closes: bool,
}

impl Frames {
    /// Whether the next byte is the first of a frame.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether a close frame has begun: none may come after it.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Goes on by all of these bytes.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.pass_frame(&bytes[at..]);
        }
    }

    /// Goes on to the end of the frame, at most by these bytes, and says by how many.
    pub(super) fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.payload == 0 {
            let Some(&byte) = bytes.get(at) else { return at };
            at += 1;
            if self.header_ends_with(byte) && self.payload == 0 {
                return at;
            }
        }
        let left = bytes.len() - at;
        let passed = usize::try_from(self.payload).map_or(left, |payload| payload.min(left));
        self.payload -= passed as u64;
        at + passed
    }

    fn header_ends_with(&mut self, byte: u8) -> bool {
        self.header[self.have] = byte;
        self.have += 1;
        let [first, second, ..] = self.header;
        let extended = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if self.have < 2 || self.have < 2 + extended + mask {
            return false;
        }
        self.payload = match extended {
            0 => u64::from(second & LENGTH),
            _ => self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.closes |= first & OPCODE == CLOSE;
        self.have = 0;
        true
    }
}

/// Good-bye as a server says it.
pub(super) fn close_to_client(status: Status) -> Vec<u8> {
    let mut frame = vec![0x80 | CLOSE, 2];
    frame.extend((status as u16).to_be_bytes());
    frame
}

/// Good-bye as a client says it: masked, with a key nobody can foresee (§5.3).
pub(super) fn close_to_upstream(status: Status) -> Vec<u8> {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_be_bytes();
    let [high, low] = (status as u16).to_be_bytes();
    vec![0x80 | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + if masked { 4 } else { 0 } + payload, 0xff);
        frame
    }

    #[test]
    fn a_boundary_is_found_however_the_bytes_come() {
        for masked in [false, true] {
            for payload in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
                let frame = frame(0x82, masked, payload);
                for step in [1, 2, 3, 7, frame.len()] {
                    let mut frames = Frames::default();
                    let mut passed = 0;
                    for part in frame.chunks(step) {
                        assert!(passed == 0 || !frames.is_at_boundary(), "{payload} at {passed}");
                        frames.pass(part);
                        passed += part.len();
                    }
                    assert!(frames.is_at_boundary() && !frames.closes(), "{payload} by {step}");
                }
            }
        }
    }

    #[test]
    fn passing_one_frame_ends_where_it_ends() {
        let first = frame(0x81, true, 300);
        let mut both = first.clone();
        both.extend(frame(0x89, true, 0));
        let mut frames = Frames::default();
        assert_eq!(frames.pass_frame(&both), first.len());
        assert_eq!(frames.pass_frame(&both[first.len()..]), 6);
        assert_eq!(frames.pass_frame(&both[..10]), 10);
        assert!(!frames.is_at_boundary());
    }

    #[test]
    fn a_close_is_seen_with_its_header_and_both_of_ours_are_whole() {
        for good_bye in [close_to_client(Status::PolicyViolation), close_to_upstream(Status::GoingAway)] {
            let mut frames = Frames::default();
            frames.pass(&good_bye[..good_bye.len() - 1]);
            assert!(frames.closes() && !frames.is_at_boundary());
            frames.pass(&good_bye[good_bye.len() - 1..]);
            assert!(frames.is_at_boundary());
        }
        let masked = close_to_upstream(Status::GoingAway);
        assert_eq!([masked[6] ^ masked[2], masked[7] ^ masked[3]], 1001_u16.to_be_bytes());
        assert_eq!(close_to_client(Status::PolicyViolation)[2..], 1008_u16.to_be_bytes());
    }
}
