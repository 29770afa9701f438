//! `kill -9` of the real gateway at random points of random changes by several administrators' clients at once.
//!
//! After each restart on the same state: whatever was acknowledged as durable holds, by the API and on the data plane. A call
//! without an answer was made whole or not at all, and the record says which: its event is in the audit file, or lies in the
//! window of a gap whose cause is the crash. What the store holds and the file says nothing of would be neither. What
//! takes from a token and ends those that stand in for it is one commit like any other.
//!
//! A kill ends the process and leaves the kernel's page cache: this shows that an acknowledgement follows the write and that
//! writes come whole, and not that the disk has them. That a commit is synced before it is answered is counted elsewhere.
//!
//! `LEASTGATE_KILLS=2000` looks longer, `LEASTGATE_KILL_SEED=…` draws the same calls again; threads still race.

mod lane;
mod model;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::raw::RawClient;
use serde_json::Value;

use self::lane::{Lane, Sent, Shot, now};
use self::model::{Operation, Record, Tokens, after, unknown};
use crate::mutations::Random;
use crate::stored::Stored;

/// Kills of a normal run.
const KILLS: usize = 200;
/// Gateways that are killed side by side, each with a state of its own.
const GATEWAYS: usize = 4;
/// Clients of one gateway.
const LANES: usize = 3;
/// Kills after which a client begins with fresh tokens: the former ones are looked at once more at the end.
const EPOCH: usize = 5;
/// Calls of one round, at most.
const CALLS: usize = 24;
/// The longest wait between a call and the kill.
const LONGEST: usize = 20_000;

#[test]
fn whatever_was_acknowledged_holds_after_a_kill_at_any_point_and_the_record_says_what_became_of_the_rest() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = variable("LEASTGATE_KILL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) << 16 | u64::from(std::process::id())
    });
    let kills = variable("LEASTGATE_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    let _ = writeln!(std::io::stderr(), "LEASTGATE_KILL_SEED={seed}");
    let done: Vec<Seen> = thread::scope(|scope| {
        let threads: Vec<_> = (0..GATEWAYS)
            .map(|number| scope.spawn(move || Killed::start(seed, number).run(kills.div_ceil(GATEWAYS))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Seen) -> usize| done.iter().map(of).sum::<usize>();
    let (open, made) = (sum(|seen| seen.open), sum(|seen| seen.made));
    let _ = writeln!(
        std::io::stderr(),
        "{kills} kills: {} acknowledged, {open} open, {made} of those made; {} events in a gap",
        sum(|seen| seen.acknowledged),
        sum(|seen| seen.in_gap),
    );
    // Or the kills were all too early or too late to show anything.
    assert!(sum(|seen| seen.acknowledged) > kills && open > kills / 4, "seed {seed}");
    assert!(kills < KILLS || made > 0 && made < open, "seed {seed}: {made} of {open}");
}

/// What the kills have hit.
#[derive(Default)]
struct Seen {
    acknowledged: usize,
    open: usize,
    made: usize,
    in_gap: usize,
}

/// A gateway and its clients.
struct Killed {
    stored: Stored,
    root: String,
    pepper_id: String,
    random: Random,
    /// Tells this gateway and this seed, in failures.
    story: String,
    lanes: Vec<Lane>,
    /// Tokens that are changed no more.
    past: Tokens,
    seen: Seen,
    /// Bytes of the audit file that were read before.
    heard: usize,
}

impl Killed {
    fn start(seed: u64, number: usize) -> Self {
        let stored = Stored::start();
        let root = stored.administrator("root", "admin");
        stored.create("first", &["--role", "reader"]);
        let exported = stored.api("GET", "/v1/exports", Some(&root), None).json();
        let of_number = seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let past = list(&stored, &root, "");
        Self {
            root,
            pepper_id: exported["items"][0]["pepper_id"].as_str().unwrap().to_owned(),
            random: Random(of_number.max(1)),
            story: format!("LEASTGATE_KILL_SEED={seed}, gateway {number}"),
            lanes: (0..LANES).map(Lane::new).collect(),
            past,
            seen: Seen::default(),
            heard: 0,
            stored,
        }
    }

    fn run(mut self, kills: usize) -> Seen {
        for round in 0..kills {
            if round % EPOCH == 0 {
                self.begin_epoch(round);
            }
            self.kill(round);
            let made: Vec<bool> = (0..LANES).map(|at| self.check(at, round)).collect();
            let heard = self.hear();
            for (at, made) in made.into_iter().enumerate() {
                self.check_record(at, round, made, &heard);
            }
        }
        self.begin_epoch(kills);
        let found = list(&self.stored, &self.root, "");
        assert_same(&self.past, &found, &format!("{}, at the end", self.story));
        self.seen
    }

    fn begin_epoch(&mut self, round: usize) {
        for lane in &mut self.lanes {
            self.past.append(&mut lane.tokens);
            lane.secrets.clear();
            lane.owner = format!("team-{}-{round}", lane.number);
        }
    }

    /// Has every client change what it likes, kills the gateway amid that, and starts it again.
    fn kill(&mut self, round: usize) {
        // As many short waits as long ones: most of a call is over soon.
        let delay = self.random.below(LONGEST) >> self.random.below(12);
        let shot = Shot {
            gateway: &self.stored.gateway,
            root: &self.root,
            pepper_id: &self.pepper_id,
            calls: AtomicUsize::new(0),
            at: 1 + self.random.below(CALLS),
            delay: Duration::from_micros(delay as u64),
        };
        let seeds: Vec<u64> = (0..LANES).map(|_| 1 + self.random.below(usize::MAX) as u64).collect();
        thread::scope(|scope| {
            for (lane, seed) in self.lanes.iter_mut().zip(seeds) {
                let shot = &shot;
                scope.spawn(move || lane.drive(shot, &mut Random(seed), round));
            }
        });
        self.stored.gateway.kill();
        self.stored.gateway.restart();
        if self.random.below(4) == 0 {
            // Once more, before the start is on record: what the first crash took must still be told.
            self.stored.gateway.kill();
            self.stored.gateway.restart();
        }
    }

    /// What the audit file says since the last time, up to the gap that the crash left.
    fn hear(&mut self) -> Heard {
        let file = self.stored.gateway.path().join("audit.ndjson");
        until("a gap for the crash", PATIENCE, || {
            let bytes = fs::read(&file).unwrap();
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let fresh = bytes[self.heard..end].split(|byte| *byte == b'\n');
            // A line that was cut by a kill is none; the file's own tests look after that.
            let heard = Heard::of(&fresh.filter_map(|line| serde_json::from_slice(line).ok()).collect::<Vec<_>>())?;
            self.heard = end;
            Some(heard)
        })
    }

    fn story(&self, at: usize, round: usize) -> String {
        let sent = |sent: &Sent| {
            let answer = sent.acknowledged.as_deref().unwrap_or("no answer");
            format!("\n  {} {answer} {} {:?}", sent.sent, sent.reason, sent.operation)
        };
        format!(
            "{}, kill {round}, client {at}:{}",
            self.story,
            self.lanes[at].sent.iter().map(sent).collect::<String>()
        )
    }

    /// Holds the store and the data plane to what a client knows; whether the call that is open was made.
    fn check(&mut self, at: usize, round: usize) -> bool {
        let found = list(&self.stored, &self.root, &format!("&owner={}", self.lanes[at].owner));
        let story = self.story(at, round);
        let admins = admins(&self.stored, &self.root);
        let lane = &mut self.lanes[at];
        let open = lane.sent.last().filter(|sent| sent.acknowledged.is_none());
        let steps = open.map_or(&[][..], |open| &open.steps);
        let drawn = unknown(&lane.tokens, &found);
        let possible = open.map_or(vec![vec![]], |_| Operation::possible(steps));
        let fits = |made: &Vec<&_>| after(&lane.tokens, made, &drawn).as_ref() == Some(&found);
        let made = possible.into_iter().find(fits);
        if made.is_none() {
            assert_same(&lane.tokens, &found, &format!("neither as it was nor as it was to be: {story}"));
        }
        let has_changed = made.is_some_and(|made| !made.is_empty());
        let made = open.is_some_and(|open| has_changed || is_made(&open.operation, &admins));
        if made {
            lane.settle_admin();
        }
        for (name, is_revoked) in &lane.admins {
            assert_eq!(admins.get(name), Some(is_revoked), "{name}: {story}");
        }
        lane.tokens = found;
        self.ask_all(at, &story);
        made
    }

    /// Holds the record to what became of each call.
    fn check_record(&mut self, at: usize, round: usize, made: bool, heard: &Heard) {
        let story = self.story(at, round);
        for sent in &self.lanes[at].sent {
            let is_open = sent.acknowledged.is_none();
            self.seen.open += usize::from(is_open);
            self.seen.made += usize::from(is_open && made);
            self.seen.acknowledged += usize::from(!is_open);
            self.seen.in_gap += usize::from(heard.tell(sent, !is_open || made, &story));
        }
    }

    /// The data plane says the same of every token whose secret is known and that was changed or made in this round.
    fn ask_all(&self, at: usize, story: &str) {
        let lane = &self.lanes[at];
        let mut client = self.stored.gateway.client();
        let touched = lane.sent.iter().flat_map(|sent| &sent.steps).flat_map(|step| step.changed.keys());
        let of_round = lane.sent.iter().map(|sent| sent.reason.as_str()).collect::<Vec<_>>();
        let made = lane.tokens.iter().filter(|(_, record)| {
            record.note.as_deref().is_some_and(|note| of_round.contains(&note)) || record.version == 1
        });
        for accessor in touched.chain(made.map(|(accessor, _)| accessor)) {
            let Some(secret) = lane.secrets.get(accessor) else { continue };
            client.send(format!(
                "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"
            ));
            let reply = client.read().unwrap();
            let record = &lane.tokens[accessor];
            let wanted = if matches!(record.state, "active" | "rotating") { 200 } else { 401 };
            assert_eq!(reply.status, wanted, "{accessor} {record:?}: {story}");
            if reply.closes {
                client = self.stored.gateway.client();
            }
        }
    }
}

/// What the audit file says of one life of the gateway, and of its end.
struct Heard {
    /// Admin events by reason, and by the name of an administrator that was made.
    told: BTreeMap<String, Value>,
    /// What each crash may have taken: from the last event that was kept to the next start, as texts.
    windows: Vec<(String, String)>,
}

impl Heard {
    fn of(events: &[Value]) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let gaps = events.iter().filter(|event| event["gap"]["cause"] == "crash").map(|event| &event["gap"]);
        let windows: Vec<_> = gaps.map(|gap| (text(&gap["first_time"]), text(&gap["last_time"]))).collect();
        let changes = events.iter().filter(|event| event["kind"] == "admin" && event["change"]["result"] == "ok");
        let key = |event: &Value| {
            let change = &event["change"];
            let key =
                if change["operation"] == "admin.create" { &change["details"][0]["value"] } else { &change["reason"] };
            key.as_str().map(str::to_owned)
        };
        (!windows.is_empty()).then_some(())?;
        Some(Self { told: changes.filter_map(|event| Some((key(event)?, event.clone()))).collect(), windows })
    }

    /// Holds the record to what became of a call; `true`: it is one of those the gap stands for.
    fn tell(&self, sent: &Sent, is_made: bool, story: &str) -> bool {
        let key = match &sent.operation {
            Operation::CreateAdmin { name } => name,
            _ => &sent.reason,
        };
        if let Some(event) = self.told.get(key) {
            assert!(is_made, "on record and not made: {event}: {story}");
            return false;
        }
        let answered = sent.acknowledged.clone().unwrap_or_else(now);
        let is_covered = self.windows.iter().any(|(first, last)| *first <= answered && sent.sent <= *last);
        assert!(
            is_covered || !is_made,
            "{} is neither on record nor in a gap {:?}: {story}",
            sent.reason,
            self.windows
        );
        is_made
    }
}

/// Whether an open call about an administrator was made.
fn is_made(operation: &Operation, admins: &BTreeMap<String, bool>) -> bool {
    match operation {
        Operation::CreateAdmin { name } => admins.contains_key(name),
        Operation::RevokeAdmin { name } => admins[name],
        _ => false,
    }
}

/// Tokens as the API lists them, page by page.
fn list(stored: &Stored, root: &str, filter: &str) -> Tokens {
    let admin = stored.gateway.addresses().admin;
    let mut client = RawClient::connect(admin);
    let mut tokens = Tokens::new();
    let mut cursor = String::new();
    loop {
        client.send(format!(
            "GET /v1/tokens?limit=200{filter}{cursor} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\n\r\n"
        ));
        let page = client.read().unwrap().json();
        for item in page["items"].as_array().unwrap() {
            tokens.insert(item["accessor"].as_str().unwrap().to_owned(), Record::read(item));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return tokens,
        }
    }
}

/// Administrators by name, and whether they are revoked.
fn admins(stored: &Stored, root: &str) -> BTreeMap<String, bool> {
    let list = stored.api("GET", "/v1/admins", Some(root), None).json();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| (item["name"].as_str().unwrap().to_owned(), !item["revoked"].is_null())).collect()
}

fn assert_same(model: &Tokens, found: &Tokens, story: &str) {
    let missing: Vec<_> = model.iter().filter(|(accessor, record)| found.get(*accessor) != Some(record)).collect();
    let more: Vec<_> = found.iter().filter(|(accessor, record)| model.get(*accessor) != Some(record)).collect();
    assert!(missing.is_empty() && more.is_empty(), "{story}\nknown {missing:#?}\nin the store {more:#?}");
}
