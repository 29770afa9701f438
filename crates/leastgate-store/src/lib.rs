//! Token and admin records that survive a restart.
//!
//! [`TokenStore`] is the one seam: the control plane changes records through it, the gateway loads its token
//! table from it at start. [`SqliteStore`] keeps them in one file of the state directory, and `demo` keeps
//! them in memory through the very same code. No request on the data plane ever waits for anything here.
//!
//! Three promises: a change is acknowledged only after it is on disk; every queue is bounded and every wait
//! has a deadline; and a file that is not ours, from a newer release, of another environment or under another
//! pepper is refused with what to do, never touched.
//!
//! Read [`record`] (what is kept), [`TokenStore`] (what can be done), [`draw`] (where secrets come from), and
//! then the `sqlite` folder from `writer` down.

pub mod admin;
pub mod archive;
pub mod draw;
mod error;
pub mod pepper;
pub mod query;
pub mod record;
mod restored;
pub mod rotation;
mod sqlite;
mod state_dir;
mod store;
mod tombstone;
mod undo;
pub mod usage;

pub use admin::{AdminRecord, AdminRole, MayGrant, NameSet, NewAdmin};
pub use draw::{IssuedAdmin, IssuedToken, issue_admin, issue_token, rotate_token};
pub use error::StoreError;
pub use pepper::{MadeUnder, Redigested, StragglerCounts};
pub use query::{MAX_PAGE, SortKey, StateFilter, TimeFilter, TokenPage, TokenQuery};
pub use record::{Change, InvalidName, LastUse, NewToken, StateChange, TokenGrant, TokenName, TokenRecord};
pub use restored::{Hand, Restored, RestoredBy, Revocations};
pub use rotation::{OldEnd, Rotated, Rotation};
pub use sqlite::{SqliteOptions, SqliteStore};
pub use state_dir::{StateDir, StateDirError};
pub use store::TokenStore;
pub use tombstone::{Taken, Tombstone};
pub use undo::Undo;
pub use usage::{UsageBatch, UsageDelta, UsageRow};
