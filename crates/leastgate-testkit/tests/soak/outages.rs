//! When the upstream was out: the only excuse a legitimate request has.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// So long after the upstream is back everything must be well again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(1);

/// Begin and end of each; the last one may still be going on.
#[derive(Debug, Default)]
pub(crate) struct Outages(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Outages {
    pub(crate) fn begin(&self) {
        self.0.lock().expect("no holder panics").push((Instant::now(), None));
    }

    pub(crate) fn end(&self) {
        if let Some((_, end)) = self.0.lock().expect("no holder panics").last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Whether one of them touches this time.
    pub(crate) fn cover(&self, from: Instant, to: Instant) -> bool {
        let outages = self.0.lock().expect("no holder panics");
        outages.iter().any(|(begin, end)| *begin <= to && end.is_none_or(|end| end + RECOVERY >= from))
    }
}
