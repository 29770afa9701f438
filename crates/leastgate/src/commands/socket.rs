//! `admin.sock`: where `serve` and `demo` put it, and where the commands look for it. Both sides ask the same of the
//! folder, for in a shared one anybody could wait for an administrator's commands in the gateway's place.

use std::fs::{DirBuilder, Metadata, symlink_metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use leastgate_admin::client::{ClientError, Endpoint};
use leastgate_config::find_gateway_file;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::gateway::{loading, runtime_dir};

/// The socket's name in a state_dir or in the user's runtime folder.
pub(super) const SOCKET: &str = "admin.sock";

/// The user's runtime folder, made if need be; one that others could write is refused.
pub(super) fn runtime_dir_made() -> Result<PathBuf, Failure> {
    let dir = runtime_dir();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|error| Failure::new(Exit::Failed, format!("{} can't be made: {error}", dir.display())))?;
    checked(&dir)?;
    Ok(dir)
}

/// The socket of the local gateway: in the state_dir that the gateway's file names, else in the user's runtime folder.
pub(super) fn find(global: &Global) -> Result<PathBuf, Failure> {
    match state_dir(global)? {
        Some(dir) => {
            let owner = symlink_metadata(&dir).ok().map(|dir| dir.uid());
            let shown = absolute(dir.clone());
            let nobody = format!("no gateway runs on the state_dir {}: start one (`leastgate serve`)", shown.display());
            socket_in(&dir, owner, &nobody)
        }
        None => {
            let dir = runtime_dir();
            let nobody = "no local gateway found: start one (`leastgate serve`, `leastgate demo`), name its file with \
                          --config, or its admin API with --admin-url";
            if symlink_metadata(&dir).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return Err(Failure::new(Exit::Failed, nobody));
            }
            checked(&dir)?;
            socket_in(&dir, None, nobody)
        }
    }
}

/// The state_dir of the gateway's file. That there is no file is no fault unless one was named.
fn state_dir(global: &Global) -> Result<Option<PathBuf>, Failure> {
    let sets_key = |(name, _): (std::ffi::OsString, _)| name.to_string_lossy().starts_with("LEASTGATE__");
    if find_gateway_file(global.config.as_deref()).is_none() && !std::env::vars_os().any(sets_key) {
        return Ok(None);
    }
    let loaded = loading::gateway_file(global, Vec::new())
        .map_err(|failure| failure.help(way_past(find_gateway_file(global.config.as_deref()).as_deref())))?;
    Ok(loaded.config.state_dir)
}

/// How to reach the gateway that runs while its file is broken: in an emergency nobody has the time to mend it first.
fn way_past(file: Option<&Path>) -> String {
    let socket = file.and_then(named_socket).unwrap_or_else(|| Path::new("STATE_DIR").join(SOCKET));
    format!("--admin-url unix:{} reaches the running gateway without this file", socket.display())
}

/// The socket in the `state_dir` that a line names, if it is there: all that can be read of a file that is no YAML.
fn named_socket(file: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("state_dir:"))?;
    let dir = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let socket = absolute(file.parent()?.join(dir)).join(SOCKET);
    symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket()).then_some(socket)
}

/// A path as it can be pasted anywhere. Only one that is empty has no such form.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn checked(dir: &Path) -> Result<(), Failure> {
    match symlink_metadata(dir) {
        Ok(found) if is_private(&found) => Ok(()),
        Ok(_) => Err(Failure::new(
            Exit::Failed,
            format!("{} is not a folder of yours that only you can write: remove it", dir.display()),
        )),
        Err(error) => Err(Failure::new(Exit::Failed, format!("{} can't be looked at: {error}", dir.display()))),
    }
}

/// Whether it is a folder, no link to one, that nobody else can put anything into.
fn is_private(dir: &Metadata) -> bool {
    dir.is_dir() && dir.uid() == own_uid() && dir.mode() & 0o022 == 0
}

/// The socket in `dir`, if it is one that root, this user or `owner` listens on.
fn socket_in(dir: &Path, owner: Option<u32>, nobody: &str) -> Result<PathBuf, Failure> {
    let path = dir.join(SOCKET);
    let found = symlink_metadata(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(Exit::Failed, nobody),
        ErrorKind::PermissionDenied => {
            ClientError::NotPermitted { endpoint: Endpoint::Unix(path.clone()).to_string() }.into()
        }
        _ => Failure::new(Exit::Failed, format!("{} can't be looked at: {error}", path.display())),
    })?;
    let trusted = [Some(0), Some(own_uid()), owner];
    if found.file_type().is_socket() && trusted.contains(&Some(found.uid())) {
        return Ok(path);
    }
    let message = format!(
        "{} is not a socket of the gateway's own user, of root or of yours: it is not used; \
         --admin-url unix:PATH names another",
        path.display()
    );
    Err(Failure::new(Exit::Failed, message))
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_folder_that_nobody_else_can_write_is_used() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        assert!(checked(&dir).is_err(), "it is looked at, not made");
        fs::create_dir(&dir).unwrap();
        for (mode, is_good) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o777, false)] {
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            assert_eq!(checked(&dir).is_ok(), is_good, "{mode:o}");
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        symlink(&dir, root.path().join("link")).unwrap();
        assert!(checked(&root.path().join("link")).is_err());
    }

    #[test]
    fn a_broken_file_does_not_hide_the_socket_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("leastgate.yaml");
        fs::write(&file, "environment: [\nstate_dir: \"state\"   # here\n").unwrap();
        assert!(way_past(Some(&file)).contains("--admin-url unix:STATE_DIR/admin.sock "));
        fs::create_dir(dir.path().join("state")).unwrap();
        let socket = dir.path().join("state").join(SOCKET);
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(way_past(Some(&file)).contains(&format!("--admin-url unix:{} ", socket.display())));
        assert!(way_past(None).contains("unix:STATE_DIR/admin.sock"));
    }

    #[test]
    fn only_a_socket_of_a_trusted_owner_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        assert!(socket_in(dir.path(), None, "nobody").is_err());
        fs::write(&path, "").unwrap();
        assert!(socket_in(dir.path(), None, "nobody").is_err(), "a file is no socket");
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(socket_in(dir.path(), None, "nobody").unwrap(), path);
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        assert!(socket_in(dir.path(), None, "nobody").is_err(), "a link is no socket");
        if own_uid() != 0 {
            return;
        }
        // Only root can give a file away.
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(socket_in(dir.path(), None, "nobody").is_err());
        assert!(socket_in(dir.path(), Some(65_533), "nobody").is_err());
        assert!(socket_in(dir.path(), Some(65_534), "nobody").is_ok(), "the owner of the state_dir");
    }
}
