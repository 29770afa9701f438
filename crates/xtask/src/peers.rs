//! The programs that the tasks need, from the system's packages or crates.io: found, installed, or asked for.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{cargo, output, root, step};

/// Something that has to be there and the package it comes in, by Debian's names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    what: What,
    package: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Program(&'static str),
    /// A file that a program needs and does not bring.
    File(&'static str),
    /// A module of the system's Python.
    PythonModule(&'static str),
}

/// The system's Python.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// What the tests run against.
pub(crate) const TESTS: &[Peer] = &[
    program("nginx", "nginx-light"),
    program("curl", "curl"),
    program("openssl", "openssl"),
    program("promtool", "prometheus"),
    program("h2load", "nghttp2-client"),
    Peer { what: What::File(PYTHON), package: "python3" },
    Peer { what: What::PythonModule("ensurepip"), package: "python3-venv" },
    program("faketime", "faketime"),
];

/// What `cargo xtask conformance` runs against.
pub(crate) const CONFORMANCE: &[Peer] = &[
    program("nginx", "nginx-light"),
    program("haproxy", "haproxy"),
    program("apache2", "apache2-bin"),
    program("node", "nodejs"),
    program("go", "golang-go"),
    Peer { what: What::File(PYTHON), package: "python3" },
    Peer { what: What::PythonModule("ensurepip"), package: "python3-venv" },
    program("curl", "curl"),
    program("nghttp", "nghttp2-client"),
    program("h2load", "nghttp2-client"),
    program("slowhttptest", "slowhttptest"),
    program("testssl", "testssl.sh"),
];

/// What `cargo xtask instructions` counts with.
pub(crate) const INSTRUCTIONS: &[Peer] = &[program("valgrind", "valgrind")];

const fn program(program: &'static str, package: &'static str) -> Peer {
    Peer { what: What::Program(program), package }
}

/// Makes sure that every peer is there. Root installs what is missing; anyone else is told the one line to run.
pub(crate) fn ensure(peers: &[Peer]) -> Result<()> {
    let missing = missing(peers);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let line = format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !is_root() || find("apt-get").is_none() {
        let names: Vec<&str> = missing.iter().map(|peer| peer.what.name()).collect();
        bail!("this needs {}; install with\n\n    sudo sh -c '{line}'\n", names.join(", "));
    }
    install(&packages, peers)
}

/// A program of crates.io in this version, among the tools of the workspace; where it lies.
pub(crate) fn ensure_tool(name: &str, version: &str) -> Result<PathBuf> {
    // Each version in a folder of its own: another one that is there is not the one.
    let folder = root()?.join("target/tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]).arg(folder);
        step(&format!("install {name}"), install)?;
    }
    Ok(program)
}

fn install(packages: &[&str], peers: &[Peer]) -> Result<()> {
    step("update the package lists", apt(&["update", "-qq"]))?;
    let mut arguments = vec!["install", "--yes", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    step(&format!("install {}", packages.join(", ")), apt(&arguments))?;
    match missing(peers).first() {
        None => Ok(()),
        Some(peer) => bail!("package {} was installed, but there is still no {}", peer.package, peer.what.name()),
    }
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // RUNLEVEL=1 keeps the packages from starting their services: the tests start their own on free ports.
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn missing(peers: &[Peer]) -> Vec<Peer> {
    peers.iter().copied().filter(|peer| !peer.what.is_there()).collect()
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Program(name) | Self::File(name) | Self::PythonModule(name) => name,
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => find(name).is_some(),
            Self::File(path) => Path::new(path).is_file(),
            Self::PythonModule(name) => output(Command::new(PYTHON).args(["-c", &format!("import {name}")])).is_ok(),
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| Path::is_file(path))
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
