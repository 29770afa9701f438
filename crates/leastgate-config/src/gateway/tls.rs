//! TLS of the data listener and of the admin listener: their keys, and the files they name. What is in those is for those to judge who serve it.

use std::path::{Path, PathBuf};

use super::read::Paths;
use crate::diagnostic::Fault;
use crate::notation::WORDS;
use crate::shape::{Field, Shape, View, optional, required};
use crate::source::read_bytes;

/// Largest file of certificates, or of a key.
const MOST_BYTES: u64 = 1024 * 1024;

/// What a listener shows to clients, and asks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// For clients that name no host (SNI), or one that no other certificate is for.
    pub default: CertificateFiles,
    /// Chosen by the DNS names in them.
    pub sni: Vec<CertificateFiles>,
    /// The authorities that sign clients' certificates, which are demanded then.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the leaf first.
    pub cert: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// The keys under `listeners.data.tls`.
pub(super) const LISTENER: &[Field] = &[
    CERT,
    KEY,
    optional(
        "client_ca",
        Shape::Text(&WORDS),
        "PEM file of the authorities that sign clients' certificates; clients must show one then.",
    ),
    optional(
        "sni",
        Shape::List(&Shape::Object(&[CERT, KEY]), 0, None),
        "Further certificates, each shown to clients that ask for a DNS name in it.",
    ),
];

/// The keys under `listeners.admin.tls`: mutual TLS or none.
pub(super) const ADMIN: &[Field] = &[
    CERT,
    KEY,
    required(
        "client_ca",
        Shape::Text(&WORDS),
        "PEM file of the authorities that sign administrators' certificates; clients must show one, and a credential.",
    ),
];

const CERT: Field = required("cert", Shape::Text(&WORDS), "PEM file of the certificate and its intermediates.");
const KEY: Field = required("key", Shape::Text(&WORDS), "PEM file of the certificate's private key.");

/// Reads a file of certificates, or of a key.
///
/// # Errors
/// Why it can't be had, as the rest of a sentence that begins with its name.
pub fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    read_bytes(path, MOST_BYTES)
}

pub(super) fn listener(view: View<'_>, paths: Paths<'_>) -> Result<ListenerTls, Fault> {
    let sni = view.find("sni").into_iter().flat_map(View::items).map(|view| certificate(view, paths));
    Ok(ListenerTls {
        default: certificate(view, paths)?,
        sni: sni.collect::<Result<_, _>>()?,
        client_ca: view.find("client_ca").map(|view| paths.read(view)).transpose()?,
    })
}

pub(super) fn certificate(view: View<'_>, paths: Paths<'_>) -> Result<CertificateFiles, Fault> {
    Ok(CertificateFiles { cert: paths.read(view.get("cert")?)?, key: paths.read(view.get("key")?)? })
}
