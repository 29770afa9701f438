//! Drawing accessors and secrets, and making records of them.
//!
//! The plain text of a secret exists between [`draw_secret`] and the one answer that carries it; its bytes are
//! overwritten when they go. The store gets the digest.

use leastgate_policy::token::mint;
use leastgate_policy::{Accessor, EnvironmentKey, Secret, TokenKind, TokenState};
use zeroize::Zeroizing;

use crate::admin::{AdminRecord, NewAdmin};
use crate::error::StoreError;
use crate::pepper::MadeUnder;
use crate::record::{NewToken, TokenRecord};
use crate::rotation::{OldEnd, Rotated, Rotation};
use crate::store::TokenStore;

/// How often something is drawn before the generator is taken to be broken: two of 2^64 never meet twice.
const DRAWS: usize = 4;

/// A token that was just made.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// As it is kept.
    pub record: TokenRecord,
    /// To be shown once.
    pub secret: Secret,
}

/// An administrator that was just made.
#[derive(Clone, Debug)]
pub struct IssuedAdmin {
    /// As it is kept.
    pub record: AdminRecord,
    /// To be shown once.
    pub secret: Secret,
}

/// Draws a token, keeps it in `store` and returns it with its secret. `environment` and `key` are the store's.
///
/// # Errors
/// As [`TokenStore::create_token`], or `NoRandomness`.
pub fn issue_token(
    store: &dyn TokenStore,
    environment: &str,
    key: &EnvironmentKey,
    token: &NewToken,
) -> Result<IssuedToken, StoreError> {
    redraw(|| {
        let (record, secret) = draw_token(environment, key, token.clone())?;
        Ok(IssuedToken { record: store.create_token(record)?, secret })
    })
}

/// Draws a token that takes the name of `old` over, and returns it with its secret, and all of them as they are now.
///
/// # Errors
/// As [`TokenStore::rotate_token`], or `NoRandomness`.
pub fn rotate_token(
    store: &dyn TokenStore,
    key: &EnvironmentKey,
    old: &TokenRecord,
    token: &NewToken,
    end: &OldEnd,
) -> Result<(Secret, Rotated), StoreError> {
    redraw(|| {
        let (successor, secret) = draw_token(&old.env, key, token.clone())?;
        let rotation = Rotation { old: old.accessor, successor, end: end.clone(), expected: Some(old.version) };
        Ok((secret, store.rotate_token(rotation)?))
    })
}

/// Draws an administrator's credential, keeps its record in `store` and returns both.
///
/// # Errors
/// As [`TokenStore::create_admin`], or `NoRandomness`.
pub fn issue_admin(
    store: &dyn TokenStore,
    environment: &str,
    key: &EnvironmentKey,
    admin: &NewAdmin,
) -> Result<IssuedAdmin, StoreError> {
    redraw(|| {
        let NewAdmin { name, role, may_grant, created, created_by } = admin.clone();
        let id = draw_accessor()?;
        let secret = draw_secret(TokenKind::Admin, environment, id)?;
        let digest = key.digest(secret.expose().as_bytes());
        let pepper_id = pepper_id(key);
        let record = AdminRecord { id, digest, name, role, may_grant, created, created_by, revoked: None, pepper_id };
        Ok(IssuedAdmin { record: store.create_admin(record)?, secret })
    })
}

fn redraw<T>(mut attempt: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 1..DRAWS {
        match attempt() {
            Err(StoreError::AlreadyDrawn) => {}
            done => return done,
        }
    }
    attempt()
}

/// Draws a token without keeping it: its record, and the secret to hand out. For bulk creation, and for tokens
/// that are declared in a policy file.
///
/// # Errors
/// `NoRandomness`.
pub fn draw_token(
    environment: &str,
    key: &EnvironmentKey,
    token: NewToken,
) -> Result<(TokenRecord, Secret), StoreError> {
    let accessor = draw_accessor()?;
    let secret = draw_secret(TokenKind::Token, environment, accessor)?;
    let record = TokenRecord {
        accessor,
        digest: key.digest(secret.expose().as_bytes()),
        name: token.name,
        env: environment.to_owned(),
        owner: token.owner,
        roles: token.roles,
        grants: token.grants,
        restrictions: token.restrictions,
        limits: token.limits,
        created: token.created,
        created_by: token.created_by,
        expires: token.expires,
        state: TokenState::Active,
        state_changed: None,
        pepper_id: pepper_id(key),
        successor: None,
        parent: token.parent,
        is_canary: token.is_canary,
        note: token.note,
        last_use: None,
        version: 1,
    };
    Ok((record, secret))
}

/// A fresh accessor. It always holds an upper-case letter, which a name never does: what people type is one or
/// the other, and nobody can name a token after another's accessor.
///
/// # Errors
/// `NoRandomness`.
pub fn draw_accessor() -> Result<Accessor, StoreError> {
    loop {
        let mut random = [0; 8];
        fill(&mut random)?;
        let accessor = Accessor::from_random(u64::from_le_bytes(random));
        if accessor.to_bytes().iter().any(u8::is_ascii_uppercase) {
            return Ok(accessor);
        }
    }
}

/// A fresh credential of 256 random bits.
///
/// # Errors
/// `NoRandomness`.
pub fn draw_secret(kind: TokenKind, environment: &str, accessor: Accessor) -> Result<Secret, StoreError> {
    let mut random = Zeroizing::new([0; 32]);
    fill(&mut *random)?;
    Ok(mint(kind, environment, accessor, &random))
}

/// Names a pepper without saying anything about it: the first 8 hex digits of the key's check value.
#[must_use]
pub fn pepper_id(key: &EnvironmentKey) -> String {
    blake3::Hash::from_bytes(key.check_value()).to_hex().chars().take(8).collect()
}

/// The pepper that a `pepper_id` names, as `key` knows them.
#[must_use]
pub fn made_under(id: &str, key: &EnvironmentKey) -> MadeUnder {
    if id == pepper_id(key) {
        return MadeUnder::Current;
    }
    let is_previous = key.previous().is_some_and(|previous| id == pepper_id(&previous));
    if is_previous { MadeUnder::Previous } else { MadeUnder::Unknown }
}

pub(crate) fn fill(buffer: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(buffer).map_err(|error| StoreError::NoRandomness { detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use leastgate_policy::token::inspect;

    use super::*;
    use crate::record::TokenName;

    #[test]
    fn accessors_are_never_names_and_never_repeat() {
        let drawn: HashSet<_> = (0..2000).map(|_| draw_accessor().unwrap()).collect();
        assert_eq!(drawn.len(), 2000);
        assert!(drawn.iter().all(|accessor| TokenName::parse(&accessor.to_string()).is_err()));
    }

    #[test]
    fn a_secret_says_what_it_is_and_hides_the_rest() {
        let accessor = draw_accessor().unwrap();
        let secret = draw_secret(TokenKind::Admin, "prod", accessor).unwrap();
        let parsed = inspect(secret.expose().as_bytes()).unwrap();
        assert_eq!((parsed.kind, parsed.environment, parsed.accessor), (TokenKind::Admin, "prod", accessor));
        assert!(!format!("{secret:?}").contains(&accessor.to_string()));
    }

    #[test]
    fn what_was_drawn_before_is_drawn_again_but_not_for_ever() {
        let mut left = 2;
        let second = redraw(|| {
            left -= 1;
            if left == 0 { Ok("drawn") } else { Err(StoreError::AlreadyDrawn) }
        });
        assert_eq!(second, Ok("drawn"));
        let mut attempts = 0;
        let never: Result<(), _> = redraw(|| {
            attempts += 1;
            Err(StoreError::AlreadyDrawn)
        });
        assert_eq!((never, attempts), (Err(StoreError::AlreadyDrawn), DRAWS));
    }
}
