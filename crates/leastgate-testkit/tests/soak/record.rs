//! The audit stream, read while it is written: rotated segments are verified, matched with the requests, and removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leastgate_testkit::audit::Chain;
use serde_json::Value;

use crate::ledger::{Ledger, number_of};

/// What the stream of one gateway has said so far.
#[derive(Debug)]
pub(crate) struct Record {
    folder: PathBuf,
    ledger: Arc<Ledger>,
    chain: Chain,
    /// Lines by kind.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Decisions on requests without a number.
    pub(crate) unnamed: u64,
    /// Segments that were closed and read.
    pub(crate) segments: u64,
}

impl Record {
    pub(crate) fn of(folder: &Path, ledger: &Arc<Ledger>) -> Self {
        Self {
            folder: folder.to_owned(),
            ledger: Arc::clone(ledger),
            chain: Chain::new(),
            kinds: BTreeMap::new(),
            unnamed: 0,
            segments: 0,
        }
    }

    /// Reads what is closed.
    pub(crate) fn follow(&mut self) -> Result<(), String> {
        let mut closed: Vec<PathBuf> = fs::read_dir(&self.folder)
            .map_err(|error| error.to_string())?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit.ndjson.")))
            .collect();
        closed.sort();
        for path in closed {
            self.read(&path)?;
            self.segments += 1;
            fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Reads what is left once the gateway has ended; how many checkpoints there were.
    pub(crate) fn finish(&mut self) -> Result<usize, String> {
        self.follow()?;
        self.read(&self.folder.join("audit.ndjson"))?;
        match self.chain.holes().first() {
            Some(hole) => Err(format!("events {hole:?} are missing")),
            None if !self.chain.is_closed() => Err("the last batch has no checkpoint".to_owned()),
            None => Ok(self.chain.checkpoints()),
        }
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or_default()
    }

    fn read(&mut self, path: &Path) -> Result<(), String> {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let event = self.chain.add(line)?;
            self.note(&event);
        }
        Ok(())
    }

    fn note(&mut self, event: &Value) {
        let kind = event["kind"].as_str().unwrap_or_default();
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        if kind == "decision" {
            let status = event["response"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
            match event["source"]["user_agent"].as_str().and_then(number_of) {
                Some(number) => self.ledger.on_record(number, status.unwrap_or_default()),
                None => self.unnamed += 1,
            }
        }
    }
}
