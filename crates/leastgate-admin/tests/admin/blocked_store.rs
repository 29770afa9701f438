//! A store whose reads hang for as long as a test wants them to, as on a network disk that is gone; it can be written.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use leastgate_policy::{Accessor, Straggler, Timestamp, TokenDigest, TokenEntry};
use leastgate_store::{
    AdminRecord, Redigested, Rotated, Rotation, StateChange, StoreError, StragglerCounts, TimeFilter, TokenPage,
    TokenQuery, TokenRecord, TokenStore, Tombstone, Undo, UsageBatch, UsageRow,
};

#[derive(Debug)]
pub(crate) struct BlockedStore {
    inner: Arc<dyn TokenStore>,
    reads: Arc<Reads>,
}

/// The switch, and how many reads hang.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    state: Mutex<(bool, usize)>,
    released: Condvar,
}

impl Reads {
    pub(crate) fn block(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub(crate) fn release(&self) {
        self.state.lock().unwrap().0 = false;
        self.released.notify_all();
    }

    pub(crate) fn hanging(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        // A test that has failed must come to its end too.
        let is_blocked = |(is_blocked, _): &mut (bool, usize)| *is_blocked;
        let mut state = self.released.wait_timeout_while(state, Duration::from_secs(60), is_blocked).unwrap().0;
        state.1 -= 1;
    }
}

pub(crate) fn blocked(inner: Arc<dyn TokenStore>) -> (Arc<dyn TokenStore>, Arc<Reads>) {
    let reads = Arc::new(Reads::default());
    (Arc::new(BlockedStore { inner, reads: Arc::clone(&reads) }), reads)
}

macro_rules! reads {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $answer {
            self.reads.wait();
            self.inner.$name($($argument),*)
        })*
    };
}

macro_rules! writes {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $answer {
            self.inner.$name($($argument),*)
        })*
    };
}

type Kept<T> = Result<T, StoreError>;

impl TokenStore for BlockedStore {
    reads! {
        fn token(&self, accessor: Accessor) -> Kept<TokenRecord>;
        fn find_token(&self, name_or_accessor: &str) -> Kept<TokenRecord>;
        fn list_tokens(&self, query: &TokenQuery) -> Kept<TokenPage>;
        fn count_tokens(&self) -> Kept<u64>;
        fn predecessors_of(&self, accessor: Accessor) -> Kept<Vec<TokenRecord>>;
        fn sharing_limits(&self) -> Kept<Vec<(TokenDigest, TokenDigest)>>;
        fn for_each_by_time(&self, filter: &TimeFilter, take: &mut dyn FnMut(Accessor)) -> Kept<u64>;
        fn idle_tokens(&self, since: Timestamp, limit: u32) -> Kept<Vec<TokenRecord>>;
        fn count_made_before(&self, before: Timestamp, now: Timestamp) -> Kept<u64>;
        fn load(&self, take: &(dyn Fn(TokenEntry) + Sync)) -> Kept<u64>;
        fn usage_of(&self, accessor: Accessor) -> Kept<Vec<UsageRow>>;
        fn for_each_usage(&self, take: &mut dyn FnMut(UsageRow)) -> Kept<u64>;
        fn tombstone_of(&self, accessor: Accessor, digest: &TokenDigest) -> Kept<Option<Tombstone>>;
        fn find_admin(&self, digest: &TokenDigest) -> Kept<Option<AdminRecord>>;
        fn list_admins(&self) -> Kept<Vec<AdminRecord>>;
        fn count_admins(&self) -> Kept<u64>;
        fn namesakes(&self, name: &str, now: Timestamp) -> Kept<Vec<TokenRecord>>;
        fn use_known_since(&self) -> Kept<Option<Timestamp>>;
        fn count_stragglers(&self, now: Timestamp) -> Kept<StragglerCounts>;
    }

    writes! {
        fn create_token(&self, token: TokenRecord) -> Kept<TokenRecord>;
        fn create_tokens(&self, tokens: Vec<TokenRecord>) -> Kept<usize>;
        fn change_state(&self, accessor: Accessor, change: StateChange, expected: Option<u64>) -> Kept<TokenRecord>;
        fn revoke_tokens(&self, accessors: Vec<Accessor>, change: StateChange) -> Kept<usize>;
        fn update_token(&self, token: TokenRecord) -> Kept<TokenRecord>;
        fn narrow_token(&self, token: TokenRecord, end: StateChange) -> Kept<TokenRecord>;
        fn undo(&self, gifts: Vec<Undo>) -> Kept<usize>;
        fn rotate_token(&self, rotation: Rotation) -> Kept<Rotated>;
        fn record_usage(&self, batch: UsageBatch) -> Kept<()>;
        fn purge(&self, older_than: Timestamp, limit: u32) -> Kept<Vec<TokenDigest>>;
        fn create_admin(&self, admin: AdminRecord) -> Kept<AdminRecord>;
        fn revoke_admin(&self, id: Accessor, at: Timestamp) -> Kept<AdminRecord>;
        fn redigest(&self, stragglers: Vec<Straggler>) -> Kept<Vec<Redigested>>;
        fn is_running(&self) -> bool;
        fn close(&self, deadline: Duration) -> Kept<()>;
    }
}
