//! A store whose rotations wait, just before they are written, until a test lets them go.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leastgate_policy::{Accessor, Straggler, Timestamp, TokenDigest, TokenEntry};
use leastgate_store::{
    AdminRecord, Redigested, Rotated, Rotation, StateChange, StoreError, StragglerCounts, TimeFilter, TokenPage,
    TokenQuery, TokenRecord, TokenStore, Tombstone, Undo, UsageBatch, UsageRow,
};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct HeldStore {
    inner: Arc<dyn TokenStore>,
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
}

/// What lets the rotations go.
#[derive(Debug)]
pub(crate) struct Holder {
    begun: Receiver<()>,
    go: Sender<()>,
}

impl Holder {
    /// Waits until a rotation is about to be written.
    pub(crate) fn wait(&self) {
        self.begun.recv_timeout(PATIENCE).expect("a rotation begins");
    }

    /// Lets it go.
    pub(crate) fn let_go(&self) {
        self.go.send(()).expect("the rotation waits");
    }
}

pub(crate) fn hold(inner: Arc<dyn TokenStore>) -> (Arc<dyn TokenStore>, Holder) {
    let (begun, is_begun) = channel();
    let (go, may_go) = channel();
    (Arc::new(HeldStore { inner, begun, go: Mutex::new(may_go) }), Holder { begun: is_begun, go })
}

macro_rules! as_it_is {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $answer {
            self.inner.$name($($argument),*)
        })*
    };
}

type Kept<T> = Result<T, StoreError>;

impl TokenStore for HeldStore {
    fn rotate_token(&self, rotation: Rotation) -> Kept<Rotated> {
        self.begun.send(()).expect("the test is there");
        self.go.lock().unwrap().recv_timeout(PATIENCE).expect("the test lets it go");
        self.inner.rotate_token(rotation)
    }

    as_it_is! {
        fn create_token(&self, token: TokenRecord) -> Kept<TokenRecord>;
        fn create_tokens(&self, tokens: Vec<TokenRecord>) -> Kept<usize>;
        fn token(&self, accessor: Accessor) -> Kept<TokenRecord>;
        fn find_token(&self, name_or_accessor: &str) -> Kept<TokenRecord>;
        fn list_tokens(&self, query: &TokenQuery) -> Kept<TokenPage>;
        fn count_tokens(&self) -> Kept<u64>;
        fn change_state(&self, accessor: Accessor, change: StateChange, expected: Option<u64>) -> Kept<TokenRecord>;
        fn revoke_tokens(&self, accessors: Vec<Accessor>, change: StateChange) -> Kept<usize>;
        fn update_token(&self, token: TokenRecord) -> Kept<TokenRecord>;
        fn narrow_token(&self, token: TokenRecord, end: StateChange) -> Kept<TokenRecord>;
        fn undo(&self, gifts: Vec<Undo>) -> Kept<usize>;
        fn predecessors_of(&self, accessor: Accessor) -> Kept<Vec<TokenRecord>>;
        fn namesakes(&self, name: &str, now: Timestamp) -> Kept<Vec<TokenRecord>>;
        fn sharing_limits(&self) -> Kept<Vec<(TokenDigest, TokenDigest)>>;
        fn for_each_by_time(&self, filter: &TimeFilter, take: &mut dyn FnMut(Accessor)) -> Kept<u64>;
        fn idle_tokens(&self, since: Timestamp, limit: u32) -> Kept<Vec<TokenRecord>>;
        fn count_made_before(&self, before: Timestamp, now: Timestamp) -> Kept<u64>;
        fn load(&self, take: &(dyn Fn(TokenEntry) + Sync)) -> Kept<u64>;
        fn use_known_since(&self) -> Kept<Option<Timestamp>>;
        fn record_usage(&self, batch: UsageBatch) -> Kept<()>;
        fn usage_of(&self, accessor: Accessor) -> Kept<Vec<UsageRow>>;
        fn for_each_usage(&self, take: &mut dyn FnMut(UsageRow)) -> Kept<u64>;
        fn purge(&self, older_than: Timestamp, limit: u32) -> Kept<Vec<TokenDigest>>;
        fn tombstone_of(&self, accessor: Accessor, digest: &TokenDigest) -> Kept<Option<Tombstone>>;
        fn create_admin(&self, admin: AdminRecord) -> Kept<AdminRecord>;
        fn find_admin(&self, digest: &TokenDigest) -> Kept<Option<AdminRecord>>;
        fn list_admins(&self) -> Kept<Vec<AdminRecord>>;
        fn count_admins(&self) -> Kept<u64>;
        fn revoke_admin(&self, id: Accessor, at: Timestamp) -> Kept<AdminRecord>;
        fn redigest(&self, stragglers: Vec<Straggler>) -> Kept<Vec<Redigested>>;
        fn count_stragglers(&self, now: Timestamp) -> Kept<StragglerCounts>;
        fn is_running(&self) -> bool;
        fn close(&self, deadline: Duration) -> Kept<()>;
    }
}
