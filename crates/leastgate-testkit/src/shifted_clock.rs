//! A wall clock that a test moves under a running program: libfaketime, loaded before it, and a file that says how far.
//!
//! Only the wall clock moves. What measures time, and waits, goes by the monotonic clock, which no administrator can set.

use std::fs;
use std::path::{Path, PathBuf};

/// The clock of one program.
#[derive(Debug)]
pub struct ShiftedClock {
    file: PathBuf,
}

impl ShiftedClock {
    /// A clock that is right so far, kept in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let clock = Self { file: folder.join("clock-shift") };
        clock.shift("+0");
        clock
    }

    /// What the program's environment needs.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// From now on the program's clock is so much ahead (`+2h`) or behind (`-1d`).
    pub fn shift(&self, by: &str) {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, by)
            .and_then(|()| fs::rename(&fresh, &self.file))
            .expect("the temporary folder can be written");
    }
}

/// Debian keeps it in a folder named after the architecture.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    found.expect("libfaketime is installed: `cargo xtask test` does so, or `apt-get install faketime`")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::clock;
    use crate::deadline::PATIENCE;
    use crate::process::Process;

    #[test]
    fn a_programs_clock_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let shifted = ShiftedClock::new(dir.path());
        let date = || -> u64 {
            let mut command = Command::new("date");
            command.arg("+%s").envs(shifted.variables());
            Process::run("date", &mut command, PATIENCE).stdout.trim().parse().unwrap()
        };
        assert!(date() >= clock::now() - 5);
        shifted.shift("-1d");
        assert!(date() < clock::now() - 86_000);
    }
}
