//! The admin API's unix socket and users of the machine that it does not admit.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::paths::program;
use leastgate_testkit::process::{Ended, Process};
use serde_json::json;

use crate::stored::Stored;

/// `nobody`, who is neither root nor the gateway's own user.
const NOBODY: &str = "65534";

/// curl over the socket as that user.
fn as_nobody(socket: &Path, more: &[&str]) -> Ended {
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program("curl"));
    command.args(["-q", "-sS", "--max-time", "20", "-o", "-", "-w", "\n%{http_code}", "--unix-socket"]).arg(socket);
    command.args(more).arg("http://localhost/v1/status");
    Process::run("curl", &mut command, PATIENCE * 3)
}

fn code(ended: &Ended) -> &str {
    ended.stdout.lines().last().unwrap_or_default()
}

/// Only root can be somebody else, and so ask as one.
#[test]
fn a_user_who_is_neither_root_nor_the_gateways_own_is_refused_even_where_the_file_lets_in() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stored = Stored::start();
    let credential = format!("Authorization: Bearer {}", stored.administrator("ann", "admin"));
    let (folder, state) = (stored.gateway.path(), stored.gateway.path().join("state"));
    let socket = state.join("admin.sock");
    for folder in [folder, &state] {
        set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let closed = as_nobody(&socket, &[]);
    assert_eq!((code(&closed), closed.code), ("000", Some(7)), "the file's mode is 0600: {}", closed.stderr);

    set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    // A credential does not help: it is for the TCP listener.
    for more in [&[][..], &["-H", &credential]] {
        let refused = as_nobody(&socket, more);
        assert_eq!(code(&refused), "403", "{}", refused.stdout);
        assert!(refused.stdout.contains("uid 65534 is neither root nor the gateway's own"), "{}", refused.stdout);
    }
    until_true("the events", PATIENCE, || {
        let events = stored.gateway.events();
        let refused = |event: &&serde_json::Value| event["change"]["result"] == "peer-refused";
        let of_nobody: Vec<_> = events.iter().filter(refused).collect();
        of_nobody.len() == 2 && of_nobody.iter().all(|event| event["actor"]["subject"] == json!("unknown"))
    });
    assert_eq!(stored.cli(&["token", "list", "-o", "name"]).stdout, "", "root is admitted");
}
