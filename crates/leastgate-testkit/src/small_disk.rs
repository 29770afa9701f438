//! A disk that is soon full: a tmpfs in a mount namespace of its own, so that no mount outlives its test, however it ends.
//!
//! The namespace is made by running the test again in a process of its own under `unshare`. Whoever is not root becomes it
//! inside a user namespace; a host that permits neither fails the test.

use std::any::type_name_of_val;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;

/// Set in the process that may mount.
const INSIDE: &str = "LEASTGATE_TEST_MAY_MOUNT";
/// The longest such test may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `test` where it can mount. To be the whole of a test function, whose name is taken from the closure's.
pub fn where_mounts_are_private(test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let name = type_name_of_val(&test).trim_end_matches("::{{closure}}");
    let (_, name) = name.split_once("::").expect("a test lies in a crate");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount").arg(std::env::current_exe().expect("a running test has a path"));
    command.args([name, "--exact", "--nocapture"]).env(INSIDE, "1");
    let ended = Process::run("the test with mounts of its own", &mut command, LIMIT);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("running 1 test"), "no namespace to mount in; run it as root:\n{said}");
    assert!(ended.stdout.contains("1 passed"), "inside its namespace:\n{said}");
}

/// A small file system.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes the folder `at` and mounts an empty file system of `mebibytes` there.
    #[must_use]
    pub fn mount(at: PathBuf, mebibytes: u32) -> Self {
        fs::create_dir_all(&at).expect("the mount point can be made");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "small"]).arg(&at);
        let ended = Process::run("mount", &mut command, crate::deadline::PATIENCE);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        Self(at)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes every block that is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file can be made");
        let chunk = vec![0; 64 * 1024];
        loop {
            match ballast.write(&chunk) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                other => panic!("the small disk is filled: {other:?}"),
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast can be removed");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room_again() {
        where_mounts_are_private(|| {
            let dir = tempfile::tempdir().unwrap();
            let disk = SmallDisk::mount(dir.path().join("disk"), 1);
            let file = disk.path().join("file");
            disk.fill();
            assert_eq!(fs::write(&file, "x").unwrap_err().kind(), ErrorKind::StorageFull);
            disk.free();
            fs::write(&file, "x").unwrap();
        });
    }
}
