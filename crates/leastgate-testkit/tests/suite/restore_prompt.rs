//! The question that a restore asks before it does anything: whoever interrupts it has said no, and nothing is left of what
//! was made ready.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::paths;
use leastgate_testkit::paths::program;
use rustix::process::{Pid, Signal, kill_process};

use crate::stored::Stored;

/// A restore that asks on a terminal.
struct Asked {
    terminal: Child,
    said: PathBuf,
    backup: PathBuf,
}

impl Asked {
    fn begin(stored: &Stored, backup: &Path) -> Self {
        let said = stored.gateway.path().join("said");
        let _ = fs::remove_file(&said);
        // A signal that a shell ignores for its background jobs stays ignored by all that they start.
        let line = format!(
            "exec env --default-signal=INT,HUP {} store restore {} --config {}",
            paths::leastgate().display(),
            backup.display(),
            stored.gateway.path().join("leastgate.yaml").display()
        );
        let mut terminal = Command::new(program("script"));
        terminal.args(["-qfec", &line]).arg(&said).env("NO_COLOR", "1").current_dir(stored.gateway.path());
        let terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let asked = Self { terminal, said, backup: backup.to_owned() };
        until_true("the question", PATIENCE * 3, || asked.said().contains("[y/N]"));
        asked
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Types, and waits for the restore's end: its code and what it said.
    fn answer(mut self, keys: &[u8]) -> (Option<i32>, String) {
        let keyboard = self.terminal.stdin.as_mut().unwrap();
        keyboard.write_all(keys).unwrap();
        keyboard.flush().unwrap();
        let status = until("the end", PATIENCE * 3, || self.terminal.try_wait().unwrap());
        (status.code(), self.said())
    }

    /// Ends whoever asks with a signal.
    fn signal(self, signal: Signal) -> (Option<i32>, String) {
        let of_asker = |entry: fs::DirEntry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let is_it = line.contains("\0restore\0") && line.contains(self.backup.to_str()?);
            is_it.then(|| entry.file_name().to_str()?.parse().ok()).flatten().and_then(Pid::from_raw)
        };
        let asker = fs::read_dir("/proc").unwrap().flatten().find_map(of_asker).expect("it waits for an answer");
        kill_process(asker, signal).unwrap();
        self.answer(b"")
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whoever_interrupts_the_question_leaves_nothing_behind() {
    let mut stored = Stored::start();
    stored.create("kept", &["--role", "reader"]);
    let backup = stored.gateway.path().join("backup.db");
    stored.cli(&["store", "backup", backup.to_str().unwrap()]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let state = stored.gateway.path().join("state");
    let before = (names(&state), fs::read(state.join("store.db")).unwrap());
    let is_as_before = || (names(&state), fs::read(state.join("store.db")).unwrap()) == before;
    for keys in [&b"\x03"[..], b"n\n", b"\x04"] {
        let (code, said) = Asked::begin(&stored, &backup).answer(keys);
        assert_eq!(code, Some(130), "{keys:?}: {said}");
        assert!(said.contains("nothing was changed"), "{keys:?}: {said}");
        assert!(is_as_before(), "{keys:?}: {:?}", names(&state));
    }
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let (code, said) = Asked::begin(&stored, &backup).signal(signal);
        assert_eq!(code, Some(130), "{signal:?}: {said}");
        assert!(is_as_before(), "{signal:?}: {:?}", names(&state));
    }
    let (code, said) = Asked::begin(&stored, &backup).answer(b"y\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(names(&state).iter().any(|name| name.contains(".before-restore-")), "{:?}", names(&state));
}
