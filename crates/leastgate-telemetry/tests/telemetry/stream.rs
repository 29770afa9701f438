//! The stream under several workers: numbers without a gap, batches that verify, whatever is tampered with shows.

use std::fs;
use std::path::Path;

use leastgate_telemetry::{FileSinkConfig, Fsync, SinkConfig, SinkKind, UsageDelta};

use crate::support::{Captured, DEADLINE, World, telemetry, verify};

fn file(path: &Path, max_bytes: Option<u64>) -> SinkConfig {
    let config = FileSinkConfig { max_bytes, fsync: Fsync::Batch, ..FileSinkConfig::new(path) };
    SinkConfig { name: "file".into(), kind: SinkKind::File(config), classes: None }
}

#[test]
fn segments_put_together_are_one_stream() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (telemetry, _) = telemetry(|config| config.sinks.push(file(&dir.path().join("audit.log"), Some(20_000))));
    let worker = telemetry.worker();
    for _ in 0..20 {
        for _ in 0..5 {
            world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
        }
        telemetry.flush(DEADLINE);
    }
    telemetry.reopen();
    assert!(telemetry.shut_down(DEADLINE));
    let mut segments: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The open one has no time in its name and comes last.
    segments.sort_by_key(|path| (path.extension().is_some_and(|extension| extension == "log"), path.clone()));
    assert!(segments.len() >= 4, "{segments:?}");
    let bytes: Vec<u8> = segments.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert!(segments.iter().all(|path| fs::metadata(path).unwrap().len() <= 20_000));
    assert_eq!(verify(&bytes).count()["decision"], 100);
}

#[test]
fn numbers_have_no_gap_under_several_workers() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| config.sinks.push(captured.sink("main")));
    telemetry.policy_loaded(&world.snapshot);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let worker = telemetry.worker();
                for number in 0..500 {
                    let token = if number % 3 == 0 { &world.refunder } else { &world.reader };
                    world.record(&worker, "GET", "/v1/orders", Some(token)).finish();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                telemetry.lifecycle(&leastgate_telemetry::LifecycleEvent::default());
            }
        });
    });
    assert!(telemetry.shut_down(DEADLINE));
    let verified = verify(&captured.bytes());
    assert_eq!(verified.count()["decision"], 2000);
    assert_eq!(verified.count()["lifecycle"], 50);
    assert!(!verified.count().contains_key("gap"));
    let counted = |deltas: &[UsageDelta], by_rule: bool| -> u64 {
        deltas.iter().filter(|delta| delta.rule.is_some() == by_rule).map(|delta| delta.count).sum()
    };
    let deltas = telemetry.usage().drain();
    assert_eq!((counted(&deltas, true), counted(&deltas, false)), (4 * 333, 4 * 167));
    assert!(deltas.iter().all(|delta| delta.last_source == Some("192.0.2.7".parse().unwrap())), "{deltas:?}");
}

#[test]
fn a_changed_byte_a_missing_line_and_a_missing_batch_show() {
    let (world, captured) = (World::new(), Captured::default());
    let (telemetry, _) = telemetry(|config| config.sinks.push(captured.sink("main")));
    let worker = telemetry.worker();
    for _ in 0..3 {
        world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
        telemetry.flush(DEADLINE);
    }
    assert!(telemetry.shut_down(DEADLINE));
    let text = String::from_utf8(captured.bytes()).unwrap();
    verify(text.as_bytes());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let changed = text.replacen("reader-bot", "writer-bot", 1);
    let without_line = [&lines[..2], &lines[3..]].concat().concat();
    let without_end = lines[..lines.len() - 1].concat();
    for tampered in [changed, without_line, without_end] {
        assert!(std::panic::catch_unwind(|| verify(tampered.as_bytes())).is_err());
    }
}
