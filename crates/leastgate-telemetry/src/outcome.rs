//! The end of a request, told once to each of the three who want to know: metrics, audit, usage.

use std::cell::RefMut;

use leastgate_policy::{Accessor, RuleKey};

use crate::clock::after;
use crate::event::Class;
use crate::pipeline::Queue;
use crate::recorder::{Facts, LineKind, Record, Totals, Worker};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the response's last byte.
    Complete,
    /// Before it.
    BrokenOff,
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    facts: RefMut<'a, Facts>,
    totals: Totals,
    seconds: f64,
}

impl<'a> Outcome<'a> {
    pub(crate) fn of(worker: &Worker, record: &'a Record, ending: Ending) -> Self {
        let mut facts = record.facts.borrow_mut();
        if ending == Ending::BrokenOff && facts.error.is_none() {
            facts.error = Some("broken_off");
        }
        let seconds = worker.clock().elapsed().saturating_sub(facts.started).as_secs_f64();
        let totals = worker.totals(record, &facts);
        Self { facts, totals, seconds }
    }

    pub(crate) fn tell(mut self, worker: &Worker) {
        self.count(worker);
        self.count_use(worker);
        self.audit(worker);
    }

    fn count(&self, worker: &Worker) {
        let (facts, families) = (&self.facts, &worker.core.families);
        families.in_flight.dec();
        let newest;
        let table = match &facts.table {
            Some(table) => table,
            None => {
                newest = worker.core.routes.newest();
                &newest
            }
        };
        let route = table.route(facts.route);
        route.count(facts.method_label, facts.status);
        if !facts.upgraded {
            route.observe(self.seconds);
        }
        let Some(verdict) = facts.verdict else { return };
        worker.decisions.count(verdict.reason, verdict.shadow);
        if verdict.is_mismatch()
            && let Ok(api) = std::str::from_utf8(&facts.api)
        {
            table.count_shadow_mismatch(api);
        }
    }

    fn count_use(&self, worker: &Worker) {
        let decided = self.facts.decided.unwrap_or(self.facts.arrival).timestamp();
        let (usage, source) = (&worker.core.usage, Some(self.facts.source()));
        self.facts.for_each_use(|accessor, rule| usage.record(accessor, rule, decided, source));
    }

    fn audit(&mut self, worker: &Worker) {
        let place = self.facts.place.take();
        let class = self.facts.verdict.map_or(Class::Unauthenticated, |verdict| verdict.class);
        let now = after(self.facts.arrival, std::time::Duration::from_millis(self.totals.duration_ms));
        let is_of_flood = || !worker.core.pipeline.flood().admit(self.facts.source(), now);
        // Whoever took a place was promised a line of its own.
        if place.is_none() && class == Class::Unauthenticated && is_of_flood() {
            return;
        }
        let queue = match (place, class) {
            (Some(place), _) => {
                place.used();
                Queue::Kept
            }
            (None, Class::Unauthenticated) => Queue::Flood,
            (None, _) => Queue::Lossy,
        };
        worker.leave(LineKind::Decision, &self.facts, self.totals, queue);
    }
}

impl Facts {
    /// What a request is a use of: its token, by each rule or by none.
    pub(crate) fn for_each_use(&self, mut each: impl FnMut(Accessor, Option<RuleKey>)) {
        let Some(accessor) = self.accessor else { return };
        self.rules.iter().for_each(|&rule| each(accessor, Some(rule)));
        // A token that the scopes refuse is in somebody's hands all the same. One that is not valid counts for nothing:
        // else a thief could keep it from being disabled for idleness, or an ended one seem to be in use.
        if self.rules.is_empty() && self.is_token_valid {
            each(accessor, None);
        }
    }

    pub(crate) fn count_upstream(&mut self, status: Option<u16>, now: std::time::Duration) {
        let labels = self.table.as_ref().zip(self.upstream).and_then(|(table, index)| table.upstream_labels(index));
        let Some(labels) = labels else { return };
        labels.count(status);
        if let (Some(sent), Some(_)) = (self.sent_upstream.take(), status) {
            labels.observe(now.saturating_sub(sent).as_secs_f64());
        }
    }
}
