//! The first administrator: made by the gateway itself where there is none.

use leastgate_policy::{EnvironmentKey, Timestamp};
use leastgate_store::{
    AdminRole, InvalidName, IssuedAdmin, MayGrant, NewAdmin, StoreError, TokenName, TokenStore, issue_admin,
};

/// Why there is no first administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The name won't do.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The store can't keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes an administrator without a ceiling if the store has none that isn't revoked: the secret to be shown once,
/// or `None` where there is one already.
///
/// # Errors
/// The name is not one, or the store can't keep it.
pub fn bootstrap(
    store: &dyn TokenStore,
    environment: &str,
    key: &EnvironmentKey,
    name: &str,
    now: Timestamp,
) -> Result<Option<IssuedAdmin>, BootstrapError> {
    let name = TokenName::parse(name)?;
    if store.count_admins()? > 0 {
        return Ok(None);
    }
    let admin = NewAdmin {
        name,
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: now,
        created_by: "bootstrap".to_owned(),
    };
    Ok(Some(issue_admin(store, environment, key, &admin)?))
}

#[cfg(test)]
mod tests {
    use leastgate_policy::Pepper;
    use leastgate_store::SqliteStore;

    use super::*;

    #[test]
    fn only_the_first_is_made_without_one() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod");
        let store = SqliteStore::in_memory("prod", &key).unwrap();
        let first = bootstrap(&store, "prod", &key, "root", Timestamp(1)).unwrap().unwrap();
        let digest = key.digest(first.secret.expose().as_bytes());
        assert_eq!(store.find_admin(&digest).unwrap().map(|admin| admin.role), Some(AdminRole::Admin));
        assert_eq!(bootstrap(&store, "prod", &key, "root", Timestamp(2)).unwrap().map(|issued| issued.record), None);
        store.revoke_admin(first.record.id, Timestamp(3)).unwrap();
        assert!(bootstrap(&store, "prod", &key, "root", Timestamp(4)).unwrap().is_some());
        assert!(matches!(bootstrap(&store, "prod", &key, "Ann", Timestamp(5)), Err(BootstrapError::Name(_))));
    }
}
