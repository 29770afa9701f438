//! How a stream ends, and how one can tell that it has not: no event goes missing between the last batch and the mark that
//! says "closed", and what does not write says so.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use leastgate_telemetry::{
    AdminEvent, AuditFull, ClassPolicy, Classes, FileSinkConfig, LifecycleEvent, Reservation, Sink, SinkConfig,
    SinkError, SinkKind, StdoutSink, SystemClock, Telemetry, TelemetryConfig,
};

use crate::loss::{count, eventually};
use crate::support::{Captured, DEADLINE, Hanging, World, custom, telemetry, verify};

fn with_state(dir: &Path, sink: SinkConfig) -> Telemetry {
    telemetry(|config| (config.sinks, config.state_dir) = (vec![sink], Some(dir.to_owned()))).0
}

/// The crash gaps that a start in this state directory records.
fn gaps_of_a_start(dir: &Path) -> usize {
    let captured = Captured::default();
    assert!(with_state(dir, captured.sink("main")).shut_down(DEADLINE));
    count(&captured, "gap")
}

#[test]
fn no_place_is_given_once_the_stream_is_closed() {
    for policy in [ClassPolicy::Drop, ClassPolicy::Block] {
        let (world, captured) = (World::new(), Captured::default());
        let (telemetry, _) = telemetry(|config| {
            config.sinks.push(captured.sink("main"));
            config.classes = Classes { allow: policy, deny: policy, admin: policy, lifecycle: policy };
        });
        let recorder = world.record(&telemetry.worker(), "GET", "/v1/orders", Some(&world.reader));
        assert!(telemetry.shut_down(DEADLINE));
        assert_eq!(telemetry.reserve_admin().unwrap_err(), AuditFull);
        assert_eq!(recorder.reserve(), Err(AuditFull));
    }
}

/// Leaves an event too late, perhaps in the place that was kept in time.
type Late<'a> = &'a dyn Fn(&Telemetry, Reservation);

#[test]
fn an_event_after_the_end_leaves_a_gap() {
    let (world, dir, captured) = (World::new(), tempfile::tempdir().unwrap(), Captured::default());
    let lates: [Late<'_>; 5] = [
        &|telemetry, kept| telemetry.admin(&AdminEvent::default(), Some(kept)),
        &|telemetry, _| telemetry.admin(&AdminEvent::default(), None),
        &|telemetry, _| telemetry.lifecycle(&LifecycleEvent::default()),
        &|telemetry, _| world.record(&telemetry.worker(), "GET", "/v1/orders", Some(&world.reader)).finish(),
        &|telemetry, _| world.record(&telemetry.worker(), "GET", "/v1/orders", None).finish(),
    ];
    for late in lates {
        let telemetry = with_state(dir.path(), captured.sink("main"));
        let kept = telemetry.reserve_admin().unwrap();
        assert!(telemetry.shut_down(DEADLINE));
        late(&telemetry, kept);
        assert_eq!(gaps_of_a_start(dir.path()), 1);
        assert_eq!(gaps_of_a_start(dir.path()), 0, "recorded once");
    }
}

#[test]
fn an_event_while_the_stream_is_closed_is_written_or_leaves_a_gap() {
    for _ in 0..20 {
        let (dir, captured) = (tempfile::tempdir().unwrap(), Captured::default());
        let telemetry = with_state(dir.path(), captured.sink("main"));
        let clean = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| telemetry.admin(&AdminEvent::default(), None)));
            }
            scope.spawn(|| telemetry.shut_down(DEADLINE)).join().unwrap()
        });
        let missing = 200 - count(&captured, "admin");
        assert!(clean || missing > 0);
        assert_eq!(gaps_of_a_start(dir.path()), usize::from(missing > 0), "{missing} are missing");
    }
}

#[test]
fn a_life_without_events_leaves_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let captured = Captured::default();
    let empty = || with_state(dir.path(), captured.sink("main"));
    assert!(empty().shut_down(Duration::from_secs(1)));
    assert!(empty().shut_down(Duration::from_secs(1)));
    assert!(captured.bytes().is_empty());
    // Forgotten: the next one, empty as it is, records it, and the one after has nothing to record.
    drop(empty());
    assert_eq!((gaps_of_a_start(dir.path()), gaps_of_a_start(dir.path())), (1, 0));
}

#[test]
fn what_a_flood_left_is_summarised_at_the_end() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| {
        config.sinks.push(captured.sink("main"));
        config.unauthenticated_per_source = 5;
    });
    let worker = telemetry.worker();
    (0..100).for_each(|_| world.record(&worker, "GET", "/v1/orders", None).finish());
    assert!(telemetry.shut_down(DEADLINE));
    let verified = verify(&captured.bytes());
    assert_eq!(verified.count()["decision"], 5);
    assert_eq!(verified.of_kind("summary")[0]["summary"]["count"], 95);
}

#[test]
fn a_start_that_fails_leaves_no_thread() {
    let alive = Arc::new(());
    let sinks = vec![
        custom("first", Box::new(Idle(Arc::clone(&alive)))),
        SinkConfig {
            name: "second".into(),
            kind: SinkKind::File(FileSinkConfig::new("/nowhere/at/all")),
            classes: None,
        },
    ];
    let config = TelemetryConfig { sinks, ..TelemetryConfig::default() };
    assert!(Telemetry::start(config, Arc::new(SystemClock::new())).is_err());
    eventually("the first sink is gone", || Arc::strong_count(&alive) == 1);
}

/// Does nothing; whether its thread still has it shows in the count.
#[derive(Debug)]
struct Idle(#[expect(dead_code, reason = "only counted")] Arc<()>);

impl Sink for Idle {
    fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A sink with a mistake in it.
#[derive(Debug)]
struct Panics;

impl Sink for Panics {
    fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
        panic!("as ordered by the test")
    }
}

fn states(telemetry: &Telemetry) -> Vec<String> {
    telemetry.sinks().into_iter().map(|sink| format!("{}: {}", sink.name, sink.state)).collect()
}

#[test]
fn a_dead_thread_shows() {
    let captured = Captured::default();
    let (telemetry, _) =
        telemetry(|config| config.sinks = vec![captured.sink("good"), custom("bad", Box::new(Panics))]);
    assert!(telemetry.is_healthy());
    assert_eq!(states(&telemetry), ["good: ok", "bad: ok"]);
    telemetry.lifecycle(&LifecycleEvent::default());
    telemetry.flush(DEADLINE);
    eventually("the sink's thread has died", || !telemetry.is_healthy());
    assert_eq!(states(&telemetry), ["good: ok", "bad: ended"]);
    assert!(!telemetry.shut_down(DEADLINE), "not all was written");
}

#[test]
fn a_closed_stream_is_not_healthy() {
    let (telemetry, _) = telemetry(|_| {});
    assert!(telemetry.is_healthy());
    assert!(telemetry.shut_down(DEADLINE));
    assert!(!telemetry.is_healthy());
}

#[test]
fn a_sink_says_what_is_wrong_and_since_when() {
    let (hanging, (reader, gone)) = (Hanging::default(), io::pipe().unwrap());
    drop(reader);
    let (telemetry, clock) = telemetry(|config| {
        let full = SinkKind::File(FileSinkConfig::new("/dev/full"));
        config.sinks = vec![
            SinkConfig { name: "full".into(), kind: full, classes: None },
            custom("gone", Box::new(StdoutSink::over(gone).insisting(true))),
            custom("slow", Box::new(hanging.clone())),
        ];
    });
    telemetry.lifecycle(&LifecycleEvent::default());
    telemetry.flush(DEADLINE);
    let expect = [
        "full: disk full since 2026-11-21T22:06:27Z",
        "gone: failing since 2026-11-21T22:06:27Z: Broken pipe (os error 32)",
        "slow: ok",
    ];
    eventually("both have failed", || states(&telemetry) == expect);
    clock.advance(Duration::from_secs(5));
    assert_eq!(states(&telemetry)[2], "slow: behind since 2026-11-21T22:06:27Z: 2 events");
    assert_eq!(states(&telemetry)[..2], expect[..2], "since it began");
    hanging.let_go();
    eventually("it has caught up", || states(&telemetry)[2] == "slow: ok");
    assert!(telemetry.is_healthy(), "a sink that fails is not a thread that died");
}

const CHILD: &str = "LEASTGATE_TEST_STDOUT_CHILD";

/// Runs in a process of its own: standard output is one for all tests.
#[test]
fn without_a_reader_of_standard_output_block_refuses() {
    if std::env::var_os(CHILD).is_some() {
        return write_to_standard_output_nobody_reads();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "closing::without_a_reader_of_standard_output_block_refuses", "--test-threads=2"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The harness says hello; after that nobody reads, and the child may begin.
    let mut hello = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut hello).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("places ran out and stayed out"), "{said}");
}

fn write_to_standard_output_nobody_reads() {
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![SinkConfig { name: "main".into(), kind: SinkKind::Stdout, classes: None }];
        config.reservations = 3;
    });
    for _ in 0..3 {
        telemetry.admin(&AdminEvent::default(), Some(telemetry.reserve_admin().unwrap()));
        telemetry.flush(DEADLINE);
    }
    eventually("the sink has failed", || states(&telemetry)[0].starts_with("main: failing since"));
    assert_eq!(telemetry.reserve_admin().unwrap_err(), AuditFull);
    assert!(!telemetry.shut_down(Duration::from_secs(1)), "nothing was written");
    // Not by `eprintln!`, which the harness catches.
    io::Write::write_all(&mut io::stderr(), b"places ran out and stayed out\n").unwrap();
}
