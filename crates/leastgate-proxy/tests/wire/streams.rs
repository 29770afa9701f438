//! Requests that last are decided again, and cut when they would be refused.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_policy::{Timestamp, TokenState};

use crate::harness::{Client, Connection, Harness, POLICY, harness, put_policy_in_force};

/// A response that goes on for longer than a request may before it is decided again, and then goes on.
fn stream(upstream: &mut Connection) {
    upstream.read_until("\r\n\r\n");
    upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    thread::sleep(Duration::from_millis(300));
    upstream.write("6\r\nsecond\r\n");
    upstream.wait_until_closed();
}

fn open_stream(harness: &Harness) -> Client {
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    client.read_to("second\r\n");
    client
}

#[test]
fn a_revoked_token_ends_its_streams() {
    let harness = harness(stream);
    let mut client = open_stream(&harness);
    harness.authority.set_state(&harness.digest, TokenState::Revoked);
    assert!(!client.rest().contains("0\r\n\r\n"), "it is broken off, not finished");
    let event = harness.events(1).remove(0);
    assert!(event.contains("token_revoked") && event.contains("\"scope_granted\""), "{event}");
}

#[test]
fn a_client_that_leaves_a_silent_stream_is_noticed_behind_a_byte_nobody_reads() {
    let harness = harness(stream);
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", "") + "G");
    client.read_to("second\r\n");
    assert_eq!(harness.in_flight(), 1);
    drop(client);
    let started = Instant::now();
    assert_eq!(harness.events(1).len(), 1);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(harness.in_flight(), 0);
}

#[test]
fn a_client_that_stays_keeps_its_silent_stream() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n\r\n");
        upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        // Two looks at the client.
        thread::sleep(Duration::from_millis(2500));
        upstream.write("0\r\n\r\n");
        upstream.wait_until_closed();
    });
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", "") + "G");
    assert!(client.reply().body.ends_with("0\r\n\r\n"));
}

#[test]
fn a_token_that_expires_ends_its_streams() {
    let harness = harness(stream);
    let mut client = open_stream(&harness);
    let mut entry = harness.entry.clone();
    entry.expires = Some(Timestamp(harness.telemetry.clock().timestamp().0 + 2));
    harness.authority.upsert(entry).unwrap();
    client.rest();
    let event = harness.events(1).remove(0);
    assert!(event.contains("token_expired"), "{event}");
}

#[test]
fn a_change_that_still_allows_a_stream_leaves_it_alone() {
    let harness = harness(stream);
    let mut client = open_stream(&harness);
    put_policy_in_force(&harness.authority, &harness.telemetry, &POLICY.replace("GET /v1/**", "GET /v1/a"));
    let mut other = open_stream(&harness);
    put_policy_in_force(&harness.authority, &harness.telemetry, &POLICY.replace("GET /v1/**", "GET /v2/**"));
    other.rest();
    client.rest();
    let events = harness.events(2);
    assert!(events.iter().all(|event| event.contains("no_matching_scope")), "both lasted until the second change");
}

#[test]
fn a_request_that_waits_for_its_response_is_answered_with_the_later_decision() {
    let harness = harness(Connection::wait_until_closed);
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    harness.upstream.wait_for("/v1/a");
    put_policy_in_force(&harness.authority, &harness.telemetry, &POLICY.replace("GET /v1/**", "GET /v2/**"));
    assert_eq!(client.reply().status, 403);
}
