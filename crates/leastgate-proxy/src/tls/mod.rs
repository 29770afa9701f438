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
//!   were given; nothing is kept for a client. There is no early data (0-RTT): it can be replayed.
//! - Where clients show certificates nothing is resumed. A resumed session inherits the authentication of its first
//!   handshake (RFC 8446 §2.2): rustls 0.23 puts the chain into the ticket and takes it from there unseen by the verifier,
//!   for the 12 hours a ticket lives. An authority that is removed takes the keys of the tickets along, but a certificate
//!   that ends meanwhile would be let in for half a day after its end, and where identities live an hour (SPIFFE) their end
//!   is the only revocation there is.
//! - Who has certificates to give here reads them; this crate reads no file.

mod certificate;
mod connection;
mod error;
mod pem;
mod server;

pub(crate) use certificate::Certificate;
pub use certificate::{CertificateView, KeyPair};
pub use connection::{Alpn, ConnInfo, PeerIdentity};
pub use error::{HandshakeError, TlsError};
pub use pem::Pem;
pub use server::{CertificateSet, ServerCertificates, ServerTls};
