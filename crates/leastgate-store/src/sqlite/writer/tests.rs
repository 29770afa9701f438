//! Groups, their callers who leave, and what is done while nobody waits.

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct Nothing;

impl Upkeep for Nothing {
    fn when_idle(&mut self, _: &Connection) -> Idle {
        Idle::UntilChanged
    }
}

fn writer() -> Writer {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
    Writer::start(connection, Path::new("memory"), 64, Nothing).unwrap()
}

fn insert(n: i64) -> impl Fn(&Connection) -> Result<usize, Failure> + Send + 'static {
    move |connection| Ok(connection.execute("INSERT INTO t VALUES (?1)", [n])?)
}

fn count(writer: &Writer) -> i64 {
    let read = |c: &Connection| Ok(c.query_one("SELECT count(*) FROM t", [], |row| row.get(0))?);
    writer.submit(read, Abandoned::Skip, PATIENCE).unwrap()
}

/// Holds the writer inside a change until the returned sender is dropped.
fn hold(writer: &Arc<Writer>) -> (SyncSender<()>, JoinHandle<()>) {
    let (release, held) = sync_channel::<()>(1);
    let (entered, inside) = sync_channel(1);
    let held = Mutex::new(held);
    let writer = Arc::clone(writer);
    let thread = std::thread::spawn(move || {
        let work = move |_: &Connection| {
            let _ = entered.try_send(());
            let _ = held.lock().unwrap().recv_timeout(PATIENCE);
            Ok(())
        };
        writer.submit(work, Abandoned::MakeAnyway, PATIENCE).unwrap();
    });
    inside.recv_timeout(PATIENCE).unwrap();
    (release, thread)
}

type Answer<T> = Receiver<Result<T, StoreError>>;

fn queued<T, F>(queue: &Queue<Box<dyn Change>>, work: F) -> Answer<T>
where
    T: Send + 'static,
    F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
{
    let (reply, answer) = sync_channel(1);
    let change = Work { work, fate: None, done: None, reply };
    queue.push(Box::new(change), Instant::now() + PATIENCE).unwrap();
    answer
}

fn rows(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn on_disk(dir: &tempfile::TempDir) -> Connection {
    let connection = Connection::open(dir.path().join("t.db")).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY) STRICT")
        .unwrap();
    connection
}

#[test]
fn what_waits_is_committed_together_and_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (connection, other) = (on_disk(&dir), on_disk(&dir));
    let queue = Queue::new(8);
    let first = queued(&queue, insert(1));
    let again = queued(&queue, insert(1));
    let peek = queued(&queue, move |_| Ok(rows(&other)));
    let last = queued(&queue, insert(2));
    queue.close();
    run(&connection, &queue, Path::new("t.db"), &mut Nothing);
    assert_eq!(first.try_recv().unwrap(), Ok(1));
    assert!(again.try_recv().unwrap().is_err());
    assert_eq!(peek.try_recv().unwrap(), Ok(vec![]), "nothing is visible before the group's commit");
    assert_eq!(last.try_recv().unwrap(), Ok(1));
    assert_eq!(rows(&connection), [1, 2]);
}

/// Notes how many rows it finds each time it is called.
struct Look {
    found: SyncSender<usize>,
    then: Idle,
}

impl Upkeep for Look {
    fn when_idle(&mut self, connection: &Connection) -> Idle {
        let _ = self.found.try_send(rows(connection).len());
        self.then
    }
}

#[test]
fn upkeep_comes_after_all_that_waits_and_again_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let connection = on_disk(&dir);
    let queue = Arc::new(Queue::new(2 * GROUP));
    let waiting: Vec<_> = (0..i64::try_from(GROUP).unwrap() + 1).map(|n| queued(&queue, insert(n))).collect();
    let (found, finds) = sync_channel(8);
    let of_thread = Arc::clone(&queue);
    let thread = std::thread::spawn(move || {
        let mut look = Look { found, then: Idle::UntilChanged };
        run(&connection, &of_thread, Path::new("t.db"), &mut look);
    });
    assert_eq!(finds.recv_timeout(PATIENCE).unwrap(), waiting.len(), "more than one group was in the queue");
    let last = queued(&queue, insert(-1));
    assert_eq!(finds.recv_timeout(PATIENCE).unwrap(), waiting.len() + 1);
    assert_eq!(last.recv_timeout(PATIENCE).unwrap(), Ok(1));
    queue.close();
    thread.join().unwrap();
    assert!(finds.try_recv().is_err(), "not without a change between");
}

#[test]
fn neither_a_change_nor_the_end_waits_for_upkeep_that_has_more_to_do() {
    for then in [Idle::For(Duration::ZERO), Idle::For(Duration::from_secs(3600))] {
        let dir = tempfile::tempdir().unwrap();
        let (found, _finds) = sync_channel(1);
        let writer = Writer::start(on_disk(&dir), Path::new("t.db"), 8, Look { found, then }).unwrap();
        assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Ok(1), "{then:?}");
        assert_eq!(writer.close(PATIENCE), Ok(()), "{then:?}");
    }
}

#[test]
fn a_group_that_is_undone_is_made_again_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let connection = on_disk(&dir);
    let queue = Queue::new(2);
    let good = queued(&queue, insert(7));
    // OR ROLLBACK undoes the whole transaction, as a full disk does.
    let bad = queued(&queue, |c| Ok(c.execute_batch("INSERT OR ROLLBACK INTO t VALUES (1), (1)")?));
    queue.close();
    run(&connection, &queue, Path::new("t.db"), &mut Nothing);
    assert_eq!(good.try_recv().unwrap(), Ok(1));
    assert!(bad.try_recv().unwrap().is_err());
    assert_eq!(rows(&connection), [7]);
}

#[test]
fn what_nobody_waits_for_is_made_only_if_it_takes_away() {
    let writer = Arc::new(writer());
    let (release, held) = hold(&writer);
    let short = Duration::from_millis(5);
    let withdrawn = Err(StoreError::Withdrawn { waited: short });
    assert_eq!(writer.submit(insert(1), Abandoned::Skip, short), withdrawn);
    let timeout = Err(StoreError::Timeout { waited: short });
    assert_eq!(writer.submit(insert(2), Abandoned::MakeAnyway, short), timeout);
    drop(release);
    held.join().unwrap();
    assert_eq!(count(&writer), 1);
}

#[test]
fn what_was_begun_when_its_caller_left_is_not_committed_and_the_rest_of_its_group_is() {
    let writer = Arc::new(writer());
    let (release, held) = sync_channel::<()>(1);
    let (entered, inside) = sync_channel(1);
    let held = Mutex::new(held);
    let gift = move |connection: &Connection| {
        connection.execute("INSERT INTO t VALUES (1)", [])?;
        let _ = entered.try_send(());
        let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        Ok(())
    };
    let giver = Arc::clone(&writer);
    let short = Duration::from_millis(50);
    let giving = std::thread::spawn(move || giver.submit(gift, Abandoned::Skip, short));
    inside.recv_timeout(PATIENCE).unwrap();
    assert_eq!(giving.join().unwrap(), Err(StoreError::Withdrawn { waited: short }));
    drop(release);
    assert_eq!(writer.submit(insert(2), Abandoned::Skip, PATIENCE), Ok(1));
    assert_eq!(count(&writer), 1);
}

/// Without a write-ahead log a commit waits for every reader: one that hangs, for as long as it is wanted.
#[test]
fn who_leaves_while_the_commit_is_under_way_is_in_doubt_and_what_comes_next_knows_better() {
    let dir = tempfile::tempdir().unwrap();
    let [connection, reader] = [0, 1].map(|_| Connection::open(dir.path().join("t.db")).unwrap());
    connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let writer = Writer::start(connection, Path::new("t.db"), 64, Nothing).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    assert!(rows(&reader).is_empty());
    let short = Duration::from_millis(200);
    let doubt = Err(StoreError::InDoubt { why: format!("the store did not finish within {short:?}"), made: vec![] });
    assert_eq!(writer.submit(insert(1), Abandoned::Skip, short), doubt);
    // One that waits behind it is not begun, so there is no doubt about it.
    let withdrawn = Err(StoreError::Withdrawn { waited: short });
    assert_eq!(writer.submit(insert(2), Abandoned::Skip, short), withdrawn);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&writer), 1);
    assert_eq!(rows(&reader), [1]);
}

#[test]
fn closing_makes_what_waits_and_refuses_the_rest() {
    let writer = Arc::new(writer());
    let (release, held) = hold(&writer);
    assert_eq!(writer.close(Duration::from_millis(5)), Err(StoreError::Timeout { waited: Duration::from_millis(5) }));
    drop(release);
    held.join().unwrap();
    writer.close(PATIENCE).unwrap();
    writer.close(PATIENCE).unwrap();
    assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
}

#[test]
fn a_writer_that_dies_leaves_nobody_waiting() {
    let writer = writer();
    assert!(writer.is_running());
    let die = |_: &Connection| -> Result<(), Failure> { panic!("as a fault of ours would") };
    assert_eq!(writer.submit(die, Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
    assert_eq!(writer.submit(insert(1), Abandoned::Skip, PATIENCE), Err(StoreError::Closed));
    assert!(writer.close(PATIENCE).is_err());
    assert!(!writer.is_running());
}
