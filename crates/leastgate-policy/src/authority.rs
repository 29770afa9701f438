//! The one writer of what is allowed, and the workers' view of it.
//!
//! Everything that changes access while the gateway runs comes through here: a new policy, a token put in, changed
//! or taken out. Each change is counted, so that long requests can be decided again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::cache::Cache;
use arc_swap::{ArcSwap, ArcSwapOption};

use crate::review::{CutWatch, Reviewer, Reviews, Whose};
use crate::snapshot::{PolicySnapshot, RuleKey};
use crate::time::Timestamp;
use crate::token::{
    Accessor, DigestCollision, EnvironmentKey, Moves, Straggler, Stragglers, TokenDigest, TokenEntry, TokenState,
    TokenTable, TokenView,
};

/// The keys of all rules that were ever in force, and back.
#[derive(Debug, Default)]
struct RuleKeys {
    by_id: HashMap<Arc<str>, RuleKey>,
    ids: Vec<Arc<str>>,
}

/// What is in force: at most one policy, and the tokens of one environment.
pub struct Authority {
    key: EnvironmentKey,
    policy: Arc<ArcSwapOption<PolicySnapshot>>,
    tokens: ArcSwap<TokenTable>,
    rule_keys: Mutex<RuleKeys>,
    changes: AtomicU64,
    reviews: Arc<Reviews>,
    /// Held for each edit of the token table: a token that moves to another digest is changed wherever it is.
    moves: Mutex<Moves>,
    stragglers: Stragglers,
}

impl Authority {
    /// An authority without a policy: it refuses everything.
    #[must_use]
    pub fn new(key: EnvironmentKey) -> Self {
        Self::with_tokens(key, TokenTable::default())
    }

    /// An authority over a table that was filled before, without a policy.
    #[must_use]
    pub fn with_tokens(key: EnvironmentKey, tokens: TokenTable) -> Self {
        Self {
            key,
            policy: Arc::default(),
            tokens: ArcSwap::from_pointee(tokens),
            rule_keys: Mutex::default(),
            changes: AtomicU64::new(0),
            reviews: Arc::default(),
            moves: Mutex::default(),
            stragglers: Stragglers::default(),
        }
    }

    /// Puts a policy in force, whole, for every request decided from now on; the tokens stay.
    pub fn replace(&self, snapshot: PolicySnapshot) -> Arc<PolicySnapshot> {
        self.put_in_force(snapshot, self.tokens())
    }

    /// Puts a policy in force together with the tokens it declares, in one step: no request sees the tokens of one and
    /// the roles of another.
    ///
    /// # Errors
    /// Two tokens' digests begin alike; what was in force stays.
    pub fn replace_with_declared(&self, mut snapshot: PolicySnapshot) -> Result<Arc<PolicySnapshot>, DigestCollision> {
        let declared = std::mem::take(&mut snapshot.declared_tokens);
        let (tokens, before) = (TokenTable::with_capacity(declared.len()), self.tokens());
        for entry in declared {
            tokens.take_over(entry, &before)?;
        }
        let snapshot = self.put_in_force(snapshot, Arc::new(tokens));
        // Whoever notes one of those before, by the policy before, finds it gone when it is looked at.
        self.stragglers.retain(|digest| snapshot.tokens.get(digest).is_some());
        Ok(snapshot)
    }

    fn put_in_force(&self, mut snapshot: PolicySnapshot, tokens: Arc<TokenTable>) -> Arc<PolicySnapshot> {
        self.assign_rule_keys(&mut snapshot);
        snapshot.tokens = Arc::clone(&tokens);
        let snapshot = Arc::new(snapshot);
        self.tokens.store(tokens);
        self.policy.store(Some(Arc::clone(&snapshot)));
        self.changed();
        snapshot
    }

    /// Puts a token in, in place of one with the same digest.
    ///
    /// # Errors
    /// Another token's digest begins alike; nothing is changed.
    pub fn upsert(&self, entry: TokenEntry) -> Result<(), DigestCollision> {
        let moves = self.moves();
        self.tokens.load().upsert(TokenEntry { digest: moves.place(&entry.digest), ..entry })?;
        self.changed();
        Ok(())
    }

    /// Takes something from a token, as [`TokenTable::restrict`] does.
    pub fn restrict(&self, digest: &TokenDigest, less: impl Fn(&mut TokenEntry)) {
        let moves = self.moves();
        self.tokens.load().restrict(&moves.place(digest), less);
        self.changed();
    }

    /// Changes a token's state; nothing leads away from revoked. `false` where there is no such token.
    pub fn set_state(&self, digest: &TokenDigest, state: TokenState) -> bool {
        let moves = self.moves();
        let found = self.tokens.load().set_state(&moves.place(digest), state);
        self.changed();
        found
    }

    /// Has the second token use the limits of the first, as [`TokenTable::share_limits`] does. Nothing that is allowed changes.
    pub fn share_limits(&self, of: &TokenDigest, with: &TokenDigest) {
        let moves = self.moves();
        self.tokens.load().share_limits(&moves.place(of), &moves.place(with));
    }

    /// Has what stands in for a token stand in for its successor, as [`TokenTable::adopt_children`] does.
    pub fn adopt_children(&self, of: Accessor, successor: Accessor, end: Option<Timestamp>) {
        let _moves = self.moves();
        self.tokens.load().adopt_children(of, successor, end);
        self.changed();
    }

    /// What stands in for a token and is not revoked, each with the digest under which it is kept.
    #[must_use]
    pub fn children_of(&self, parent: Accessor) -> Vec<(TokenDigest, TokenView)> {
        let _moves = self.moves();
        self.tokens.load().children_of(parent)
    }

    /// All that stands in for another token and is not revoked, each behind that one's accessor.
    #[must_use]
    pub fn children(&self) -> Vec<(Accessor, TokenDigest, TokenView)> {
        let _moves = self.moves();
        self.tokens.load().children()
    }

    /// Takes a token out. `false` where there is no such token.
    pub fn remove(&self, digest: &TokenDigest) -> bool {
        let moves = self.moves();
        let found = self.tokens.load().remove(&moves.place(digest));
        self.stragglers.forget(digest);
        self.changed();
        found
    }

    /// The token with this digest, wherever it is kept by now.
    #[must_use]
    pub fn token(&self, digest: &TokenDigest) -> Option<TokenView> {
        let moves = self.moves();
        self.tokens.load().get(&moves.place(digest))
    }

    /// The digest under which the token that has, had, or will have this one is kept.
    #[must_use]
    pub fn place(&self, digest: &TokenDigest) -> TokenDigest {
        self.moves().place(digest)
    }

    /// Before the store is told to keep a token under the current key: from here on either of its digests leads to it, for
    /// the store may know before the table does. `false` where there is no such token any more.
    ///
    /// # Errors
    /// Another token's digest begins alike: it stays under the previous key.
    pub fn begin_redigest(&self, straggler: &Straggler) -> Result<bool, DigestCollision> {
        let mut moves = self.moves();
        let tokens = self.tokens.load();
        if tokens.get(&straggler.previous).is_none() {
            return Ok(false);
        }
        if !tokens.has_room_for(&straggler.current) {
            return Err(DigestCollision);
        }
        moves.begin(straggler.previous, straggler.current);
        Ok(true)
    }

    /// After the store has taken it: the token moves, with whatever was done to it meanwhile. Nothing that is allowed
    /// changes, so nothing is decided again.
    ///
    /// # Errors
    /// Another token's digest begins alike by now: it stays under the previous key.
    pub fn finish_redigest(&self, straggler: &Straggler) -> Result<bool, DigestCollision> {
        let tokens = self.tokens.load();
        // First this: every edit waits for the moves, and a revocation must not wait for somebody's walk.
        let mover = tokens.mover();
        let mut moves = self.moves();
        let moved = mover.redigest(&straggler.previous, &straggler.current);
        match moved {
            Ok(true) => moves.finish(straggler.previous, straggler.current),
            Ok(false) => moves.give_up(&straggler.current),
            // The store has the new digest, the table the old one: each goes on leading to the token.
            Err(DigestCollision) => {}
        }
        moved
    }

    /// After the store has refused it for good.
    pub fn give_up_redigest(&self, straggler: &Straggler) {
        self.moves().give_up(&straggler.current);
    }

    /// Forgets where tokens were that moved before the last time this was called. Nobody holds their former digests by
    /// then: it is called once in minutes, and what an administrator asks for takes seconds.
    pub fn age_moves(&self) {
        self.moves().age();
    }

    /// Tokens that were found under the previous key.
    #[must_use]
    pub fn stragglers(&self) -> &Stragglers {
        &self.stragglers
    }

    /// The policy in force; none before the first.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<PolicySnapshot>> {
        self.policy.load_full()
    }

    /// The tokens in force.
    #[must_use]
    pub fn tokens(&self) -> Arc<TokenTable> {
        self.tokens.load_full()
    }

    /// The environment's key.
    #[must_use]
    pub fn key(&self) -> &EnvironmentKey {
        &self.key
    }

    /// How many changes there were: when it moves, long requests are decided again.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes part in the reviews of changes. `wake` is called when one is asked for, on whatever thread, and must not
    /// wait.
    #[must_use]
    pub fn reviewer(&self, wake: impl Fn() + Send + Sync + 'static) -> Reviewer {
        self.reviews.reviewer(Box::new(wake))
    }

    /// Counts requests that are cut from now on. `reviewed` is called whenever a reviewer has done a review or is gone,
    /// on that worker's thread, and must not wait.
    #[must_use]
    pub fn watch_cuts(&self, whose: Whose, reviewed: impl Fn() + Send + Sync + 'static) -> Arc<CutWatch> {
        self.reviews.watch(whose, Box::new(reviewed))
    }

    /// Asks every reviewer to decide everything it has under way again, now.
    pub fn ask_for_review(&self) {
        self.reviews.ask();
    }

    /// Whether every reviewer has done a review that was asked for after this change, or is gone: what was let through
    /// before the change has then been decided again after it, or is over.
    #[must_use]
    pub fn is_reviewed(&self, change: u64) -> bool {
        self.reviews.have_reviewed(change)
    }

    /// A worker's view, which keeps the policy at hand.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { policy: Cache::new(Arc::clone(&self.policy)), authority: Arc::clone(self) }
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The id of the rule with this key, in force or not any more.
    #[must_use]
    pub fn rule_id(&self, key: RuleKey) -> Option<Arc<str>> {
        let keys = self.rule_keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.ids.get(key.0 as usize).cloned()
    }

    fn assign_rule_keys(&self, snapshot: &mut PolicySnapshot) {
        let mut keys = self.rule_keys.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in &mut snapshot.rules {
            rule.key = keys.key_of(&rule.id);
        }
    }
}

impl RuleKeys {
    fn key_of(&mut self, id: &Arc<str>) -> RuleKey {
        if let Some(key) = self.by_id.get(id) {
            return *key;
        }
        let key = RuleKey(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        self.by_id.insert(Arc::clone(id), key);
        self.ids.push(Arc::clone(id));
        key
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.snapshot().map(|snapshot| snapshot.revision().to_owned());
        f.debug_struct("Authority")
            .field("revision", &revision)
            .field("tokens", &self.tokens.load().len())
            .finish_non_exhaustive()
    }
}

/// A worker's view of the authority. Not shared: each worker has its own.
pub struct Reader {
    policy: Cache<Arc<ArcSwapOption<PolicySnapshot>>, Option<Arc<PolicySnapshot>>>,
    authority: Arc<Authority>,
}

impl Reader {
    /// The policy in force; none before the first.
    pub fn snapshot(&mut self) -> Option<&Arc<PolicySnapshot>> {
        self.policy.load().as_ref()
    }

    /// The authority itself.
    #[must_use]
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.authority).finish()
    }
}

#[cfg(test)]
mod tests;
