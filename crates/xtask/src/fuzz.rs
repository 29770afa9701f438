//! `cargo xtask fuzz`: libFuzzer on every body of `leastgate-oracles`, each for so long, from the committed corpora.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::peers::ensure_tool;
use crate::run::{output, root, step};

const CARGO_FUZZ: &str = "0.13.2";
/// Longest input, and what one may take: seconds, and megabytes of the whole process.
const CAPS: [&str; 3] = ["-max_len=16384", "-timeout=20", "-rss_limit_mb=2048"];

/// Run libFuzzer (cargo-fuzz, nightly Rust) on the bodies that the tests run over the corpora
///
/// What it finds interesting is kept in target/fuzz/corpus, and an input that breaks a rule in target/fuzz/artifacts.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Minutes for each target; parts of a minute too
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Only this target: a name of crates/fuzz/fuzz_targets
    #[arg(long)]
    target: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = root()?;
    let fuzzer = Fuzzer {
        host: nightly_host()?,
        program: ensure_tool("cargo-fuzz", CARGO_FUZZ)?,
        folder: root.join("crates/fuzz"),
        work: root.join("target/fuzz"),
        seconds: Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes")?.as_secs().max(1),
    };
    let targets = fuzzer.targets(options.target.as_deref())?;
    // The fuzzers are no members of the workspace, and are to be built from the versions that ship all the same.
    fs::copy(root.join("Cargo.lock"), fuzzer.folder.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    step("build the fuzzers", fuzzer.build())?;
    let mut failed = Vec::new();
    for target in &targets {
        if let Err(error) = fuzzer.run(target) {
            eprintln!("{error:#}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} does not hold. The input lies in target/fuzz/artifacts/<target>; with its fix it goes into \
         crates/fuzz/corpus/<target>, where the tests run it for ever",
        failed.join(", ")
    )
}

struct Fuzzer {
    /// The target triple that is built for.
    host: String,
    /// cargo-fuzz itself.
    program: PathBuf,
    folder: PathBuf,
    work: PathBuf,
    seconds: u64,
}

impl Fuzzer {
    /// The targets there are, or the one that is wanted.
    fn targets(&self, wanted: Option<&str>) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder.join("fuzz_targets"))? {
            names.extend(entry?.path().file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
        names.sort();
        match wanted {
            None => Ok(names),
            Some(wanted) if names.iter().any(|name| name == wanted) => Ok(vec![wanted.to_owned()]),
            Some(wanted) => bail!("there is no target {wanted}, only {}", names.join(", ")),
        }
    }

    fn build(&self) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly"]).arg(&self.program).args(["fuzz", "build", "--target", &self.host]);
        // The workspace forbids unsafe code: what is looked for are broken rules, not memory errors.
        command.args(["--sanitizer", "none"]);
        command.arg("--fuzz-dir").arg(&self.folder).arg("--target-dir").arg(&self.work);
        // This program runs under another toolchain, which says so to everything it starts.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        command
    }

    fn run(&self, target: &str) -> Result<()> {
        let found = self.work.join("corpus").join(target);
        let artifacts = self.work.join("artifacts").join(target);
        for folder in [&found, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = Command::new(self.work.join(&self.host).join("release").join(target));
        // libFuzzer writes into the first folder and only reads the second.
        command.arg(found).arg(self.folder.join("corpus").join(target));
        command.arg(format!("-dict={}", self.folder.join(format!("dictionaries/{target}.dict")).display()));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.arg(format!("-max_total_time={}", self.seconds)).args(CAPS).arg("-print_final_stats=1");
        step(&format!("fuzz {target} for {} s", self.seconds), command)
    }
}

/// What the nightly compiler builds for; only that one instruments code for coverage.
fn nightly_host() -> Result<String> {
    let Ok(version) = output(Command::new("rustup").args(["run", "nightly", "rustc", "--version", "--verbose"])) else {
        bail!("fuzzing needs nightly Rust; install with\n\n    rustup toolchain install nightly --profile minimal\n");
    };
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not name its host")
}
