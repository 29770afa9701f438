//! What the store must hold, kept by a client that knows nothing of the store: records in a map, and each operation as the
//! steps in which it may be made. A step holds whole or not at all.

use std::collections::BTreeMap;

use leastgate_testkit::raw::Reply;
use leastgate_testkit::token::Token;
use serde_json::{Value, json};

/// Stands for an accessor that the gateway draws.
pub(crate) const DRAWN: &str = "?";

/// A token as the API should show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) state: &'static str,
    pub(crate) roles: Vec<String>,
    /// Each scope by name with the reason it was given for.
    pub(crate) scopes: BTreeMap<String, String>,
    pub(crate) note: Option<String>,
    pub(crate) successor: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) version: u64,
}

impl Record {
    fn new(name: &str, owner: &str, role: &str, note: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            owner: owner.to_owned(),
            state: "active",
            roles: vec![role.to_owned()],
            scopes: BTreeMap::new(),
            note: note.map(str::to_owned),
            successor: None,
            parent: None,
            version: 1,
        }
    }

    /// From an answer of the API.
    pub(crate) fn read(view: &Value) -> Self {
        let text = |key: &str| view[key].as_str().map(str::to_owned);
        let grants = view["grants"].as_array().into_iter().flatten();
        let states = ["active", "rotating", "disabled", "revoked", "expired"];
        Self {
            name: text("name").unwrap(),
            owner: text("owner").unwrap(),
            state: states.into_iter().find(|state| view["state"] == **state).unwrap(),
            roles: view["roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap().to_owned()).collect(),
            scopes: grants
                .map(|grant| {
                    (grant["scope"].as_str().unwrap().to_owned(), grant["reason"].as_str().unwrap_or("").to_owned())
                })
                .collect(),
            note: text("note"),
            successor: text("successor"),
            parent: text("parent"),
            version: view["version"].as_u64().unwrap(),
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut record = Self { version: self.version + 1, ..self.clone() };
        change(&mut record);
        record
    }
}

/// Tokens by accessor.
pub(crate) type Tokens = BTreeMap<String, Record>;

/// One commit: records that are replaced, and records that are new, whose accessor may not be known yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) changed: Tokens,
    pub(crate) new: Vec<(String, Record)>,
}

/// A call of the API, as it is sent.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create { name: String, role: &'static str },
    Bulk { name: String, count: usize, role: &'static str },
    Import { tokens: Vec<Token>, pepper_id: String },
    Rotate { old: String, now: bool },
    Patch { token: String, version: u64 },
    Grant { token: String },
    Restrict { token: String },
    Disable { token: String },
    Enable { token: String },
    Revoke { token: String },
    RevokeAll { role: &'static str },
    Child { parent: String },
    CreateAdmin { name: String },
    RevokeAdmin { name: String },
}

pub(crate) const GRANTED: &str = "orders:refund";

impl Operation {
    /// Method, path, the tag of what it is for, and the body. `reason` tells its event from all others.
    pub(crate) fn request(&self, owner: &str, reason: &str) -> (&'static str, String, Option<String>, Value) {
        let post = |path: String, body: Value| ("POST", path, None, body);
        let on = |token: &str, what: &str| format!("/v1/tokens/{token}/{what}");
        let told = json!({ "reason": reason });
        let token = |name: &str, role: &str| json!({ "name": name, "owner": owner, "roles": [role], "ttl": "1h", "note": reason });
        match self {
            Self::Create { name, role } => post("/v1/tokens".into(), token(name, role)),
            Self::Bulk { name, count, role } => {
                post("/v1/tokens/bulk".into(), json!({ "token": token(name, role), "count": count }))
            }
            Self::Import { tokens, pepper_id } => {
                let tokens: Vec<Value> = tokens.iter().map(|token| exported(token, owner, pepper_id)).collect();
                post("/v1/tokens/import".into(), json!({ "tokens": tokens, "reason": reason }))
            }
            Self::Rotate { old, now: true } => post(on(old, "rotate"), json!({ "now": true, "reason": reason })),
            Self::Rotate { old, now: false } => post(on(old, "rotate"), json!({ "grace": "30m", "reason": reason })),
            Self::Patch { token, version } => {
                let body = json!({ "note": reason, "reason": reason });
                ("PATCH", format!("/v1/tokens/{token}"), Some(format!("\"{token}.{version}\"")), body)
            }
            Self::Grant { token } => {
                post(on(token, "grants"), json!({ "scope": GRANTED, "ttl": "30m", "reason": reason }))
            }
            Self::Restrict { token } => {
                post(on(token, "restrict"), json!({ "remove_scopes": [GRANTED], "reason": reason }))
            }
            Self::Disable { token } => post(on(token, "disable"), told),
            Self::Enable { token } => post(on(token, "enable"), told),
            Self::Revoke { token } => post(on(token, "revoke"), told),
            Self::RevokeAll { role } => {
                post("/v1/revocations".into(), json!({ "owner": owner, "role": role, "reason": reason }))
            }
            Self::Child { parent } => post(on(parent, "children"), json!({ "ttl": "30m", "reason": reason })),
            Self::CreateAdmin { name } => post("/v1/admins".into(), json!({ "name": name, "role": "viewer" })),
            Self::RevokeAdmin { name } => post(format!("/v1/admins/{name}/revoke"), told),
        }
    }

    /// What it does to tokens, in one commit: with a token that something is taken from, what stands in for it ends.
    pub(crate) fn steps(&self, tokens: &Tokens, owner: &str, reason: &str) -> Vec<Step> {
        let one = |token: &str, change: &dyn Fn(&mut Record)| Step {
            changed: [(token.to_owned(), tokens[token].changed(change))].into(),
            ..Step::default()
        };
        let new = |records: Vec<Record>| {
            vec![Step { new: records.into_iter().map(|record| (DRAWN.into(), record)).collect(), ..Step::default() }]
        };
        let state = |state: &'static str| move |record: &mut Record| record.state = state;
        match self {
            Self::Create { name, role } => new(vec![Record::new(name, owner, role, Some(reason))]),
            Self::Bulk { name, count, role } => {
                new((1..=*count).map(|n| Record::new(&format!("{name}-{n}"), owner, role, Some(reason))).collect())
            }
            Self::Import { tokens, .. } => {
                let record = |token: &Token| (token.accessor.clone(), Record::new(&token.name, owner, "reader", None));
                vec![Step { new: tokens.iter().map(record).collect(), ..Step::default() }]
            }
            Self::Rotate { old, now } => {
                let mut rotated = one(old, &|record| {
                    record.successor = Some(DRAWN.to_owned());
                    record.state = if *now { "revoked" } else { "rotating" };
                    // Handing the name over and the revocation are a change each.
                    record.version += u64::from(*now);
                });
                let successor = Record { version: 1, ..tokens[old].clone() };
                rotated.new.push((DRAWN.to_owned(), successor));
                if *now {
                    return with_children(tokens, old, rotated);
                }
                // What stands in for the old one stands in for its successor.
                let handed = |(accessor, child): (&String, &Record)| {
                    (
                        accessor.clone(),
                        Record { parent: Some(DRAWN.to_owned()), version: child.version + 1, ..child.clone() },
                    )
                };
                rotated.changed.extend(children(tokens, old).map(handed));
                vec![rotated]
            }
            Self::Patch { token, .. } => vec![one(token, &|record| record.note = Some(reason.to_owned()))],
            Self::Grant { token } => {
                vec![one(token, &|record| drop(record.scopes.insert(GRANTED.to_owned(), reason.to_owned())))]
            }
            Self::Restrict { token } => {
                with_children(tokens, token, one(token, &|record| drop(record.scopes.remove(GRANTED))))
            }
            Self::Disable { token } => with_children(tokens, token, one(token, &state("disabled"))),
            Self::Enable { token } => vec![one(token, &state("active"))],
            Self::Revoke { token } => with_children(tokens, token, one(token, &state("revoked"))),
            Self::RevokeAll { role } => {
                let fits = |record: &Record| {
                    record.state != "revoked" && record.owner == owner && record.roles.iter().any(|held| held == role)
                };
                let found = tokens.iter().filter(|(_, record)| fits(record));
                let changed = found.map(|(accessor, record)| (accessor.clone(), record.changed(state("revoked"))));
                vec![Step { changed: changed.collect(), ..Step::default() }]
            }
            Self::Child { parent } => {
                let of = &tokens[parent];
                let child = Record {
                    name: format!("{}-run-", of.name),
                    note: Some(reason.to_owned()),
                    parent: Some(parent.clone()),
                    version: 1,
                    ..of.clone()
                };
                new(vec![child])
            }
            Self::CreateAdmin { .. } | Self::RevokeAdmin { .. } => Vec::new(),
        }
    }

    /// The tokens that an answer tells of, in the order of [`Step::new`].
    pub(crate) fn drawn(&self, reply: &Reply) -> Vec<Drawn> {
        let of = |view: &Value, secret: &Value| Drawn {
            accessor: view["accessor"].as_str().unwrap().to_owned(),
            name: view["name"].as_str().unwrap().to_owned(),
            secret: Some(secret.as_str().unwrap().to_owned()),
        };
        match self {
            Self::Create { .. } | Self::Child { .. } | Self::Rotate { .. } => {
                let answer = reply.json();
                vec![of(&answer["token"], &answer["secret"])]
            }
            Self::Bulk { .. } => {
                reply.json()["items"].as_array().unwrap().iter().map(|item| of(item, &item["secret"])).collect()
            }
            Self::Import { tokens, .. } => tokens.iter().map(Drawn::of).collect(),
            _ => Vec::new(),
        }
    }

    /// What may be found of it after a kill: nothing, or all of it.
    pub(crate) fn possible(steps: &[Step]) -> Vec<Vec<&Step>> {
        vec![Vec::new(), steps.iter().collect()]
    }
}

/// A token whose accessor is known.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) accessor: String,
    name: String,
    /// Whoever has not seen the answer does not know it.
    pub(crate) secret: Option<String>,
}

impl Drawn {
    fn of(token: &Token) -> Self {
        Self { accessor: token.accessor.clone(), name: token.name.clone(), secret: Some(token.secret().to_owned()) }
    }

    /// A token that was asked for with this record may have become it.
    fn fits(&self, accessor: &str, record: &Record) -> bool {
        let is_named = self.name == record.name || record.parent.is_some() && self.name.starts_with(&record.name);
        is_named && (accessor == DRAWN || accessor == self.accessor)
    }
}

/// As `GET /v1/exports` of another gateway would give it.
fn exported(token: &Token, owner: &str, pepper_id: &str) -> Value {
    use leastgate_testkit::{clock, token as made};
    let now = clock::now();
    json!({
        "accessor": token.accessor, "name": token.name, "env": "test", "pepper_id": pepper_id, "owner": owner,
        "digest": made::digest(token.secret(), "test", made::PEPPER), "roles": ["reader"],
        "created": clock::rfc3339(now - 60), "expires": clock::rfc3339(now + 3600),
    })
}

/// Its children end with it.
fn with_children(tokens: &Tokens, parent: &str, mut first: Step) -> Vec<Step> {
    first.changed.extend(end_of_children(tokens, parent).into_iter().flat_map(|end| end.changed));
    vec![first]
}

/// All of them end in one step, if there are any.
fn end_of_children(tokens: &Tokens, parent: &str) -> Option<Step> {
    let end =
        |(accessor, child): (&String, &Record)| (accessor.clone(), child.changed(|child| child.state = "revoked"));
    let changed: Tokens = children(tokens, parent).map(end).collect();
    (!changed.is_empty()).then(|| Step { changed, ..Step::default() })
}

/// What stands in for a token.
fn children<'a>(tokens: &'a Tokens, parent: &'a str) -> impl Iterator<Item = (&'a String, &'a Record)> {
    let is_child = move |record: &Record| record.parent.as_deref() == Some(parent) && record.state != "revoked";
    tokens.iter().filter(move |(_, record)| is_child(record))
}

/// `tokens` after these steps, the new ones as they were drawn; `None` where those do not fit.
pub(crate) fn after(tokens: &Tokens, steps: &[&Step], drawn: &[Drawn]) -> Option<Tokens> {
    let mut after = tokens.clone();
    let mut drawn: Vec<&Drawn> = drawn.iter().collect();
    for step in steps {
        after.extend(step.changed.clone());
        for (accessor, record) in &step.new {
            let at = drawn.iter().position(|drawn| drawn.fits(accessor, record))?;
            let known = drawn.remove(at);
            after.insert(known.accessor.clone(), Record { name: known.name.clone(), ..record.clone() });
            let of_others = after.values_mut().flat_map(|record| [&mut record.successor, &mut record.parent]);
            for other in of_others.filter(|other| other.as_deref() == Some(DRAWN)) {
                *other = Some(known.accessor.clone());
            }
        }
    }
    drawn.is_empty().then_some(after)
}

/// What the store has and the model does not.
pub(crate) fn unknown(tokens: &Tokens, found: &Tokens) -> Vec<Drawn> {
    let unknown = found.iter().filter(|(accessor, _)| !tokens.contains_key(*accessor));
    unknown
        .map(|(accessor, record)| Drawn { accessor: accessor.clone(), name: record.name.clone(), secret: None })
        .collect()
}
