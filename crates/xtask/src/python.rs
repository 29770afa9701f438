//! Packages of PyPI, in environments of their own among the tools of the workspace.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::peers;
use crate::run::{root, step};

/// What the suite tries the admin API with.
pub(crate) const API: (&str, &str) = ("api", "crates/leastgate-testkit/api/requirements.txt");

/// An environment with what `requirements` lists, made anew when the list changes.
pub(crate) fn ensure(name: &str, requirements: &str) -> Result<()> {
    let root = root()?;
    let (environment, requirements) = (root.join("target/tools").join(name), root.join(requirements));
    let (stamp, wanted) = (environment.join("requirements.txt"), fs::read_to_string(&requirements)?);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut make = Command::new(peers::PYTHON);
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    step("make an environment for Python", make)?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    step("install what is from PyPI", install)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
