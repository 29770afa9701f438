//! The first administrator, where there is none: made by the gateway itself, or with a credential that its operator gives.

use leastgate_policy::token::{CodecError, inspect};
use leastgate_policy::{Accessor, EnvironmentKey, Timestamp, TokenKind};
use leastgate_store::draw::pepper_id;
use leastgate_store::{AdminRecord, AdminRole, InvalidName, MayGrant, NewAdmin, StoreError, TokenName, TokenStore};

/// Why there is no first administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The name won't do.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The store can't keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credential given can't be the first administrator's.
    #[error(transparent)]
    Unfit(#[from] UnfitCredential),
}

/// Why a credential that was given can't be the first administrator's. The text itself is in none of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitCredential {
    /// No credential of ours, or with a slip in it.
    #[error("it is no admin credential: {0}; it is lga_… whole, as `leastgate admin create --declare` prints it")]
    Unreadable(#[from] CodecError),
    /// A token of the data plane.
    #[error(
        "it is a token of the data plane (lgt_…); `leastgate admin create --declare` draws an admin credential (lga_…)"
    )]
    DataToken,
    /// One of another environment.
    #[error("it is of the environment `{of}`, and this gateway serves `{here}`")]
    OtherEnvironment {
        /// Where it belongs.
        of: String,
        /// Where it was given.
        here: String,
    },
    /// One whose public id nobody draws, so that a name may be the same.
    #[error("it was not drawn by `leastgate admin create --declare`: its public id could be an administrator's name")]
    NotDrawn,
    /// One that was revoked here.
    #[error("it was revoked: draw another with `leastgate admin create --declare`")]
    Revoked,
}

/// Makes an administrator without a ceiling of whoever has this credential, if the store has none that isn't revoked: `None`
/// where there is one, whatever was given.
///
/// # Errors
/// The name is not one, the credential is not fit for it, or the store can't keep it.
pub fn bootstrap_given(
    store: &dyn TokenStore,
    environment: &str,
    key: &EnvironmentKey,
    credential: &[u8],
    name: &str,
    now: Timestamp,
) -> Result<Option<AdminRecord>, BootstrapError> {
    let NewAdmin { name, role, may_grant, created, created_by } = first(name, now)?;
    if store.count_admins()? > 0 {
        return Ok(None);
    }
    let id = judge(credential, environment)?;
    let digest = key.digest(credential);
    let pepper_id = pepper_id(key);
    let record = AdminRecord { id, digest, name, role, may_grant, created, created_by, revoked: None, pepper_id };
    match store.create_admin(record) {
        // Nobody lives, so whoever has this id was revoked, and what was revoked stays so.
        Err(StoreError::AlreadyDrawn) => Err(UnfitCredential::Revoked.into()),
        kept => Ok(Some(kept?)),
    }
}

fn first(name: &str, now: Timestamp) -> Result<NewAdmin, InvalidName> {
    Ok(NewAdmin {
        name: TokenName::parse(name)?,
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: now,
        created_by: "bootstrap".to_owned(),
    })
}

/// The public id of a credential that may be the first administrator's.
fn judge(credential: &[u8], environment: &str) -> Result<Accessor, UnfitCredential> {
    let parsed = inspect(credential)?;
    if parsed.kind != TokenKind::Admin {
        return Err(UnfitCredential::DataToken);
    }
    if parsed.environment != environment {
        let (of, here) = (parsed.environment.to_owned(), environment.to_owned());
        return Err(UnfitCredential::OtherEnvironment { of, here });
    }
    let is_drawn = parsed.accessor.to_bytes().iter().any(u8::is_ascii_uppercase);
    if is_drawn { Ok(parsed.accessor) } else { Err(UnfitCredential::NotDrawn) }
}

#[cfg(test)]
mod tests {
    use leastgate_policy::Pepper;
    use leastgate_policy::token::mint;
    use leastgate_store::SqliteStore;

    use super::*;

    #[test]
    fn a_credential_that_is_given_is_the_first_ones_if_there_is_none_and_it_fits() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod");
        let store = SqliteStore::in_memory("prod", &key).unwrap();
        let mint = |kind, environment, id: &str| mint(kind, environment, id.parse().unwrap(), &[7; 32]);
        let give = |text: &[u8]| bootstrap_given(&store, "prod", &key, text, "root", Timestamp(1));
        let good = mint(TokenKind::Admin, "prod", "A000000001");
        let good = good.expose().as_bytes();
        let typo = [&good[..good.len() - 1], b"-"].concat();
        let slip = good.iter().rev().map(|byte| if *byte == b'0' { b'1' } else { *byte }).rev().collect::<Vec<_>>();
        for (text, unfit) in [
            (&b"hunter2"[..], UnfitCredential::Unreadable(CodecError::Shape)),
            (&typo, UnfitCredential::Unreadable(CodecError::Shape)),
            (&slip, UnfitCredential::Unreadable(CodecError::Checksum)),
            (mint(TokenKind::Token, "prod", "A000000001").expose().as_bytes(), UnfitCredential::DataToken),
            (
                mint(TokenKind::Admin, "dev", "A000000001").expose().as_bytes(),
                UnfitCredential::OtherEnvironment { of: "dev".into(), here: "prod".into() },
            ),
            (mint(TokenKind::Admin, "prod", "a000000001").expose().as_bytes(), UnfitCredential::NotDrawn),
        ] {
            assert_eq!(give(text).unwrap_err(), BootstrapError::Unfit(unfit));
        }
        assert_eq!(store.count_admins(), Ok(0));
        let record = give(good).unwrap().unwrap();
        assert_eq!((record.role, record.name.as_str(), record.digest), (AdminRole::Admin, "root", key.digest(good)));
        assert_eq!(give(good), Ok(None), "there is one");
        assert_eq!(give(b"hunter2"), Ok(None), "it is not looked at");
        let misnamed = bootstrap_given(&store, "prod", &key, good, "Ann", Timestamp(1));
        assert!(matches!(misnamed, Err(BootstrapError::Name(_))));
        store.revoke_admin(record.id, Timestamp(2)).unwrap();
        assert_eq!(give(good).unwrap_err(), BootstrapError::Unfit(UnfitCredential::Revoked));
        assert_eq!(store.count_admins(), Ok(0));
    }
}
