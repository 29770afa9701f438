//! The programs the tests run against, from the system's packages: found, installed, or asked for.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{output, step};

/// A program and the package it comes in, by Debian's names.
struct Peer {
    program: &'static str,
    package: &'static str,
}

const PEERS: &[Peer] = &[
    Peer { program: "nginx", package: "nginx-light" },
    Peer { program: "curl", package: "curl" },
    Peer { program: "promtool", package: "prometheus" },
    Peer { program: "h2load", package: "nghttp2-client" },
];

/// Makes sure that every peer is there. Root installs what is missing; anyone else is told the one line to run.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
    let line = format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !is_root() || find("apt-get").is_none() {
        let names: Vec<&str> = missing.iter().map(|peer| peer.program).collect();
        bail!("the tests need {}; install with\n\n    sudo sh -c '{line}'\n", names.join(", "));
    }
    install(&packages)
}

fn install(packages: &[&str]) -> Result<()> {
    step("update the package lists", apt(&["update", "-qq"]))?;
    let mut arguments = vec!["install", "--yes", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    step(&format!("install {}", packages.join(", ")), apt(&arguments))?;
    match missing().first() {
        None => Ok(()),
        Some(peer) => bail!("package {} was installed, but there is still no {}", peer.package, peer.program),
    }
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // RUNLEVEL=1 keeps the packages from starting their services: the tests start their own on free ports.
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn missing() -> Vec<&'static Peer> {
    PEERS.iter().filter(|peer| find(peer.program).is_none()).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| Path::is_file(path))
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
