//! Audit files as a stranger reads them: lines of JSON, and the checkpoint chain verified from the document alone.

use std::fs;
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
    let mut chain = Chain { prev: "0".repeat(64), ..Chain::default() };
    for line in whole_lines(bytes) {
        let event = parse(line);
        chain.number(&event)?;
        if event["kind"] == "checkpoint" {
            chain.close(&event, line)?;
        } else {
            chain.add(line);
        }
    }
    Ok(chain.checkpoints)
}

#[derive(Default)]
struct Chain {
    batch: Vec<u8>,
    first: u64,
    last: Option<u64>,
    prev: String,
    checkpoints: usize,
}

impl Chain {
    fn number(&mut self, event: &Value) -> Result<(), String> {
        let seq = event["seq"].as_u64().ok_or_else(|| format!("an event without seq: {event}"))?;
        if let Some(last) = self.last
            && seq != last + 1
        {
            return Err(format!("seq {seq} follows {last}"));
        }
        self.last = Some(seq);
        Ok(())
    }

    fn add(&mut self, line: &[u8]) {
        if self.batch.is_empty() {
            self.first = self.last.unwrap_or_default();
        }
        self.batch.extend_from_slice(line);
    }

    fn close(&mut self, event: &Value, line: &[u8]) -> Result<(), String> {
        let wanted = json!({
            "first_seq": self.first,
            "last_seq": self.last.unwrap_or_default() - 1,
            "bytes": self.batch.len(),
            "hash": blake3::hash(&self.batch).to_hex().to_string(),
            "prev": self.prev,
        });
        if event["checkpoint"] != wanted {
            return Err(format!(
                "checkpoint {} says {}, the file gives {wanted}",
                self.checkpoints, event["checkpoint"]
            ));
        }
        self.prev = blake3::hash(line).to_hex().to_string();
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
        for first in [1, 4] {
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
        assert_eq!(verify(&file(|text| text)), Ok(2));
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
}
