//! What takes a gift back that its caller was told not to have: it was being written when their time was over
//! ([`crate::StoreError::InDoubt`]), and must not come alive at the next start.

use leastgate_policy::{Accessor, TokenState};

use crate::record::TokenRecord;

/// How one gift is taken back, if it was kept. Taking it back twice changes nothing, nor does taking back what was not kept;
/// what was taken from the token meanwhile stays taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// A token that was to be made goes, as if it had never been.
    Made(Accessor),
    /// A token that was to be changed is again what it was.
    Changed(Box<TokenRecord>),
    /// A token that was to hand its name over has it again, unless it was revoked; its successor goes.
    Rotated {
        /// The token as it was.
        old: Box<TokenRecord>,
        /// The one that was to have its name.
        successor: Accessor,
    },
}

impl Undo {
    /// A record as the store has it, as it is when this is done; `None`: it is gone.
    #[must_use]
    pub fn apply(&self, record: &TokenRecord) -> Option<TokenRecord> {
        match self {
            Self::Made(accessor) => (record.accessor != *accessor).then(|| record.clone()),
            Self::Changed(old) if old.accessor == record.accessor => Some(TokenRecord {
                owner: old.owner.clone(),
                roles: old.roles.clone(),
                grants: old.grants.clone(),
                restrictions: old.restrictions.clone(),
                limits: old.limits,
                expires: old.expires,
                note: old.note.clone(),
                ..record.clone()
            }),
            Self::Rotated { old, successor } if record.successor == Some(*successor) => Some(TokenRecord {
                successor: old.successor,
                expires: old.expires,
                state: if record.state == TokenState::Rotating { old.state } else { record.state },
                ..record.clone()
            }),
            Self::Rotated { successor, .. } if record.accessor == *successor => None,
            Self::Changed(_) | Self::Rotated { .. } => Some(record.clone()),
        }
    }
}
