//! How far long work is, on a terminal, and its end when somebody asks for it.

use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leastgate_store::archive::{Progress, Step};

use super::interrupt::Interrupt;
use crate::cli::Global;

/// A line on standard error; where that is no terminal, nothing.
#[derive(Debug)]
pub(super) struct Line<'a> {
    bar: ProgressBar,
    interrupt: &'a Interrupt,
}

impl<'a> Line<'a> {
    pub(super) fn start(global: &Global, interrupt: &'a Interrupt) -> Self {
        let target = if global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { bar: ProgressBar::with_draw_target(None, target), interrupt }
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
        if self.interrupt.has_come() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
