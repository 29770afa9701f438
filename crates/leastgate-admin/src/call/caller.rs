//! Who calls: an administrator by credential, or the gateway's own user over its unix socket.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, header};
use leastgate_policy::token::{self, Digests};
use leastgate_policy::{Accessor, Straggler, StragglerKind, TokenDigest, TokenKind};
use leastgate_store::{AdminRecord, AdminRole, MayGrant, StoreError, TokenStore};
use leastgate_telemetry::AdminActor;

use super::Effect;
use crate::asking::HASTE;
use crate::listener::{Peer, network_of};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// A caller who has shown who they are.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The administrator's name, or `uid:N`.
    pub(crate) subject: String,
    pub(crate) identity: Identity,
    pub(crate) role: AdminRole,
    pub(crate) may_grant: MayGrant,
}

/// Who it is, whatever the name: a name goes to somebody else after a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The public id of an administrator's credential.
    Admin(Accessor),
    /// A user of this machine.
    User(u32),
}

impl Identity {
    fn accessor(self) -> Option<Accessor> {
        match self {
            Self::Admin(accessor) => Some(accessor),
            Self::User(_) => None,
        }
    }
}

impl Caller {
    pub(crate) fn actor(&self) -> AdminActor {
        AdminActor {
            accessor: self.identity.accessor().map(|accessor| accessor.to_string()),
            subject: self.subject.clone(),
            role: Some(self.role.to_string()),
        }
    }

    fn of_user(uid: u32) -> Self {
        Self {
            subject: format!("uid:{uid}"),
            identity: Identity::User(uid),
            role: AdminRole::Admin,
            may_grant: MayGrant::everything(),
        }
    }

    fn of_record(record: AdminRecord) -> Self {
        Self {
            subject: record.name.to_string(),
            identity: Identity::Admin(record.id),
            role: record.role,
            may_grant: record.may_grant,
        }
    }
}

/// Who makes this request. Blocks: it asks the store.
///
/// Over the socket a credential that is shown counts, so that a script can be less than its user.
pub(crate) fn identify(shared: &Shared, effect: Effect, parts: &Parts) -> Result<Caller, Problem> {
    match parts.extensions.get() {
        Some(&Peer::Unix { uid }) if !is_admitted(uid) => Err(Problem::new(
            Kind::PeerRefused,
            format!("the user with uid {uid} is neither root nor the gateway's own"),
        )
        .hint("run the command as root or as the gateway's user (sudo -u), or use the TCP listener with a credential")),
        Some(&Peer::Unix { uid }) if !parts.headers.contains_key(header::AUTHORIZATION) => Ok(Caller::of_user(uid)),
        Some(Peer::Unix { .. }) => verify(shared, effect, &parts.headers),
        Some(Peer::Tcp { source, .. }) => {
            let verified = verify(shared, effect, &parts.headers);
            verified.map_err(|problem| limited(shared, network_of(source.ip()), problem))
        }
        None => Err(Problem::new(Kind::Internal, "the connection's peer is not known")),
    }
}

/// Whether the caller is an administrator still: a body may come long after its head, and a turn long after both.
pub(crate) fn check_standing(shared: &Shared, caller: &Caller) -> Result<(), Problem> {
    match caller.identity {
        Identity::Admin(id) if shared.revoked_admins().contains(&id) => Err(unknown()),
        Identity::Admin(_) | Identity::User(_) => Ok(()),
    }
}

fn is_admitted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn verify(shared: &Shared, effect: Effect, headers: &HeaderMap) -> Result<Caller, Problem> {
    let text = presented(headers)?;
    // Hashed whatever it looks like, so that a refusal costs the same (P31).
    let digests = shared.given.authority.key().digests(text);
    if token::inspect(text).is_ok_and(|parsed| parsed.kind == TokenKind::Token) {
        return Err(Problem::new(
            Kind::InvalidCredential,
            "this is a token of the data plane, not an admin credential",
        )
        .hint("send an admin credential (lga_…): `leastgate admin create` makes one"));
    }
    find(shared, effect, digests)?.map(Caller::of_record).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Kind::InvalidCredential, "no administrator has this credential, or it was revoked")
        .hint("check which gateway and environment it was made for; on the host, `leastgate admin list` over the unix socket shows who there is")
}

fn presented(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let missing = || {
        Problem::new(Kind::CredentialRequired, "there must be exactly one `Authorization: Bearer lga_…`")
            .hint("set LEASTGATE_ADMIN_TOKEN or LEASTGATE_ADMIN_TOKEN_FILE, or run the command on the gateway's host, where the unix socket needs none")
    };
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return Err(missing()) };
    let (scheme, text) = field.as_bytes().split_at_checked(7).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") && !text.is_empty() { Ok(text) } else { Err(missing()) }
}

/// Most administrators who are remembered: more than any house has.
const MOST_REMEMBERED: usize = 1_024;

fn find(shared: &Shared, effect: Effect, digests: Digests) -> Result<Option<AdminRecord>, Problem> {
    let (current, previous) = (digests.current, digests.previous);
    let found = match effect {
        Effect::Takes => match shared.asking.ask(move |store| search(store, current, previous)).wait(HASTE) {
            Ok(found) => found,
            Err(error) => Some(remembered(shared, current, previous).ok_or(error)?),
        },
        _ => search(&*shared.given.store, current, previous)?,
    };
    let Some(found) = found.filter(|admin| !shared.revoked_admins().contains(&admin.id)) else { return Ok(None) };
    if Some(found.digest) == previous {
        let (kind, accessor, previous) = (StragglerKind::Admin, found.id, found.digest);
        shared.given.authority.stragglers().note(Straggler { kind, accessor, previous, current });
    }
    let mut callers = shared.callers();
    if callers.len() >= MOST_REMEMBERED {
        callers.clear();
    }
    callers.insert(found.id, found.clone());
    Ok(Some(found))
}

/// Under the current pepper, then under the previous one, then once more: a credential that is moved from one to the
/// other meanwhile is never unknown.
fn search(
    store: &dyn TokenStore,
    current: TokenDigest,
    previous: Option<TokenDigest>,
) -> Result<Option<AdminRecord>, StoreError> {
    let by = |digest: TokenDigest| {
        let found = store.find_admin(&digest)?;
        Ok(found.filter(|admin| admin.digest == digest && admin.revoked.is_none()))
    };
    for digest in [Some(current), previous].into_iter().flatten() {
        if let Some(found) = by(digest)? {
            return Ok(Some(found));
        }
    }
    if previous.is_some() { by(current) } else { Ok(None) }
}

/// Who has this credential, if the store has said so before. A record never changes but by a revocation, which is known here
/// first.
fn remembered(shared: &Shared, current: TokenDigest, previous: Option<TokenDigest>) -> Option<AdminRecord> {
    let callers = shared.callers();
    callers.values().find(|admin| admin.digest == current || Some(admin.digest) == previous).cloned()
}

/// Whether the event of a call without a caller is still one by which somebody learns something. Refused credentials were
/// counted as they were refused; a store that can't say who calls refuses everybody, and as often as they like.
pub(super) fn is_worth_an_event(shared: &Shared, parts: &Parts, problem: &Problem) -> bool {
    let source = match parts.extensions.get() {
        Some(Peer::Tcp { source, .. }) if problem.status() >= 500 => network_of(source.ip()),
        _ => return problem.kind != Kind::TooManyFailures,
    };
    shared.failures.admit(source, shared.given.telemetry.clock().elapsed())
}

/// Counts a refused credential against its source; above the limit the 401 becomes a 429. A valid credential is
/// never refused for its neighbours: on loopback all are one source.
fn limited(shared: &Shared, source: IpAddr, problem: Problem) -> Problem {
    if problem.status() != 401 || shared.failures.admit(source, shared.given.telemetry.clock().elapsed()) {
        return problem;
    }
    Problem::new(Kind::TooManyFailures, "too many refused credentials from this address")
        .hint("stop what keeps trying; a valid credential still works")
}
