//! All tokens into memory, at a start: read by as many threads as there are processors, each a span of rows at a time.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use leastgate_policy::TokenEntry;
use rusqlite::Connection;

use super::decode::{ENTRY_COLUMNS, Entries};
use super::pending::PENDING;
use super::readers::Readers;
use crate::error::{Failure, StoreError};

/// Spans that the rows are cut into: enough that no thread is left with much when the others are done, and few however far
/// apart the rows' ids are.
const SPANS: u64 = 64;

/// Most threads; each keeps a reader.
const THREADS: usize = 4;

type Take<'a> = &'a (dyn Fn(TokenEntry) + Sync);

/// Hands every token to `take` and says how many there were.
pub(super) fn load(readers: &Readers, patience: Duration, take: Take<'_>) -> Result<u64, StoreError> {
    let spans = readers.read(patience, spans)?;
    let next = AtomicUsize::new(0);
    let read = || readers.read(patience, |connection| read_spans(connection, &spans, &next, take));
    let threads = thread::available_parallelism().map_or(1, usize::from).min(readers.most()).min(THREADS);
    thread::scope(|scope| {
        // Where a thread can't be had, the others read its spans too.
        let beside: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, read).ok()).collect();
        let own = read();
        beside.into_iter().fold(own, |sum, thread| {
            let count = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(sum? + count?)
        })
    })
}

/// Together they hold every id there can be.
fn spans(connection: &Connection) -> Result<Vec<RangeInclusive<i64>>, Failure> {
    let ends = "SELECT coalesce((SELECT min(id) FROM tokens), 0), coalesce((SELECT max(id) FROM tokens), 0)";
    let (first, last): (i64, i64) = connection.query_one(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let width = first.abs_diff(last) / SPANS + 1;
    let begin = |span: u64| match span {
        0 => i64::MIN,
        _ => first.saturating_add_unsigned(width.saturating_mul(span)),
    };
    let end = |span: u64| if span == SPANS - 1 { i64::MAX } else { begin(span + 1) - 1 };
    Ok((0..SPANS).map(|span| begin(span)..=end(span)).collect())
}

/// Those that no other thread has begun.
fn read_spans(
    connection: &Connection,
    spans: &[RangeInclusive<i64>],
    next: &AtomicUsize,
    take: Take<'_>,
) -> Result<u64, Failure> {
    let mut entries = Entries::default();
    let mut count = 0;
    let span = format!("SELECT {ENTRY_COLUMNS} FROM tokens {PENDING} WHERE tokens.id BETWEEN ?1 AND ?2");
    let mut statement = connection.prepare(&span)?;
    while let Some(span) = spans.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut rows = statement.query((span.start(), span.end()))?;
        while let Some(row) = rows.next()? {
            take(entries.entry(row)?);
            count += 1;
        }
    }
    // All rows went through its cache, and none comes again.
    connection.release_memory()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_every_id_once_however_far_apart_they_are() {
        for (first, last) in [(1, 1), (1, 7), (-5, 1_000_000), (i64::MIN, i64::MAX), (i64::MAX - 1, i64::MAX)] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE tokens (id INTEGER PRIMARY KEY)").unwrap();
            for id in [first, last] {
                connection.execute("INSERT OR IGNORE INTO tokens VALUES (?1)", [id]).unwrap();
            }
            let spans = spans(&connection).unwrap();
            let ends = (*spans[0].start(), *spans[spans.len() - 1].end());
            assert_eq!((spans.len() as u64, ends), (SPANS, (i64::MIN, i64::MAX)));
            let is_next = |pair: &[RangeInclusive<i64>]| *pair[1].start() == pair[0].end() + 1;
            assert!(spans.windows(2).all(is_next), "{first} to {last}: {spans:?}");
        }
    }
}
