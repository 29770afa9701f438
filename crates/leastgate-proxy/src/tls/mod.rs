//! TLS towards clients, with rustls and one provider, aws-lc-rs.
//!
//! | file | what |
//! |---|---|
//! | `server.rs` | [`ServerTls`]: the acceptor that workers share, its handshake with a deadline, its replacement |
//! | `certificate.rs` | a certificate with its key, and the choice among them by SNI |
//! | `connection.rs` | what a finished handshake says of a client |
//! | `pem.rs` | PEM text to what rustls takes |
//! | `error.rs` | what is wrong with a certificate, and why a handshake failed |
//!
//! - TLS 1.2 and 1.3; ALPN offers `h2`, then `http/1.1`. A client that offers only others is refused (RFC 7301 §3.2).
//! - The certificate is the one whose name the client asks for: an exact name before `*.`, which stands for one label;
//!   the default one where the client names none, or one that is unknown.
//! - Replacement is atomic: a handshake uses what was in force when it began, and established connections live on. What
//!   can't be used replaces nothing.
//! - Sessions are resumed by tickets whose keys rotate, and no longer than the certificates are in force under which they
//!   were given; nothing is kept for a client. Where clients show certificates
//!   nothing is resumed: rustls takes a resumed session's certificate for verified, so an expired one, or one of an
//!   authority that was just removed, would be let in for as long as its ticket lives. There is no early data (0-RTT):
//!   it can be replayed.
//! - Who has certificates to give here reads them; this crate reads no file.

mod certificate;
mod connection;
mod error;
mod pem;
mod server;

pub use certificate::{CertificateView, KeyPair};
pub use connection::{Alpn, ConnInfo, PeerIdentity};
pub use error::{HandshakeError, TlsError};
pub use pem::Pem;
pub use server::{CertificateSet, ServerTls};
