//! Where the binary under test and the files of the repository are.

use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).expect("the crate lies in <workspace>/crates/").to_path_buf()
}

/// The `leastgate` binary: `LEASTGATE_BIN`, or the one of the profile this test was built in.
#[must_use]
pub fn leastgate() -> PathBuf {
    let path = std::env::var_os("LEASTGATE_BIN").map_or_else(beside_this_test, PathBuf::from);
    assert!(
        path.is_file(),
        "no leastgate binary at {}: run `cargo xtask test`, or `cargo build -p leastgate` first, or set LEASTGATE_BIN",
        path.display()
    );
    path
}

/// Test executables lie in `target/<profile>/deps`, binaries in `target/<profile>`.
fn beside_this_test() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().find(|dir| dir.join("deps").is_dir()).expect("tests run from target/<profile>/deps");
    profile.join("leastgate")
}

/// The path of a program from the system's packages. A missing one fails the test: a peer is never skipped.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: `cargo xtask test` installs it"))
}
