//! Root over a state folder that is somebody else's: a restore is refused before anything of it is touched, and what was
//! planted there leads no write of root elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::stored::Stored;

/// Nobody's.
const OTHER: u32 = 65_534;

/// All of a folder that a restore could change: its own owner, and each name's owner, mode, links and content.
fn picture(folder: &Path) -> Vec<(PathBuf, u32, u32, u64, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .chain([folder.to_owned()])
        .map(|path| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            (path, metadata.uid(), metadata.mode(), metadata.nlink(), content)
        })
        .collect();
    all.sort();
    all
}

/// A stopped gateway with a token in its store, and a backup of it beside. `None`: only root can give files away, and only
/// root is refused.
fn stopped() -> Option<(Stored, PathBuf, PathBuf)> {
    let mut stored = Stored::start();
    stored.create("kept", &["--role", "reader"]);
    let backup = stored.gateway.path().join("backup.db");
    stored.cli(&["store", "backup", backup.to_str().unwrap()]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let state = stored.gateway.path().join("state");
    chown(&state, Some(OTHER), None).is_ok().then_some((stored, backup, state))
}

fn assert_refused(stored: &Stored, backup: &Path, state: &Path, named: &str) {
    let before = picture(state);
    let ended = stored.gateway.cli(&["store", "restore", backup.to_str().unwrap(), "--yes"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    for word in [named, "uid 65534", "sudo -u '#65534'"] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    assert!(picture(state) == before, "something was written: {:?}", picture(state));
}

#[test]
fn a_restore_by_root_touches_nothing_of_somebody_elses_folder() {
    let Some((mut stored, backup, state)) = stopped() else { return };
    for name in ["lock", "store.db"] {
        chown(state.join(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    assert_refused(&stored, &backup, &state, "state");
    // Without a lock there would be one of root's, which keeps the gateway's own user out.
    fs::remove_file(state.join("lock")).unwrap();
    assert_refused(&stored, &backup, &state, "state");
    let precious = stored.gateway.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::hard_link(&precious, state.join("lock")).unwrap();
    assert_refused(&stored, &backup, &state, "state");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    // A gateway that runs as root on a volume of somebody else is no slip.
    fs::remove_file(state.join("lock")).unwrap();
    stored.gateway.restart();
}

#[test]
fn nor_of_a_folder_that_is_not_there_yet_where_somebody_else_would_have_it() {
    let Some((stored, backup, state)) = stopped() else { return };
    fs::rename(&state, stored.gateway.path().join("former")).unwrap();
    let home = stored.gateway.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(OTHER), None).unwrap();
    let yaml = stored.gateway.path().join("leastgate.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    let line = text.lines().find(|line| line.starts_with("state_dir:")).unwrap();
    let moved = format!("state_dir: {}", home.join("new/state").display());
    fs::write(&yaml, text.replace(line, &moved)).unwrap();
    assert_refused(&stored, &backup, &home, "home");
}

/// A volume that its group shares (`fsGroup`) is root's, and what the gateway wrote in it is not.
#[test]
fn nor_of_a_folder_of_its_own_where_the_store_is_somebody_elses() {
    let Some((stored, backup, state)) = stopped() else { return };
    chown(&state, Some(0), Some(OTHER)).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o2770)).unwrap();
    chown(state.join("store.db"), Some(OTHER), Some(OTHER)).unwrap();
    assert_refused(&stored, &backup, &state, "store.db");
    chown(state.join("store.db"), Some(0), Some(0)).unwrap();
    chown(state.join("lock"), Some(OTHER), Some(OTHER)).unwrap();
    assert_refused(&stored, &backup, &state, "lock");
}

/// Whoever may write into the folder chooses what `lock` is; what has another name elsewhere is not the gateway's to write.
#[test]
fn a_lock_that_is_another_file_too_is_not_written() {
    let mut stored = Stored::start();
    assert_eq!(stored.gateway.stop().code, Some(0));
    let (precious, lock) = (stored.gateway.path().join("precious"), stored.gateway.path().join("state/lock"));
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&precious, &lock).unwrap();
    let ended = stored.gateway.restart_failing();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("lock") && ended.stderr.contains("remove it"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o7777, 0o644);
    fs::remove_file(&lock).unwrap();
    stored.gateway.restart();
}
