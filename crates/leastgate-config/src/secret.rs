//! Secrets: where they are read from, the reading, and the search for tokens in files that must not hold any.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::source::read_bytes;

/// Largest secret.
const MOST_BYTES: u64 = 64 * 1024;

/// Where a secret is read from. It can be shown: the secret itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A file of this name in `$CREDENTIALS_DIRECTORY`, as systemd's `LoadCredential=` provides it.
    Credential(String),
}

/// Why a secret can't be read; says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("the secret in {} {reason}", shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong, as the rest of the sentence.
        reason: String,
    },
    /// The environment variable is not set.
    #[error("the environment variable {}, which should hold the secret, is not set", masked(.0))]
    NoVariable(String),
    /// The environment variable is not UTF-8.
    #[error("the environment variable {}, which should hold the secret, is not UTF-8 text", masked(.0))]
    NotText(String),
    /// `$CREDENTIALS_DIRECTORY` is not set.
    #[error(
        "the secret is the credential {name}, but $CREDENTIALS_DIRECTORY is not set: \
         is the gateway started by systemd with LoadCredential={name}?",
        name = masked(.0)
    )]
    NoCredentials(String),
    /// There is nothing in it.
    #[error("the secret in {0} is empty")]
    Empty(SecretSource),
}

impl SecretSource {
    /// Reads the secret; `env` looks up environment variables. One final line break is not part of it.
    ///
    /// # Errors
    /// If it can't be read, is empty, or is larger than 64 KiB.
    pub fn read(&self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut secret = match self {
            Self::File(path) => read_secret_file(path)?,
            Self::Env(name) => read_variable(name, env)?,
            Self::Credential(name) => {
                let folder = env("CREDENTIALS_DIRECTORY").ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read_secret_file(&Path::new(&folder).join(name))?
            }
        };
        for end in [b'\n', b'\r'] {
            if secret.last() == Some(&end) {
                secret.pop();
            }
        }
        if secret.is_empty() { Err(SecretError::Empty(self.clone())) } else { Ok(secret) }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(&masked(&path.display().to_string())),
            Self::Env(name) => write!(f, "the environment variable {}", masked(name)),
            Self::Credential(name) => write!(f, "$CREDENTIALS_DIRECTORY/{}", masked(name)),
        }
    }
}

/// A path as it can be looked at from anywhere.
fn shown(path: &Path) -> String {
    masked(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string())
}

/// Stands for what is not shown.
const MASK: &str = "[not shown: it looks like the secret itself]";

/// The name of a place without what in it looks like a secret that was written where its place belongs: a long run
/// of letters and digits, as `openssl rand` makes them in hex and in base64.
pub(crate) fn masked(name: &str) -> String {
    const LONGEST: usize = 23;
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '+' | '=');
    name.split_inclusive(|character| !is_part(character))
        .map(|piece| {
            let run = piece.trim_end_matches(|character| !is_part(character));
            if run.len() > LONGEST { format!("{MASK}{}", &piece[run.len()..]) } else { piece.to_owned() }
        })
        .collect()
}

/// Whether a URL with a user and a password stands in `text`: nothing here takes one, so what is written may be meant
/// for another program, and is not repeated.
pub(crate) fn holds_password(text: &str) -> bool {
    let behind_scheme = text.find("://").is_some_and(|at| text[at..].contains('@'));
    let has_both = |word: &str| word.rfind('@').is_some_and(|at| word[..at].contains(':'));
    behind_scheme || text.split_whitespace().any(has_both)
}

/// Whether `text` speaks of secrets.
pub(crate) fn speaks_of_secrets(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pepper", "secret", "password", "token"].iter().any(|word| text.contains(word))
}

fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let bytes = read_bytes(path, MOST_BYTES);
    bytes.map(Zeroizing::new).map_err(|reason| SecretError::File { path: path.to_owned(), reason })
}

fn read_variable(name: &str, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let value = env(name).ok_or_else(|| SecretError::NoVariable(name.to_owned()))?;
    let text = value.into_string().map_err(|_| SecretError::NotText(name.to_owned()))?;
    Ok(Zeroizing::new(text.into_bytes()))
}

/// Where in `text` a token or an admin credential of ours begins, and how long it is: the prefix and a run of at
/// least as many characters as the shortest token has, whatever its checksum.
pub(crate) fn find_token(text: &str) -> Option<(usize, usize)> {
    // Environment of one letter, accessor, secret, checksum and the three `_` between them.
    const SHORTEST: usize = 1 + 10 + 43 + 6 + 3;
    let bytes = text.as_bytes();
    let starts = text.match_indices("lg").map(|(at, _)| at);
    starts.filter(|at| matches!(bytes.get(at + 2..at + 4), Some(b"t_" | b"a_"))).find_map(|at| {
        let run = bytes[at + 4..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        (run >= SHORTEST).then_some((at, run + 4))
    })
}
