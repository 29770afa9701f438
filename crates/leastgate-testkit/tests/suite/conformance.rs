//! What `cargo xtask conformance` last found is whole, has no failure, and stands in ARCHITECTURE.md.

use std::fmt::Write as _;

use leastgate_testkit::conformance::{Row, Verdict, read};

use crate::documents::{conditions, print};

/// The peers the table must have, by the beginnings of their names.
const PEERS: &[(&str, &[&str])] = &[
    ("upstream", &["nginx", "HAProxy", "Apache httpd", "Node", "Python http.server", "Hypercorn", "Go net/http"]),
    ("client", &["curl", "nghttp", "h2load", "h2", "websockets", "grpcio"]),
    ("listener", &["testssl.sh", "sslyze", "slowhttptest"]),
];

/// Fewest rows: a run that ends early is no run.
const ROWS: usize = 300;

#[test]
fn every_peer_is_in_the_table_and_nothing_failed() {
    let rows = read().unwrap().rows;
    for (kind, peers) in PEERS {
        for peer in *peers {
            let has_passed = |row: &&Row| row.kind == *kind && server(row) == *peer && row.verdict == Verdict::Pass;
            assert!(rows.iter().any(|row| has_passed(&row)), "{kind} {peer} is not in the table");
        }
    }
    let failed: Vec<&Row> = rows.iter().filter(|row| row.verdict == Verdict::Fail).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let unexplained = |row: &&Row| row.verdict == Verdict::NotApplicable && row.note == "-";
    assert!(!rows.iter().any(|row| unexplained(&row)), "what is not applicable says why");
    assert!(rows.len() >= ROWS, "{} rows", rows.len());
}

#[test]
fn the_architecture_prints_the_table() {
    let table = read().unwrap();
    let rows = table.rows;
    let of = |kind: &str| rows.iter().filter(|row| row.kind == kind).collect::<Vec<_>>();
    let text = upstreams(&of("upstream")) + &clients(&of("client")) + &listeners(&of("listener"));
    print("conformance", &(conditions(&table.conditions) + &text));
}

/// The peer without what was spoken to it.
fn server(row: &Row) -> &str {
    row.peer.split(", ").next().unwrap_or(&row.peer)
}

fn mark(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::Pass => "✓",
        Verdict::Fail => "✗",
        Verdict::NotApplicable => "–",
    }
}

/// What differs, in order of its first appearance.
fn distinct<'a, T: PartialEq>(rows: &[&'a Row], of: impl Fn(&'a Row) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for row in rows {
        let one = of(row);
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// Scenarios by servers; a cell has a mark for each protocol that the server was spoken to in.
fn upstreams(rows: &[&Row]) -> String {
    let servers = distinct(rows, server);
    let heads = servers.iter().map(|server| {
        let of_server: Vec<&Row> = rows.iter().copied().filter(|row| self::server(row) == *server).collect();
        let wires = distinct(&of_server, |row| row.peer.split_once(", ").map_or("h1", |(_, wire)| wire));
        format!("{server} {}<br>{}", of_server[0].version, wires.join(" "))
    });
    let mut text = format!("| upstream | {} | – where |\n", heads.collect::<Vec<_>>().join(" | "));
    writeln!(text, "|---|{}---|", ":-:|".repeat(servers.len())).unwrap();
    for scenario in distinct(rows, |row| row.scenario.as_str()) {
        let of_scenario: Vec<&Row> = rows.iter().copied().filter(|row| row.scenario == scenario).collect();
        let cells = servers.iter().map(|server| {
            let marks: Vec<_> =
                of_scenario.iter().filter(|row| self::server(row) == *server).map(|row| mark(row)).collect();
            marks.join(" ")
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        writeln!(text, "| {scenario} | {cells} | {} |", reasons(&of_scenario).join("; ")).unwrap();
    }
    text
}

/// Why a scenario was not tried, each reason once.
fn reasons(rows: &[&Row]) -> Vec<String> {
    let untried: Vec<&Row> = rows.iter().copied().filter(|row| row.verdict == Verdict::NotApplicable).collect();
    distinct(&untried, |row| row.note.clone())
}

/// What each client did; one that did the same over TLS is listed once.
fn clients(rows: &[&Row]) -> String {
    let mut text = "\n| client | version | ✓ | – where |\n|---|---|---|---|\n".to_owned();
    for client in distinct(rows, server) {
        let of_client: Vec<&Row> = rows.iter().copied().filter(|row| server(row) == client).collect();
        let mut done: Vec<(String, String)> = Vec::new();
        for peer in distinct(&of_client, |row| row.peer.as_str()) {
            let cells = clients_cells(&of_client, peer);
            match done.iter_mut().find(|(_, others)| *others == cells) {
                Some((peers, _)) => *peers = format!("{client}, in the clear and over TLS"),
                None => done.push((peer.to_owned(), cells)),
            }
        }
        for (peers, cells) in done {
            writeln!(text, "| {peers} | {} | {cells} |", of_client[0].version).unwrap();
        }
    }
    text
}

fn clients_cells(rows: &[&Row], peer: &str) -> String {
    let of = |verdict| rows.iter().filter(move |row| row.peer == peer && row.verdict == verdict);
    let passed: Vec<&str> = of(Verdict::Pass).map(|row| row.scenario.as_str()).collect();
    let untried: Vec<String> =
        of(Verdict::NotApplicable).map(|row| format!("{}: {}", row.scenario, row.note)).collect();
    format!("{} | {}", passed.join(" · "), untried.join("; "))
}

fn listeners(rows: &[&Row]) -> String {
    let mut text = "\n| tester | version | looked for | | found |\n|---|---|---|:-:|---|\n".to_owned();
    for row in rows {
        let found = if row.note == "-" { "" } else { &row.note };
        writeln!(text, "| {} | {} | {} | {} | {found} |", row.peer, row.version, row.scenario, mark(row)).unwrap();
    }
    text
}
