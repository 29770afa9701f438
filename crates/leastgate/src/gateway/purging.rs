//! Dead records forgotten: by the store first, then by the table.

use leastgate_config::TokenSource;
use leastgate_policy::{Accessor, Authority, Timestamp, TokenDigest, TokenState};
use leastgate_store::{StoreError, TokenStore};

/// Dead records forgotten in one commit.
pub(super) const BATCH: u32 = 1000;

/// Forgets them.
#[derive(Debug)]
pub(super) struct Purging {
    source: TokenSource,
    /// The store may have forgotten some and did not say which.
    is_in_doubt: bool,
}

impl Purging {
    pub(super) fn new(source: TokenSource) -> Self {
        Self { source, is_in_doubt: false }
    }

    /// Forgets all who were dead before. `purge` is the store's, of a batch.
    pub(super) fn run(
        &mut self,
        authority: &Authority,
        store: &dyn TokenStore,
        before: Timestamp,
        purge: impl Fn() -> Result<Vec<TokenDigest>, StoreError>,
    ) -> Result<(), StoreError> {
        loop {
            let purged = purge().inspect_err(|error| {
                self.is_in_doubt |= matches!(error, StoreError::InDoubt { .. } | StoreError::Timeout { .. });
            })?;
            for digest in &purged {
                authority.remove(digest);
            }
            if purged.len() < BATCH as usize {
                break;
            }
        }
        // What is declared is in the table alone.
        if self.is_in_doubt && self.source == TokenSource::Store {
            // The store makes its changes in turn: what was in doubt is decided by now.
            drop_forgotten(authority, store, before)?;
            self.is_in_doubt = false;
        }
        Ok(())
    }
}

/// Who is in the table has been in the store, and a purge is the only way out of it for the dead.
fn drop_forgotten(authority: &Authority, store: &dyn TokenStore, before: Timestamp) -> Result<(), StoreError> {
    let mut dead: Vec<(Accessor, TokenDigest)> = Vec::new();
    authority.tokens().for_each(|digest, token| {
        if token.state == TokenState::Revoked || token.expires.is_some_and(|end| end < before) {
            dead.push((token.accessor, *digest));
        }
    });
    for (accessor, digest) in dead {
        match store.token(accessor) {
            Err(StoreError::NotFound { .. }) => drop(authority.remove(&digest)),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use leastgate_policy::{EnvironmentKey, Pepper};
    use leastgate_store::{Change, NewToken, SqliteStore, StateChange, TokenName, issue_token};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    #[test]
    fn what_the_store_forgot_without_saying_so_leaves_the_table_with_the_next_purge() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
        let store = SqliteStore::in_memory("test", &key).unwrap();
        let make = |name: &str, expires| {
            let token = NewToken {
                name: TokenName::parse(name).unwrap(),
                owner: None,
                roles: vec![],
                grants: vec![],
                restrictions: leastgate_policy::Restrictions::default(),
                limits: leastgate_policy::TokenLimits::default(),
                created: Timestamp(1),
                created_by: "test".to_owned(),
                expires,
                parent: None,
                is_canary: false,
                note: None,
            };
            issue_token(&store, "test", &key, &token).unwrap().record
        };
        let lives = make("lives", None);
        let over = make("over", Some(Timestamp(5)));
        let [revoked, recent] = [("revoked", Timestamp(5)), ("recent", NOW)].map(|(name, at)| {
            let change = StateChange { change: Change::Revoke, reason: "x".into(), by: "y".into(), at };
            store.change_state(make(name, None).accessor, change, None).unwrap()
        });
        let authority = Authority::new(key);
        for record in [&lives, &over, &revoked, &recent] {
            authority.upsert(record.entry()).unwrap();
        }
        let before = Timestamp(100);
        let is_first = Cell::new(true);
        let purge = || {
            let purged = store.purge(before, BATCH);
            if is_first.replace(false) {
                return Err(StoreError::InDoubt { why: "the disk hung".to_owned(), made: vec![] });
            }
            purged
        };
        let mut purging = Purging::new(TokenSource::Store);
        assert!(purging.run(&authority, &store, before, purge).is_err());
        assert_eq!(authority.tokens().len(), 4, "nobody knows yet");
        purging.run(&authority, &store, before, purge).unwrap();
        assert_eq!(
            [&lives, &over, &revoked, &recent].map(|r| authority.token(&r.digest).is_some()),
            [true, false, false, true]
        );
        assert!(!purging.is_in_doubt);
    }
}
