//! `leastgate completion` and `leastgate man`: generated from the command line's description.

use std::path::Path;

use anyhow::Context;

use crate::cli;
use crate::exit::Failure;
use crate::output;

pub(super) fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::description(), "leastgate", &mut script);
    output::raw(&script);
    Ok(())
}

pub(super) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    let description = cli::description();
    match dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(description).render(&mut page).context("the manual page can't be made")?;
            output::raw(&page);
        }
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
            clap_mangen::generate_to(description, dir)
                .with_context(|| format!("{} can't be written", dir.display()))?;
            output::note(format_args!("manual pages written to {}", dir.display()));
        }
    }
    Ok(())
}
