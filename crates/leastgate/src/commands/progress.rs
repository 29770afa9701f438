//! How far long work is, on a terminal, and its end when somebody asks for it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leastgate_store::archive::{Progress, Step};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::Global;
use crate::exit::{Exit, Failure};

/// A line on standard error; where that is no terminal, nothing.
#[derive(Debug)]
pub(super) struct Line {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Line {
    /// Takes SIGINT and SIGTERM over: the first ends the work in good order, the second ends the process.
    pub(super) fn start(global: &Global) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&stop))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| Failure::new(Exit::Failed, format!("signals can't be taken over: {error}")))?;
        }
        let target = if global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Ok(Self { bar: ProgressBar::with_draw_target(None, target), stop })
    }

    /// Shows how far it is; says whether to go on.
    pub(super) fn show(&self, now: Progress) -> ControlFlow<()> {
        let verb = match now.step {
            Step::Copy => "copying",
            Step::Structure => "checking the structure",
            Step::Records => "reading records",
            Step::Seal => "sealing",
        };
        let template = if now.total > 0 { "{msg} {bar:30} {percent}%" } else { "{msg} {pos}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(verb);
        if now.total > 0 {
            self.bar.set_length(now.total);
        }
        self.bar.set_position(now.done);
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        // What follows has nothing to tidy up: a signal does what it does by default.
        self.stop.store(true, Ordering::Relaxed);
    }
}
