//! What was refused before any work was done is on record too, and no flood of it fills the record.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use leastgate_store::{SqliteOptions, SqliteStore};
use serde_json::Value;

use crate::fixture::{Setup, key, read, start};

#[test]
fn a_change_whose_body_never_comes_is_on_record() {
    let plane = start();
    let begun = |target: &str| {
        let mut stream = TcpStream::connect(plane.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
            plane.admin, plane.root
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let calls = [("token.create", "/v1/tokens"), ("token.revoke", "/v1/tokens/bot/revoke")];
    let streams = calls.map(|(_, target)| begun(target));
    for (stream, (operation, _)) in streams.into_iter().zip(calls) {
        let late = read(stream);
        late.refused(408, "request-timeout");
        assert!(late.body.contains("nothing was changed"), "{late:?}");
        let events = plane.events(operation);
        let told: Vec<(&Value, &Value)> =
            events.iter().map(|event| (&event["change"]["result"], &event["actor"]["subject"])).collect();
        assert_eq!(told, [(&Value::from("request-timeout"), &Value::from("root"))]);
    }
}

#[test]
fn a_flood_while_nobody_can_be_asked_who_calls_leaves_no_flood_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, "test", &key(), SqliteOptions::default()).unwrap();
    let plane = Setup { store: std::sync::Arc::new(store), ..Setup::default() }.start();
    // As a store looks that can't be read.
    rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE admins").unwrap();
    for _ in 0..100 {
        plane.get("lga_test_0aZ9000001_nobody", "/v1/status").refused(503, "store-unavailable");
    }
    let told = plane.events("status").len();
    // Twenty at once, and one a second after that.
    assert!((20..60).contains(&told), "{told}");
}
