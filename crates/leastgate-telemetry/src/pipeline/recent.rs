//! The last events in memory, for `explain`, `GET /v1/events` and what-if: whole batches as the sinks got them, read line
//! by line only when somebody asks. Their number is bounded, and their bytes; the newest batch is always there.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use super::most_bytes;
use crate::decision_id::DecisionId;

/// Which recent events to return. Everything that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct RecentFilter {
    /// At most so many, the newest. 0: all there are.
    pub limit: usize,
    /// Only events with a greater sequence number.
    pub after_seq: Option<u64>,
    /// `decision`, `admin`, …
    pub kind: Option<String>,
    /// `allow` or `deny`.
    pub effect: Option<String>,
    /// A reason's name.
    pub reason: Option<String>,
    /// The actor's accessor.
    pub accessor: Option<String>,
    /// The actor's name.
    pub subject: Option<String>,
    /// The api's name.
    pub api: Option<String>,
}

impl RecentFilter {
    fn admits(&self, line: &[u8]) -> bool {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
        let is = |wanted: &Option<String>, pointer: &str| {
            wanted.as_deref().is_none_or(|wanted| event.pointer(pointer).and_then(Value::as_str) == Some(wanted))
        };
        self.after_seq.is_none_or(|after| event["seq"].as_u64().is_some_and(|seq| seq > after))
            && is(&self.kind, "/kind")
            && is(&self.effect, "/decision/effect")
            && is(&self.reason, "/decision/reason")
            && is(&self.accessor, "/actor/accessor")
            && is(&self.subject, "/actor/subject")
            && is(&self.api, "/request/api")
    }
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Recent {
    batches: VecDeque<(Bytes, usize)>,
    events: usize,
    bytes: usize,
    limit: usize,
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Self { batches: VecDeque::new(), events: 0, bytes: 0, limit }
    }

    pub(crate) fn push(&mut self, batch: Bytes, events: usize) {
        if self.limit == 0 {
            return;
        }
        self.events += events;
        self.bytes += batch.len();
        self.batches.push_back((batch, events));
        while self.is_over()
            && let Some((batch, events)) = self.batches.pop_front()
        {
            self.events -= events;
            self.bytes -= batch.len();
        }
    }

    /// Whether the oldest batch has to go.
    fn is_over(&self) -> bool {
        let oldest = self.batches.front().map_or(0, |(_, events)| *events);
        self.events - oldest >= self.limit || (self.bytes > most_bytes(self.limit) && self.batches.len() > 1)
    }

    /// The batches, to be searched without holding up the writer. Cheap: nothing is copied.
    pub(crate) fn snapshot(&self) -> Vec<Bytes> {
        self.batches.iter().map(|(bytes, _)| bytes.clone()).collect()
    }
}

/// Matching lines of `batches`, oldest first.
pub(crate) fn search(batches: &[Bytes], filter: &RecentFilter) -> Vec<Bytes> {
    let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
    let mut found: Vec<_> = newest_first(batches).filter(|line| filter.admits(line)).take(limit).collect();
    found.reverse();
    found
}

/// The newest event with that id; the decision rather than the `stream` event that came before it.
pub(crate) fn find(batches: &[Bytes], id: DecisionId) -> Option<Bytes> {
    let wanted = format!("\"id\":\"{id}\"").into_bytes();
    newest_first(batches).find(|line| line.windows(wanted.len()).any(|window| window == wanted))
}

fn newest_first(batches: &[Bytes]) -> impl Iterator<Item = Bytes> + '_ {
    batches.iter().rev().flat_map(|batch| {
        batch.strip_suffix(b"\n").unwrap_or(batch).rsplit(|&byte| byte == b'\n').map(|line| batch.slice_ref(line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[&str]) -> Bytes {
        Bytes::from(lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    fn ring() -> Recent {
        let mut ring = Recent::new(3);
        ring.push(batch(&[r#"{"seq":1,"kind":"decision"}"#, r#"{"seq":2,"kind":"checkpoint"}"#]), 2);
        ring.push(batch(&[r#"{"seq":3,"kind":"decision","actor":{"accessor":"a"},"decision":{"effect":"deny"}}"#]), 1);
        ring.push(batch(&[r#"{"seq":4,"kind":"decision","decision":{"effect":"allow"}}"#]), 1);
        ring.push(batch(&[r#"{"seq":5,"kind":"admin"}"#]), 1);
        ring
    }

    #[track_caller]
    fn check(filter: &RecentFilter, expect: &[u64]) {
        let found: Vec<u64> = search(&ring().snapshot(), filter)
            .iter()
            .map(|line| serde_json::from_slice::<Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn large_ones_are_kept_as_far_as_their_bytes_allow() {
        let mut ring = Recent::new(1000);
        let kept = |ring: &Recent| ring.snapshot().iter().map(Bytes::len).sum::<usize>();
        for _ in 0..100 {
            ring.push(Bytes::from(vec![b'x'; 512 * 1024]), 1);
            assert!(kept(&ring) <= 4_096_000, "{}", kept(&ring));
        }
        assert_eq!(ring.snapshot().len(), 7);
        ring.push(Bytes::from(vec![b'x'; 8 << 20]), 1);
        assert_eq!(kept(&ring), 8 << 20, "the newest is there, whatever it is");
        ring.push(batch(&["small"]), 1);
        assert_eq!(kept(&ring), 6);
    }

    #[test]
    fn the_newest_are_kept_and_filtered() {
        check(&RecentFilter::default(), &[3, 4, 5]);
        check(&RecentFilter { limit: 2, ..RecentFilter::default() }, &[4, 5]);
        check(&RecentFilter { after_seq: Some(4), ..RecentFilter::default() }, &[5]);
        check(&RecentFilter { kind: Some("decision".into()), ..RecentFilter::default() }, &[3, 4]);
        check(
            &RecentFilter { effect: Some("deny".into()), accessor: Some("a".into()), ..RecentFilter::default() },
            &[3],
        );
        check(&RecentFilter { accessor: Some("b".into()), ..RecentFilter::default() }, &[]);
    }
}
