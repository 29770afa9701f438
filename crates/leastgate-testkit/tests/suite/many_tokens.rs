//! A store of many tokens: made in bulk, loaded, listed, changed and revoked by the thousand, with the real program. A million
//! where results are kept, a few in a run of all tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::results;
use leastgate_testkit::vitals::resident;
use serde_json::{Value, json};

use crate::pepper;
use crate::stored::Stored;

/// Owners, each with as many tokens as all others; every tenth owner's have the role that is revoked.
fn owners() -> usize {
    results::sized(10, 100)
}

/// Tokens of an owner.
fn each() -> usize {
    results::sized(100, 10_000)
}

/// Runs of what is timed.
fn runs() -> usize {
    results::sized(1, 21)
}

/// How long it may take until a metric tells of a million.
const COUNTED: Duration = Duration::from_secs(60);

/// One secret of each owner, by the role.
type Secrets = BTreeMap<&'static str, Vec<String>>;

/// What a line of the table says: what was done, what is aimed at, and what it took.
fn told(what: &str, aim: &str, measured: impl Into<String>) {
    let values = [("aim", aim.to_owned()), ("measured", measured.into())];
    results::record("tokens", what, &values);
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs()).map(|_| timed(&mut run).0).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let done = run();
    (begun.elapsed(), done)
}

#[test]
fn many_tokens_are_made_loaded_listed_and_revoked() {
    let mut stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let empty = resident(stored.gateway.id());
    let secrets = make(&stored);
    load(&mut stored, empty);
    lists(&stored, &root);
    changes(&stored, &root);
    revoke(&stored, &root, &secrets);
    reload(&mut stored, &secrets);
    stragglers(&mut stored, &root, &secrets);
}

/// Through the command, the admin API, the audit stream and the store on its disk.
fn make(stored: &Stored) -> Secrets {
    let mut secrets = Secrets::new();
    let count = each().to_string();
    let (took, ()) = timed(|| {
        for owner in 0..owners() {
            let role = if owner % 10 == 0 { "writer" } else { "reader" };
            let (name, team) = (format!("bot-{owner}"), format!("team-{owner}"));
            let create = ["token", "create", "-q", "--name", &name, "--owner", &team, "--ttl", "30d", "--role", role];
            let said = stored.cli(&[&create[..], &["--count", &count]].concat()).stdout;
            assert_eq!(said.lines().count(), each());
            let first = said.lines().next().and_then(|line| line.split_whitespace().last());
            secrets.entry(role).or_default().push(first.expect("name and secret").to_owned());
        }
    });
    let rate = (owners() * each()) as f64 / took.as_secs_f64();
    told(
        "tokens made in bulk, with the command, on record and on disk",
        "20,000 a second",
        format!("{rate:.0} a second"),
    );
    secrets
}

fn load(stored: &mut Stored, empty: u64) {
    assert_eq!(stored.gateway.stop().code, Some(0));
    let (took, ()) = timed(|| stored.gateway.restart());
    told("start, until all listeners are bound and every token is known", "2 s", milliseconds(took));
    let bytes = resident(stored.gateway.id()).saturating_sub(empty) / (owners() * each()) as u64;
    told("resident memory of a token", "120 bytes", format!("{bytes} bytes"));
    // Counted some time after the start, and not by whoever scrapes.
    until_true("the count of tokens", COUNTED, || {
        stored.gateway.metrics().sum("leastgate_tokens", &[]) == (owners() * each()) as f64
    });
}

fn lists(stored: &Stored, root: &str) {
    let middle = stored.api("GET", "/v1/tokens?limit=200&owner=team-5", Some(root), None).json();
    let cursor = middle["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let asked = [
        ("a page of the list, by name", "50 ms", String::new()),
        ("a page of the list, from within", "50 ms", format!("&owner=team-5{cursor}")),
        ("a page of the list, by end", "50 ms", "&sort=expires".to_owned()),
        ("a page of the list, by last use", "50 ms", "&sort=last_used".to_owned()),
        ("tokens of an owner", "200 ms", "&owner=team-7".to_owned()),
        ("tokens unused since a day", "200 ms", "&unused_since=2020-01-01T00:00:00Z".to_owned()),
        ("tokens unused, of an owner", "200 ms", "&owner=team-7&unused_since=2035-01-01T00:00:00Z".to_owned()),
        ("disabled tokens, of which there are none", "50 ms", "&state=disabled".to_owned()),
        ("tokens past their end, of which there are none", "50 ms", "&state=expired".to_owned()),
    ];
    for (what, aim, query) in asked {
        let list = || {
            let reply = stored.api("GET", &format!("/v1/tokens?limit=200{query}"), Some(root), None);
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        };
        told(what, aim, milliseconds(median(list)));
    }
}

/// Each of them is on disk when it is answered, so an fsync of the same disk stands beside them.
fn changes(stored: &Stored, root: &str) {
    let fsync = milliseconds(fsync(stored.gateway.path()));
    let aim = format!("an fsync and 2 ms; an fsync takes {fsync} here");
    let mut number = 0..;
    let create = median(|| {
        let name = format!("single-{}", number.next().unwrap_or_default());
        let token = json!({ "name": name, "owner": "team-1", "roles": ["reader"], "ttl": "1h" });
        let reply = stored.api("POST", "/v1/tokens", Some(root), Some(token));
        assert_eq!(reply.status, 201, "{}", reply.text());
    });
    told("a token is made, durably", &aim, milliseconds(create));
    let mut number = 0..;
    let revoke = median(|| {
        let path = format!("/v1/tokens/single-{}/revoke", number.next().unwrap_or_default());
        let answer = stored.api("POST", &path, Some(root), Some(json!({ "reason": "a test" }))).json();
        assert_eq!(answer["durable"], json!(true), "{answer}");
    });
    told("a token is revoked, durably", &aim, milliseconds(revoke));
}

fn fsync(folder: &Path) -> Duration {
    let mut file = File::create(folder.join("fsync")).expect("a file");
    median(|| {
        file.write_all(&[7; 4096]).expect("the file can be written");
        file.sync_all().expect("the file can be synced");
    })
}

/// A tenth of all, in one call, while somebody uses the data plane.
fn revoke(stored: &Stored, root: &str, secrets: &Secrets) {
    let living = &secrets["reader"][0];
    let before = latencies(stored, living, || thread::sleep(results::sized(Duration::ZERO, Duration::from_secs(3))));
    let filter = json!({ "role": "writer", "reason": "a test" });
    let mut revocation = None;
    let meanwhile = latencies(stored, living, || {
        let mut client = RawClient::connect(stored.gateway.addresses().admin);
        revocation = Some(timed(|| call(&mut client, stored, root, &filter)));
    });
    let (took, answer) = revocation.expect("the call was made");
    let expected = owners() / 10 * each();
    assert_eq!((&answer["revoked"], &answer["durable"]), (&json!(expected), &json!(true)), "{answer}");
    refused(stored, secrets);
    told("a tenth of all tokens is revoked in one call, durably", "3 s for 100,000", milliseconds(took));
    let shown = |[median, most]: [Duration; 2]| format!("p50 {}, p99 {}", milliseconds(median), milliseconds(most));
    told("requests of the data plane before it", "", shown(before));
    told("requests of the data plane during it", "", shown(meanwhile));
    let page = median(|| {
        let list = stored.api("GET", "/v1/tokens?limit=200&state=revoked", Some(root), None).json();
        // Those revoked one by one are among them.
        assert_eq!(list["items"].as_array().map(Vec::len), Some((expected + runs()).min(200)));
    });
    told("a page of those just revoked", "50 ms", milliseconds(page));
}

fn call(client: &mut RawClient, stored: &Stored, root: &str, body: &Value) -> Value {
    let (admin, body) = (stored.gateway.addresses().admin, body.to_string());
    client.send(format!(
        "POST /v1/revocations HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.read_for("POST", Duration::from_secs(120)).expect("an answer").json()
}

/// The median and the 99th percentile of requests on one connection while `work` is done.
fn latencies(stored: &Stored, secret: &str, work: impl FnOnce()) -> [Duration; 2] {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut client = stored.gateway.client();
            let mut times = Vec::new();
            while times.is_empty() || !is_over.load(Ordering::SeqCst) {
                times.push(timed(|| assert_eq!(ask(&mut client, secret), 200)).0);
            }
            times.sort_unstable();
            [times[times.len() / 2], times[times.len() * 99 / 100]]
        });
        work();
        is_over.store(true, Ordering::SeqCst);
        asking.join().expect("every request is answered")
    })
}

fn ask(client: &mut RawClient, secret: &str) -> u16 {
    client.send(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"));
    client.read_for("GET", PATIENCE).expect("an answer").status
}

fn refused(stored: &Stored, secrets: &Secrets) {
    for (role, status) in [("writer", 401), ("reader", 200)] {
        for secret in &secrets[role] {
            assert_eq!(ask(&mut stored.gateway.client(), secret), status, "{role}");
        }
    }
}

/// Whatever the store still has to do behind the revocation, a gateway that is killed amid it revives nobody.
fn reload(stored: &mut Stored, secrets: &Secrets) {
    stored.gateway.kill();
    let (took, ()) = timed(|| stored.gateway.restart());
    refused(stored, secrets);
    told("start after being killed behind it", "2 s", milliseconds(took));
}

/// All are of the former pepper; each is looked for under both until it was used.
fn stragglers(stored: &mut Stored, root: &str, secrets: &Secrets) {
    assert_eq!(stored.gateway.stop().code, Some(0));
    pepper::replace(&stored.gateway);
    let (took, ()) = timed(|| stored.gateway.restart());
    told("start under another pepper, all tokens of the former", "2 s", milliseconds(took));
    let page = || {
        let reply = stored.api("GET", "/v1/tokens?limit=200&pepper=previous", Some(root), None);
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    told("a page of those not used under it yet", "200 ms", milliseconds(median(page)));
    refused(stored, secrets);
}
