//! A disk that stops answering, or that syncs nothing any more: a library loaded before a program, which holds up every sync
//! of the store's files for as long as a file is there, or has it fail. What was written before goes on being read, as from
//! any page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The disk of one program.
#[derive(Debug)]
pub struct HungDisk {
    library: PathBuf,
    hangs: PathBuf,
    fails: PathBuf,
}

/// The store's files are known by their name; what else is synced, such as the record, goes on.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int hold(int fd) {
    const char *hangs = getenv("HUNG_DISK"), *fails = getenv("FAILED_DISK");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (hangs == NULL || fails == NULL || length < 0) return 0;
    path[length] = 0;
    if (strstr(path, "store.db") == NULL) return 0;
    while (access(hangs, F_OK) == 0) usleep(2000);
    if (access(fails, F_OK) != 0) return 0;
    snprintf(path, sizeof path, "%s.once", fails);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    errno = EIO;
    return -1;
}

int fdatasync(int fd) {
    return hold(fd) ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd) {
    return hold(fd) ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

impl HungDisk {
    /// A disk that answers so far; its files are kept in `folder`.
    ///
    /// # Panics
    /// When there is no C compiler, which the build needs too.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let (source, library) = (folder.join("hung-disk.c"), folder.join("hung-disk.so"));
        fs::write(&source, SOURCE).expect("the temporary folder can be written");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).arg("-ldl").status();
        assert!(built.expect("a C compiler").success());
        Self { library, hangs: folder.join("disk.hangs"), fails: folder.join("disk.fails") }
    }

    /// What the program's environment needs.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let files = [("LD_PRELOAD", &self.library), ("HUNG_DISK", &self.hangs), ("FAILED_DISK", &self.fails)];
        files.map(|(name, path)| (name, path.display().to_string())).into()
    }

    /// From now on no sync comes to an end.
    ///
    /// # Panics
    /// When the temporary folder can't be written.
    pub fn hang(&self) {
        fs::write(&self.hangs, "").expect("the temporary folder can be written");
    }

    /// From now on every sync fails, one that was held up too.
    ///
    /// # Panics
    /// When the temporary folder can't be written.
    pub fn fail(&self) {
        fs::write(&self.fails, "").expect("the temporary folder can be written");
        let _ = fs::remove_file(&self.hangs);
    }

    /// Whether a sync has failed since the start.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.fails.with_extension("fails.once").exists()
    }

    /// It answers again, and what was held up is done.
    ///
    /// # Panics
    /// When it neither hung nor failed.
    pub fn go_on(&self) {
        assert!(
            [&self.hangs, &self.fails].map(|file| fs::remove_file(file).is_ok()).contains(&true),
            "it answered all along"
        );
    }
}
