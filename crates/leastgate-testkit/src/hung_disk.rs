//! A disk that stops answering: a library loaded before a program, which holds up every sync of the store's log for as long
//! as a file is there. What was written before goes on being read, as from any page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The disk of one program.
#[derive(Debug)]
pub struct HungDisk {
    library: PathBuf,
    switch: PathBuf,
}

/// The store's log is known by its name; what else is synced, such as the record, goes on.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hold(int fd) {
    const char *flag = getenv("HUNG_DISK");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (flag == NULL || length < 0) return;
    path[length] = 0;
    if (strstr(path, "store.db") == NULL) return;
    while (access(flag, F_OK) == 0) usleep(2000);
}

int fdatasync(int fd) {
    hold(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd) {
    hold(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
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
        Self { library, switch: folder.join("hung-disk.on") }
    }

    /// What the program's environment needs.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("LD_PRELOAD", self.library.display().to_string()), ("HUNG_DISK", self.switch.display().to_string())]
    }

    /// From now on no sync comes to an end.
    ///
    /// # Panics
    /// When the temporary folder can't be written.
    pub fn hang(&self) {
        fs::write(&self.switch, "").expect("the temporary folder can be written");
    }

    /// It answers again, and what was held up is done.
    ///
    /// # Panics
    /// When it did not hang.
    pub fn go_on(&self) {
        fs::remove_file(&self.switch).expect("it hung");
    }
}
