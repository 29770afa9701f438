//! Taking something from a token, whatever it is: it is never refused. From its first moment on it is in force and owed to the
//! store, and then it is told the store and not owed any more.
//!
//! A rotation may be on its way into the store meanwhile, with a successor that was drawn from what the token held before. What
//! is owed of the token by then is passed on to that ([`Unsynced::pass_on`](crate::unsynced::Unsynced::pass_on)); and who takes
//! looks whether there is one, when the taking is owed. Of the two, one comes second and sees the other.

use std::iter;
use std::time::Duration;

use leastgate_policy::{Accessor, TokenState, Whose};
use leastgate_store::StoreError;

use super::children::Ending;
use super::cut::{Cut, Cutting};
use super::detail;
use super::find::{Found, find_in_force};
use crate::call::Call;
use crate::problem::Problem;
use crate::state::Shared;
use crate::unsynced::Owed;

/// What is taken.
pub(super) trait Taking {
    /// What a token is from then on.
    type Kept;
    /// Why what stands in for the token ends.
    const ENDS: &'static str;

    fn owed(&self, found: &Found) -> Owed;

    /// Takes it in memory, whatever the token has become there.
    fn put_in_force(&self, shared: &Shared, found: &Found);

    /// Has the store take it. For who has the turn.
    fn keep(&self, shared: &Shared, found: &Found) -> Result<Self::Kept, NotKept>;

    /// The token as it is in force, when the store has not taken it.
    fn in_force(&self, shared: &Shared, found: &Found) -> Self::Kept;
}

/// Why the store does not take it.
pub(super) enum NotKept {
    /// There is nothing to take any more.
    Never(StoreError),
    /// It may be tried again.
    Yet(String),
}

impl From<StoreError> for NotKept {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } | StoreError::Revoked { .. } => Self::Never(error),
            _ => Self::Yet(error.to_string()),
        }
    }
}

/// A token that something was taken from.
pub(super) struct Taken<K> {
    pub(super) found: Found,
    /// Its state before.
    pub(super) before: TokenState,
    pub(super) kept: K,
    /// Whether the store has it.
    pub(super) durable: bool,
}

/// What came of it.
pub(super) struct Outcome<K> {
    /// The token that was asked for.
    pub(super) asked: Taken<K>,
    /// What else it was taken from.
    pub(super) also: Vec<Taken<K>>,
    pub(super) cut: Cut,
    /// How long it took until no request went on by what was taken.
    pub(super) took: Duration,
}

impl<K> Outcome<K> {
    /// Whether the store has all of it.
    pub(super) fn durable(&self) -> bool {
        self.asked.durable && self.also.iter().all(|taken| taken.durable)
    }

    /// What else it was taken from, and what not, for the record.
    pub(super) fn others(&self, in_grace: &[Found]) -> Vec<(String, String)> {
        [named("also", self.also.iter().map(|taken| &taken.found)), named("in_grace", in_grace)].concat()
    }
}

/// A detail with the accessors of these, if there are any.
pub(super) fn named<'a>(name: &str, all: impl IntoIterator<Item = &'a Found>) -> Vec<(String, String)> {
    let accessors: Vec<String> = all.into_iter().map(|found| found.accessor.to_string()).collect();
    if accessors.is_empty() { Vec::new() } else { vec![detail(name, accessors.join(" "))] }
}

/// Takes from a token and from others with its name, and from what is made of one of them meanwhile.
pub(super) fn take<T: Taking>(
    call: &Call<'_>,
    asked: Found,
    others: Vec<Found>,
    taking: &T,
) -> Result<Outcome<T::Kept>, Problem> {
    let target = |found: Found| {
        let (follows, before) = (is_holder(call.shared, &found), found.state(call.shared));
        Target { found, before, follows }
    };
    let (asked, others) = (target(asked), others.into_iter().map(target).collect::<Vec<_>>());
    let mut steps = Steps::new(call, taking);
    steps.begin(iter::once(&asked).chain(&others).map(|target| &target.found));
    let held = call.shared.lock_changes();
    steps.blocked = held.is_none().then(|| "other changes wait for the store".to_owned());
    let asked = steps.keep(asked);
    let (mut also, mut others) = (Vec::new(), others.into_iter());
    while let Some(target) = steps.made.pop().or_else(|| others.next()) {
        also.extend(steps.keep(target).ok());
    }
    drop(held);
    let is_durable = asked.iter().chain(&also).all(|taken| taken.durable);
    let (cut, took) = steps.finish(is_durable);
    Ok(Outcome { asked: asked?, also, cut, took })
}

/// Whether nothing had been made of the token yet when it was found.
fn is_holder(shared: &Shared, found: &Found) -> bool {
    found.record().map_or_else(|| found.state(shared) == TokenState::Active, |record| record.successor.is_none())
}

/// The token that a rotation has made of this one. Where the store does not say at once, whoever has the name: who asks has the
/// turn.
fn made_of(shared: &Shared, found: &Found) -> Option<Found> {
    let now = find_in_force(shared, &found.accessor.to_string()).ok()?;
    match now.record() {
        Some(record) => find_in_force(shared, &record.successor?.to_string()).ok(),
        None => find_in_force(shared, &found.name).ok().filter(|holder| is_holder(shared, holder)),
    }
}

/// A token that is being taken from.
struct Target {
    found: Found,
    before: TokenState,
    /// Whether it is taken from what is made of it, too.
    follows: bool,
}

/// One taking, step by step.
struct Steps<'a, T> {
    call: Call<'a>,
    taking: &'a T,
    cuttings: Vec<Cutting<'a>>,
    endings: Vec<Ending<'a>>,
    /// Why the store is not asked: each more that waits for it would only wait as long again.
    blocked: Option<String>,
    known: Vec<Accessor>,
    /// What rotations have made of one of them.
    made: Vec<Target>,
}

impl<'a, T: Taking> Steps<'a, T> {
    fn new(call: &Call<'a>, taking: &'a T) -> Self {
        let (cuttings, endings, known, made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { call: *call, taking, cuttings, endings, blocked: None, known, made }
    }

    /// All of them are out of force before anybody is waited for.
    fn begin<'b>(&mut self, all: impl Iterator<Item = &'b Found> + Clone) {
        let shared = self.call.shared;
        let cutting = Cutting::begin(&self.call, Whose::Tokens(all.clone().map(|found| found.accessor).collect()));
        for found in all.clone() {
            shared.unsynced.add(found.accessor, self.taking.owed(found), &shared.given.telemetry);
            self.taking.put_in_force(shared, found);
        }
        cutting.in_force();
        self.cuttings.push(cutting);
        for found in all {
            self.endings.push(Ending::of(&self.call, found.accessor));
            self.known.push(found.accessor);
        }
    }

    /// Has the store keep it, or owe it. Then what was made of the token comes to light.
    fn keep(&mut self, target: Target) -> Result<Taken<T::Kept>, StoreError> {
        let Target { found, before, follows } = target;
        let kept = self.keep_one(&found);
        // Until then something may have been made that stands in for it.
        self.endings.iter_mut().for_each(Ending::look_again);
        if follows {
            self.follow(&found);
        }
        kept.map(|(kept, durable)| Taken { found, before, kept, durable })
    }

    fn keep_one(&mut self, found: &Found) -> Result<(T::Kept, bool), StoreError> {
        let shared = self.call.shared;
        let (owed, telemetry) = (self.taking.owed(found), &shared.given.telemetry);
        // Whoever settled what was owed may have put more in force since.
        self.taking.put_in_force(shared, found);
        let kept = match &self.blocked {
            Some(why) => Err(NotKept::Yet(why.clone())),
            None => self.taking.keep(shared, found),
        };
        match kept {
            Ok(kept) => {
                shared.unsynced.kept(found.accessor, &owed, telemetry);
                Ok((kept, true))
            }
            Err(NotKept::Never(error)) => {
                shared.unsynced.kept(found.accessor, &owed, telemetry);
                Err(error)
            }
            Err(NotKept::Yet(why)) => {
                tracing::warn!(accessor = %found.accessor, why, "a change is in force and not in the store yet");
                // It may have been settled, and given back since.
                shared.unsynced.add(found.accessor, owed, telemetry);
                self.taking.put_in_force(shared, found);
                self.blocked = Some(why);
                Ok((self.taking.in_force(shared, found), false))
            }
        }
    }

    fn follow(&mut self, found: &Found) {
        let made = made_of(self.call.shared, found).filter(|made| !self.known.contains(&made.accessor));
        if let Some(found) = made {
            // In force it may be less by now, by what was passed on to it.
            let before = found.record().map_or(TokenState::Active, |record| record.state);
            self.begin(iter::once(&found));
            self.made.push(Target { found, before, follows: true });
        }
    }

    /// What that has cut, of what stood in for them too, and how long the slowest of them took. Not for who has the turn.
    fn finish(self, is_durable: bool) -> (Cut, Duration) {
        let ended: Vec<Cut> = self.endings.into_iter().map(|ending| ending.finish(T::ENDS, is_durable)).collect();
        let own: Vec<Cut> = self.cuttings.into_iter().map(Cutting::finish).collect();
        let took = own.iter().map(|cut| cut.took).max().unwrap_or_default();
        (own.into_iter().chain(ended).fold(Cut::NONE, Cut::and), took)
    }
}
