//! The command's token is kept alive for as long as the command is.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::token::{ChildToken, Renewed, may_pass};
use crate::exit::{Exit, Failure};
use crate::output::warn;

/// Between two tries while the gateway can't be asked: a fifth of the time between renewals, within these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A thread that renews. It ends, and says nothing more, when this is dropped.
#[derive(Debug)]
pub(super) struct Renewal {
    _go_on: Sender<()>,
}

impl Renewal {
    /// Renews `token` three times in its life.
    pub(super) fn start(token: &Arc<ChildToken>) -> Result<Self, Failure> {
        let (go_on, stop) = channel();
        let token = Arc::clone(token);
        std::thread::Builder::new()
            .name("renewal".into())
            .spawn(move || Rounds { token: &token, stop, is_last_told: false, is_failing: false }.run())
            .map_err(|error| Failure::new(Exit::Failed, format!("the renewing thread can't be started: {error}")))?;
        Ok(Self { _go_on: go_on })
    }
}

struct Rounds<'a> {
    token: &'a ChildToken,
    stop: Receiver<()>,
    /// Whether it was said that the end no longer moves.
    is_last_told: bool,
    /// Whether it was said that the gateway can't be asked.
    is_failing: bool,
}

impl Rounds<'_> {
    fn run(mut self) {
        let interval = self.token.interval();
        let mut pause = Some(interval);
        while let Some(wait) = pause
            && self.stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
        {
            pause = self.round(interval);
        }
    }

    /// Renews once; the pause before the next time, if there is one.
    fn round(&mut self, interval: Duration) -> Option<Duration> {
        let ChildToken { name, parent, .. } = self.token;
        match self.token.renew() {
            Ok(renewed) => {
                self.is_failing = false;
                if renewed == Renewed::AsBefore && !std::mem::replace(&mut self.is_last_told, true) {
                    self.say(format_args!("{name} ends at {}, as {parent} does then", self.token.end()));
                }
                Some(interval)
            }
            Err(error) if !may_pass(&error) => {
                let end = self.token.end();
                self.say(format_args!(
                    "{name} is not renewed any more ({error}): the command goes on, and its requests are refused (401) from \
                     {end} at the latest"
                ));
                None
            }
            Err(error) if self.token.is_over() => {
                self.say(format_args!(
                    "{name} could not be renewed in time ({error}): the command goes on, and its requests are refused (401)"
                ));
                None
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let end = self.token.end();
                    self.say(format_args!(
                        "{name} can't be renewed ({error}); it lives until {end}, and is tried again"
                    ));
                }
                Some((interval / 5).clamp(PAUSE.0, PAUSE.1))
            }
        }
    }

    /// What a call says that was under way when the command ended concerns nobody.
    fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.stop.try_recv() == Err(TryRecvError::Empty) {
            warn(text);
        }
    }
}
