//! Audit files as a stranger reads them: lines of JSON, and the checkpoint chain verified from the document alone.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Value, json};

/// Every whole line of the file as JSON; none when there is no file yet.
#[must_use]
pub fn read(path: &Path) -> Vec<Value> {
    let bytes = fs::read(path).unwrap_or_default();
    whole_lines(&bytes).map(parse).collect()
}

fn parse(line: &[u8]) -> Value {
    serde_json::from_slice(line)
        .unwrap_or_else(|error| panic!("not a JSON line ({error}): {}", String::from_utf8_lossy(line)))
}

/// The lines that have their line end, with it.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

/// Verifies what the audit document promises of a file: `seq` without a gap, every checkpoint holding the BLAKE3 of the
/// exact bytes since the one before, and `prev` that of the checkpoint line before (zeros for the first). Answers how many
/// checkpoints there were.
pub fn verify(bytes: &[u8]) -> Result<usize, String> {
    let chain = Chain::of(bytes)?;
    match chain.holes.first() {
        None => Ok(chain.checkpoints),
        Some(hole) => Err(format!("seq {} follows {}", hole.end() + 1, hole.start() - 1)),
    }
}

/// The same of a file that whole batches are missing of: answers which numbers those had.
pub fn holes(bytes: &[u8]) -> Result<Vec<RangeInclusive<u64>>, String> {
    Chain::of(bytes).map(|chain| chain.holes)
}

/// The part of a file that checkpoints vouch for: up to the end of the last one.
#[must_use]
pub fn closed(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut closed = 0;
    for line in whole_lines(bytes) {
        end += line.len();
        if parse(line)["kind"] == "checkpoint" {
            closed = end;
        }
    }
    &bytes[..closed]
}

/// The chain of a file, verified line by line: for files that are too long to be held, and in several segments.
#[derive(Debug, Default)]
pub struct Chain {
    batch: Vec<u8>,
    first: u64,
    last: Option<u64>,
    /// Unknown where the checkpoint before is missing.
    prev: Option<String>,
    checkpoints: usize,
    holes: Vec<RangeInclusive<u64>>,
}

impl Chain {
    /// Before the first line.
    #[must_use]
    pub fn new() -> Self {
        Self { prev: Some("0".repeat(64)), ..Self::default() }
    }

    fn of(bytes: &[u8]) -> Result<Self, String> {
        let mut chain = Self::new();
        for line in whole_lines(bytes) {
            chain.add(line)?;
        }
        Ok(chain)
    }

    /// The next line, with its line end; answers its event.
    pub fn add(&mut self, line: &[u8]) -> Result<Value, String> {
        let event = parse(line);
        self.number(&event)?;
        if event["kind"] == "checkpoint" {
            self.close(&event, line)?;
        } else {
            self.keep(line);
        }
        Ok(event)
    }

    /// Checkpoints so far.
    #[must_use]
    pub fn checkpoints(&self) -> usize {
        self.checkpoints
    }

    /// Numbers that whole missing batches had.
    #[must_use]
    pub fn holes(&self) -> &[RangeInclusive<u64>] {
        &self.holes
    }

    /// Whether a checkpoint vouches for every line so far.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.batch.is_empty()
    }

    fn number(&mut self, event: &Value) -> Result<(), String> {
        let seq = event["seq"].as_u64().ok_or_else(|| format!("an event without seq: {event}"))?;
        if let Some(last) = self.last
            && seq != last + 1
        {
            // Only whole batches may be missing.
            if seq <= last || !self.batch.is_empty() {
                return Err(format!("seq {seq} follows {last}"));
            }
            self.holes.push(last + 1..=seq - 1);
            self.prev = None;
        }
        self.last = Some(seq);
        Ok(())
    }

    fn keep(&mut self, line: &[u8]) {
        if self.batch.is_empty() {
            self.first = self.last.unwrap_or_default();
        }
        self.batch.extend_from_slice(line);
    }

    fn close(&mut self, event: &Value, line: &[u8]) -> Result<(), String> {
        let prev = self.prev.take().map_or_else(|| event["checkpoint"]["prev"].clone(), Value::from);
        let wanted = json!({
            "first_seq": self.first,
            "last_seq": self.last.unwrap_or_default() - 1,
            "bytes": self.batch.len(),
            "hash": blake3::hash(&self.batch).to_hex().to_string(),
            "prev": prev,
        });
        if event["checkpoint"] != wanted {
            return Err(format!(
                "checkpoint {} says {}, the file gives {wanted}",
                self.checkpoints, event["checkpoint"]
            ));
        }
        self.prev = Some(blake3::hash(line).to_hex().to_string());
        self.batch.clear();
        self.checkpoints += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tamper: impl Fn(String) -> String) -> Vec<u8> {
        let mut text = String::new();
        let mut prev = "0".repeat(64);
        for first in [1, 4, 7] {
            let batch =
                format!("{{\"kind\":\"decision\",\"seq\":{first}}}\n{{\"kind\":\"decision\",\"seq\":{}}}\n", first + 1);
            let checkpoint = json!({
                "first_seq": first, "last_seq": first + 1, "bytes": batch.len(),
                "hash": blake3::hash(batch.as_bytes()).to_hex().to_string(), "prev": prev,
            });
            // How a checkpoint line is written is the gateway's business; its exact bytes are what the next one vouches for.
            let close = format!("{{\"kind\":\"checkpoint\",\"seq\":{},\"checkpoint\":{checkpoint}}}\n", first + 2);
            prev = blake3::hash(close.as_bytes()).to_hex().to_string();
            text += &(batch + &close);
        }
        tamper(text).into_bytes()
    }

    #[test]
    fn a_whole_chain_verifies() {
        assert_eq!(verify(&file(|text| text)), Ok(3));
    }

    #[test]
    fn a_changed_byte_and_a_missing_line_are_named() {
        assert!(verify(&file(|text| text.replacen("decision", "decisioN", 1))).unwrap_err().contains("checkpoint 0"));
        assert!(
            verify(&file(|text| text.replacen("\"seq\":2", "\"seq\":3", 1))).unwrap_err().contains("seq 3 follows 1")
        );
        let without_first_batch = file(|text| text.split_inclusive('\n').skip(3).collect());
        assert!(verify(&without_first_batch).unwrap_err().contains("prev"));
    }

    #[test]
    fn a_batch_that_is_missing_is_told_from_a_line_that_is() {
        let without = |gone: RangeInclusive<usize>| {
            file(|text| {
                let lines = text.split_inclusive('\n').enumerate();
                lines.filter(|(number, _)| !gone.contains(number)).map(|(_, line)| line).collect()
            })
        };
        assert_eq!(holes(&without(3..=5)), Ok(vec![4..=6]));
        assert!(verify(&without(3..=5)).unwrap_err().contains("seq 7 follows 3"));
        for line in 0..8 {
            assert!(holes(&without(line..=line)).is_err(), "without line {line}");
        }
    }

    #[test]
    fn what_is_closed_ends_with_a_checkpoint() {
        let whole = file(|text| text);
        let torn = &whole[..whole.len() - 3];
        assert_eq!(verify(closed(torn)), Ok(2));
        assert_eq!(closed(&whole), whole);
        assert_eq!(closed(b"{\"kind\":\"decision\",\"seq\":1}\n"), b"");
    }
}
