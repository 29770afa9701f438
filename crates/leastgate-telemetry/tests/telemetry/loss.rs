//! Nothing is lost silently: full buffers, slow sinks, full disks and crashes each leave a gap that says how much.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use leastgate_telemetry::{
    AdminEvent, AuditFull, ClassPolicy, Classes, Clock, FileSinkConfig, Micros, SinkConfig, SinkKind, Telemetry,
    TelemetryConfig,
};
use serde_json::Value;

use crate::support::{Captured, DEADLINE, Hanging, Verified, World, custom, telemetry, verify};

fn requests(world: &World, telemetry: &Telemetry, count: usize) {
    let worker = telemetry.worker();
    for _ in 0..count {
        world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A stream in which a worker's buffer was too small.
pub(crate) fn stream_with_gaps() -> Verified {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| {
        config.sinks.push(captured.sink("main"));
        config.worker_buffer = 10_000;
    });
    requests(&world, &telemetry, 200);
    assert!(telemetry.shut_down(DEADLINE));
    verify(&captured.bytes())
}

#[test]
fn what_a_full_buffer_drops_is_in_a_gap() {
    let verified = stream_with_gaps();
    let gaps = verified.of_kind("gap");
    let lost: u64 = gaps.iter().map(|gap| gap["gap"]["count"].as_u64().unwrap()).sum();
    assert!(lost > 0);
    assert_eq!(verified.count()["decision"] as u64 + lost, 200);
    assert!(gaps.iter().all(|gap| gap["gap"]["cause"] == "buffer_full" && gap["gap"]["worker"] == 0));
}

#[test]
fn a_slow_sink_delays_nobody_and_its_gap_is_recorded() {
    let (world, quick, slow) = (World::new(), Captured::default(), Hanging::default());
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![custom("slow", Box::new(slow.clone())), quick.sink("quick")];
        config.classes.allow = ClassPolicy::Drop;
        config.sink_queue = 20;
    });
    // The queue of the quick one is as short: a thread that has not had a turn yet is not what this is about.
    for round in 1..=10 {
        requests(&world, &telemetry, 10);
        assert!(telemetry.flush(DEADLINE));
        eventually("the quick sink has everything", || count(&quick, "decision") == round * 10);
    }
    slow.let_go();
    eventually("the gap is recorded", || {
        telemetry.flush(DEADLINE);
        count(&quick, "gap") > 0
    });
    assert!(telemetry.shut_down(DEADLINE));
    let verified = verify(&quick.bytes());
    let gap = &verified.of_kind("gap")[0]["gap"];
    assert_eq!((gap["cause"].as_str(), gap["sink"].as_str()), (Some("queue_full"), Some("slow")));
    let seen: Vec<u64> = lines(&slow.captured).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    let missing = verified.events.len() as u64 - seen.len() as u64;
    assert_eq!(gap["count"].as_u64(), Some(missing), "the gap counts what the slow sink misses");
    let (first, last) = (gap["first_seq"].as_u64().unwrap(), gap["last_seq"].as_u64().unwrap());
    assert!((first..=last).all(|seq| !seen.contains(&seq)));
    let metrics = String::from_utf8(telemetry.render_metrics()).unwrap();
    assert!(
        metrics.contains(&format!("leastgate_audit_dropped_total{{reason=\"queue_full\",sink=\"slow\"}} {missing}\n"))
    );
    assert!(metrics.contains("leastgate_audit_dropped_total{reason=\"queue_full\",sink=\"quick\"} 0\n"));
}

#[test]
fn block_refuses_what_it_could_not_record_and_keeps_what_it_promised() {
    let (world, slow) = (World::new(), Hanging::default());
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![custom("slow", Box::new(slow.clone()))];
        config.classes = Classes { allow: ClassPolicy::Block, ..Classes::default() };
        config.sink_queue = 1;
        config.reservations = 25;
    });
    let worker = telemetry.worker();
    let mut promised = 0;
    for _ in 0..100 {
        let recorder = world.record(&worker, "GET", "/v1/orders", Some(&world.reader));
        match recorder.reserve() {
            Ok(()) => promised += 1,
            Err(AuditFull) => {
                recorder.refused(leastgate_policy::Reason::Overloaded);
                recorder.response(503, leastgate_telemetry::Origin::Gateway);
            }
        }
        recorder.finish();
        telemetry.flush(DEADLINE);
    }
    assert_eq!(promised, 25);
    assert_eq!(telemetry.reserve_admin().unwrap_err(), AuditFull);
    slow.let_go();
    eventually("places are free again", || telemetry.reserve_admin().is_ok());
    assert!(telemetry.shut_down(DEADLINE));
    let kept = lines(&slow.captured).iter().filter(|event| event["decision"]["reason"] == "scope_granted").count();
    assert_eq!(kept, 25);
}

fn large() -> AdminEvent {
    AdminEvent { details: vec![("accessors".to_owned(), "x".repeat(64 * 1024))], ..AdminEvent::default() }
}

#[test]
fn a_queue_is_full_of_few_events_that_are_large() {
    let slow = Hanging::default();
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![custom("slow", Box::new(slow.clone()))];
        config.classes.admin = ClassPolicy::Drop;
        config.sink_queue = 1000;
    });
    for _ in 0..100 {
        telemetry.admin(&large(), None);
        telemetry.flush(DEADLINE);
    }
    let dropped = metric(&telemetry, "leastgate_audit_dropped_total{reason=\"queue_full\",sink=\"slow\"}");
    assert!(dropped > 50.0, "{dropped}");
    slow.let_go();
    assert!(telemetry.shut_down(DEADLINE));
}

/// A change that gives access waits for room, and one that takes it away is told all the same.
#[test]
fn no_place_is_given_while_what_waits_is_large() {
    let slow = Hanging::default();
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![custom("slow", Box::new(slow.clone()))];
        config.sink_queue = 1000;
    });
    let mut given = 0;
    while let Ok(place) = telemetry.reserve_admin() {
        telemetry.admin(&large(), Some(place));
        telemetry.flush(DEADLINE);
        given += 1;
        assert!(given < 100, "places for {given} events of 64 KiB");
    }
    telemetry.admin(&AdminEvent { operation: "token.revoke".to_owned(), ..AdminEvent::default() }, None);
    slow.let_go();
    eventually("there is room again", || telemetry.reserve_admin().is_ok());
    assert!(telemetry.shut_down(DEADLINE));
    let events = lines(&slow.captured);
    assert_eq!(events.iter().filter(|event| event["change"]["details"].is_array()).count(), given);
    assert!(events.iter().any(|event| event["change"]["operation"] == "token.revoke"));
}

#[test]
fn a_reservation_not_used_is_given_back() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| {
        config.sinks.push(captured.sink("main"));
        config.reservations = 1;
    });
    drop(telemetry.reserve_admin().unwrap());
    let place = telemetry.reserve_admin().unwrap();
    assert!(telemetry.reserve_admin().is_err());
    // Class allow is dropped by default: it needs no place.
    let recorder = world.record(&telemetry.worker(), "GET", "/v1/orders", Some(&world.reader));
    assert_eq!(recorder.reserve(), Ok(()));
    drop(place);
    assert!(telemetry.reserve_admin().is_ok());
}

#[test]
fn a_full_disk_is_survived_and_the_gap_recorded_when_there_is_room() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("audit.log");
    symlink("/dev/full", &path).unwrap();
    let (telemetry, _) = telemetry(|config| {
        config.sinks = vec![file(&path)];
        config.sink_queue = 15;
    });
    eventually("the queue is full and events are dropped", || {
        requests(&world, &telemetry, 10);
        telemetry.flush(DEADLINE);
        metric(&telemetry, "leastgate_audit_dropped_total{reason=\"disk_full\",sink=\"file\"}") > 0.0
    });
    assert_eq!(metric(&telemetry, "leastgate_audit_last_success_timestamp_seconds{sink=\"file\"}"), 0.0);
    fs::remove_file(&path).unwrap();
    eventually("the gap is recorded", || {
        telemetry.flush(DEADLINE);
        fs::read_to_string(&path).is_ok_and(|text| text.contains("\"cause\":\"disk_full\""))
    });
    assert!(telemetry.shut_down(DEADLINE));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"operation\":\"audit.file_reopened\""));
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "only whole lines");
}

#[test]
fn a_file_deleted_under_the_gateway_is_noticed_within_a_second() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("audit.log");
    let (telemetry, _) = telemetry(|config| config.sinks = vec![file(&path)]);
    requests(&world, &telemetry, 1);
    telemetry.flush(DEADLINE);
    eventually("the first event is there", || fs::read_to_string(&path).is_ok_and(|text| text.contains("decision")));
    fs::remove_file(&path).unwrap();
    let deleted = Instant::now();
    eventually("the file is there again", || path.exists());
    assert!(deleted.elapsed() < Duration::from_secs(10), "promised is 1 s");
    requests(&world, &telemetry, 1);
    assert!(telemetry.shut_down(DEADLINE));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"kind\":\"decision\"") && text.contains("\"result\":\"deleted\""));
}

fn with_state(dir: &Path, captured: &Captured) -> Telemetry {
    let configure = |config: &mut TelemetryConfig| {
        config.sinks.push(captured.sink("main"));
        config.state_dir = Some(dir.to_owned());
    };
    telemetry(configure).0
}

#[test]
fn numbers_go_on_after_a_stop_and_a_crash_leaves_a_gap() {
    let (world, dir, captured) = (World::new(), tempfile::tempdir().unwrap(), Captured::default());
    let first = with_state(dir.path(), &captured);
    requests(&world, &first, 3);
    assert!(first.shut_down(DEADLINE));
    let second = with_state(dir.path(), &captured);
    assert_eq!(second.instance(), first.instance());
    requests(&world, &second, 3);
    second.flush(DEADLINE);
    eventually("its events are written", || count(&captured, "decision") == 6);
    // Not shut down: as after kill -9. The third one starts while the second is forgotten.
    let third = with_state(dir.path(), &captured);
    requests(&world, &third, 1);
    assert!(third.shut_down(DEADLINE));
    let verified = verify(&captured.bytes());
    assert_eq!(verified.count()["decision"], 7);
    let [gap] = verified.of_kind("gap")[..] else { panic!("{:?}", verified.count()) };
    assert_eq!((gap["gap"]["cause"].as_str(), &gap["gap"]["count"]), (Some("crash"), &Value::Null));
    assert!(gap["gap"]["first_time"].as_str() <= gap["gap"]["last_time"].as_str());
}

/// Whether the gap of a crash, found by the next start, covers this moment.
#[track_caller]
fn assert_gap_covers(dir: &Path, lost: Micros) {
    let captured = Captured::default();
    assert!(with_state(dir, &captured).shut_down(DEADLINE));
    let events = lines(&captured);
    let gap = events.iter().find(|event| event["gap"]["cause"] == "crash").unwrap();
    let begin: jiff::Timestamp = gap["gap"]["first_time"].as_str().unwrap().parse().unwrap();
    assert!(begin.as_microsecond().cast_unsigned() <= lost.0, "{gap}");
}

/// A batch has its numbers before a sink has it: what is lost in between lies in the window all the same.
#[test]
fn the_gap_of_a_crash_begins_before_what_no_sink_had_written() {
    let (world, dir, hanging) = (World::new(), tempfile::tempdir().unwrap(), Hanging::default());
    let (first, clock) = telemetry(|config| {
        config.sinks.push(custom("main", Box::new(hanging.clone())));
        config.state_dir = Some(dir.path().to_owned());
    });
    clock.advance(Duration::from_secs(5));
    requests(&world, &first, 1);
    let lost = clock.now();
    clock.advance(Duration::from_secs(3));
    requests(&world, &first, 1);
    first.flush(DEADLINE);
    // Not shut down: as after kill -9.
    assert_gap_covers(dir.path(), lost);
    hanging.let_go();
}

/// What a full sink missed is on record when the word of it is written, not when it is handed over: batches that were taken
/// before that are written first.
#[test]
fn the_gap_of_a_crash_begins_before_what_was_missed_and_never_told() {
    let (world, dir, sink) = (World::new(), tempfile::tempdir().unwrap(), Hanging::default());
    let (first, clock) = telemetry(|config| {
        config.sinks.push(custom("main", Box::new(sink.clone())));
        config.state_dir = Some(dir.path().to_owned());
        config.classes.allow = ClassPolicy::Drop;
        config.sink_queue = 10;
    });
    // Each batch has a checkpoint too: the second has no room, the third has.
    let batch = |events| {
        clock.advance(Duration::from_secs(5));
        requests(&world, &first, events);
        assert!(first.flush(DEADLINE));
        clock.now()
    };
    batch(6);
    let missed = batch(6);
    batch(1);
    let written = |events| eventually("it writes", || lines(&sink.captured).len() == events);
    sink.let_one_through();
    written(7);
    // There is room for the word now; and what stands before it in the queue is written.
    eventually("the word is handed over", || {
        first.flush(DEADLINE);
        metric(&first, "leastgate_audit_queue_depth{sink=\"main\"}") > 2.0
    });
    sink.let_one_through();
    written(9);
    // The position is written with the next batch.
    batch(1);
    assert_gap_covers(dir.path(), missed);
    sink.let_go();
}

#[test]
fn a_flood_of_one_source_becomes_a_summary() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, clock) = telemetry(|config| {
        config.sinks.push(captured.sink("main"));
        config.unauthenticated_per_source = 5;
    });
    let worker = telemetry.worker();
    for _ in 0..1000 {
        world.record(&worker, "GET", "/v1/orders", None).finish();
    }
    clock.advance(Duration::from_secs(1));
    telemetry.flush(DEADLINE);
    assert!(telemetry.shut_down(DEADLINE));
    let verified = verify(&captured.bytes());
    assert_eq!(verified.count()["decision"], 5);
    let [summary] = verified.of_kind("summary")[..] else { panic!() };
    assert_eq!(summary["summary"]["count"], 995);
    assert_eq!(summary["source"]["ip"], "192.0.2.7");
    let metrics = String::from_utf8(telemetry.render_metrics()).unwrap();
    assert!(metrics.contains("reason=\"credential_missing\"} 1000\n"), "metrics count them all");
}

fn file(path: &Path) -> SinkConfig {
    SinkConfig { name: "file".into(), kind: SinkKind::File(FileSinkConfig::new(path)), classes: None }
}

fn lines(captured: &Captured) -> Vec<Value> {
    captured.bytes().split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

pub(crate) fn count(captured: &Captured, kind: &str) -> usize {
    lines(captured).iter().filter(|event| event["kind"] == kind).count()
}

pub(crate) fn metric(telemetry: &Telemetry, series: &str) -> f64 {
    let text = String::from_utf8(telemetry.render_metrics()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}
