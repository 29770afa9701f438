//! One of the clients that change tokens at the same time: what it sends, and what it was told. Each has tokens of its own,
//! so that it knows in which order they changed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leastgate_testkit::clock;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::raw::{RawClient, Reply};
use leastgate_testkit::token::Token;
use rustix::process::Signal;

use super::model::{Drawn, GRANTED, Operation, Record, Step, Tokens, after};
use crate::mutations::Random;

/// A client and what it knows.
pub(crate) struct Lane {
    pub(crate) number: usize,
    pub(crate) owner: String,
    pub(crate) tokens: Tokens,
    pub(crate) secrets: BTreeMap<String, String>,
    /// Administrators by name, and whether they are revoked.
    pub(crate) admins: BTreeMap<String, bool>,
    /// What was sent since the last start.
    pub(crate) sent: Vec<Sent>,
}

/// A call, and what is known of it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) operation: Operation,
    pub(crate) reason: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) sent: String,
    /// When an answer said that the change is durable; there was none.
    pub(crate) acknowledged: Option<String>,
}

/// When to kill: so long after this call was sent, counted over all clients.
pub(crate) struct Shot<'a> {
    pub(crate) gateway: &'a TestGateway,
    pub(crate) root: &'a str,
    pub(crate) pepper_id: &'a str,
    pub(crate) calls: AtomicUsize,
    pub(crate) at: usize,
    pub(crate) delay: Duration,
}

impl Lane {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            owner: String::new(),
            tokens: Tokens::new(),
            secrets: BTreeMap::new(),
            admins: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// Sends one call after the other until there is no answer.
    pub(crate) fn drive(&mut self, shot: &Shot<'_>, random: &mut Random, round: usize) {
        self.sent.clear();
        let admin = shot.gateway.addresses().admin;
        let Ok(mut client) = RawClient::try_connect_from(admin, Ipv4Addr::LOCALHOST) else { return };
        for number in 0.. {
            let operation = self.choose(random, &format!("k{round}-{}-{number}", self.number), shot.pepper_id);
            let reason = format!("kill-{round}-{}-{number}", self.number);
            let bytes = request(&operation, &self.owner, &reason, admin, shot.root);
            let steps = operation.steps(&self.tokens, &self.owner, &reason);
            self.sent.push(Sent { operation, reason, steps, sent: now(), acknowledged: None });
            if client.try_send(bytes).is_err() {
                return;
            }
            if shot.calls.fetch_add(1, Ordering::SeqCst) + 1 == shot.at {
                kill_after(shot);
            }
            let Ok(reply) = client.read() else { return };
            if !self.hear(&reply) {
                return;
            }
        }
    }

    /// Takes an answer in; `false`: it leaves open what became of the call.
    fn hear(&mut self, reply: &Reply) -> bool {
        let call = self.sent.last_mut().unwrap();
        if matches!(reply.status, 408 | 503) {
            return false;
        }
        assert!(matches!(reply.status, 200 | 201), "{call:#?}\n{}", reply.text());
        if reply.json()["durable"] == false {
            return false;
        }
        call.acknowledged = Some(now());
        let (steps, drawn) = (call.steps.iter().collect::<Vec<_>>(), call.operation.drawn(reply));
        self.tokens = after(&self.tokens, &steps, &drawn).unwrap_or_else(|| panic!("{call:#?}\n{drawn:?}"));
        self.learn(drawn);
        self.settle_admin();
        true
    }

    fn learn(&mut self, drawn: Vec<Drawn>) {
        let known = drawn.into_iter().filter_map(|token| token.secret.map(|secret| (token.accessor, secret)));
        self.secrets.extend(known);
    }

    /// The last call has been made.
    pub(crate) fn settle_admin(&mut self) {
        match &self.sent.last().unwrap().operation {
            Operation::CreateAdmin { name } => drop(self.admins.insert(name.clone(), false)),
            Operation::RevokeAdmin { name } => drop(self.admins.insert(name.clone(), true)),
            _ => {}
        }
    }

    fn choose(&self, random: &mut Random, name: &str, pepper_id: &str) -> Operation {
        loop {
            if let Some(operation) = self.draw(random, name, pepper_id) {
                return operation;
            }
        }
    }

    /// A call at random, if what there is permits it.
    fn draw(&self, random: &mut Random, name: &str, pepper_id: &str) -> Option<Operation> {
        let role = ["reader", "writer", "wide"][random.below(3)];
        let (kind, pick) = (random.below(100), random.below(usize::MAX));
        let one = |fits: &dyn Fn(&Record) -> bool| pick_one(&self.tokens, pick, fits);
        let own = |record: &Record| record.state == "active" && record.parent.is_none();
        let children = |of: &str| self.tokens.values().filter(|record| record.parent.as_deref() == Some(of)).count();
        let name = name.to_owned();
        Some(match kind {
            0..14 => Operation::Create { name, role },
            14..19 => Operation::Bulk { name, count: 2 + pick % 6, role },
            19..24 => Operation::Import { tokens: imported(&name, 1 + pick % 3), pepper_id: pepper_id.to_owned() },
            24..36 => Operation::Rotate { old: one(&own)?, now: pick.is_multiple_of(2) },
            36..46 => {
                let token = one(&own)?;
                Operation::Patch { version: self.tokens[&token].version, token }
            }
            46..56 => Operation::Grant { token: one(&|record| own(record) && record.scopes.is_empty())? },
            56..64 => Operation::Restrict { token: one(&|record| own(record) && record.scopes.contains_key(GRANTED))? },
            64..70 => Operation::Disable { token: one(&own)? },
            70..77 => Operation::Enable { token: one(&|record| record.state == "disabled")? },
            77..85 => Operation::Revoke { token: one(&|record| record.state != "revoked")? },
            85..87 => Operation::RevokeAll { role },
            87..94 => Operation::Child { parent: one(&own).filter(|parent| children(parent) < 3)? },
            94..97 => Operation::CreateAdmin { name },
            _ => {
                let living: Vec<_> = self.admins.iter().filter(|(_, revoked)| !**revoked).collect();
                Operation::RevokeAdmin { name: living.get(pick % living.len().max(1))?.0.clone() }
            }
        })
    }
}

fn pick_one(tokens: &Tokens, pick: usize, fits: &dyn Fn(&Record) -> bool) -> Option<String> {
    let fitting: Vec<&String> =
        tokens.iter().filter(|(_, record)| fits(record)).map(|(accessor, _)| accessor).collect();
    fitting.get(pick % fitting.len().max(1)).map(ToString::to_string)
}

/// Tokens that another gateway has made. An accessor has an upper-case letter, or it would read as a name.
fn imported(name: &str, count: usize) -> Vec<Token> {
    let drawn = std::iter::from_fn(|| Some(Token::new("", &[])));
    let usable = drawn.filter(|token| token.accessor.bytes().any(|byte| byte.is_ascii_uppercase())).take(count);
    let mut tokens: Vec<Token> = usable.collect();
    for (at, token) in tokens.iter_mut().enumerate() {
        token.name = format!("{name}-{at}");
    }
    tokens
}

fn request(operation: &Operation, owner: &str, reason: &str, admin: SocketAddr, root: &str) -> String {
    let (method, path, tag, body) = operation.request(owner, reason);
    let condition = tag.map(|tag| format!("If-Match: {tag}\r\n")).unwrap_or_default();
    let body = body.to_string();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\n{condition}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Spins: a sleep would end when the kernel likes.
fn kill_after(shot: &Shot<'_>) {
    let sent = Instant::now();
    while sent.elapsed() < shot.delay {
        std::hint::spin_loop();
    }
    shot.gateway.signal(Signal::KILL);
}

/// As events write it, so that both compare as texts.
pub(crate) fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("{}.{:06}Z", clock::rfc3339(now.as_secs()).trim_end_matches('Z'), now.subsec_micros())
}
