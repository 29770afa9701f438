//! Tokens for the suites, after the letter of the scope language (§7) and on code of their own.

use std::fmt;
use std::fs::File;
use std::io::Read;

use crate::clock;

/// The pepper every gateway of the suites is started with.
pub const PEPPER: &str = "testkit-pepper-0123456789abcdef-0123456789abcdef-0123456789abcdef";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token with its secret, and what a policy file says of it.
#[derive(Clone)]
pub struct Token {
    /// The name in the policy file, and the subject.
    pub name: String,
    /// The public id.
    pub accessor: String,
    text: String,
    env: String,
    roles: Vec<String>,
    /// Scopes, and when each grant ends.
    grants: Vec<(String, u64)>,
    state: &'static str,
    created: u64,
    expires: Option<u64>,
    not_before: Option<u64>,
    source_ip: Vec<String>,
    listed: bool,
}

impl Token {
    /// An active token of environment `test` that holds `roles` and lives for a day.
    #[must_use]
    pub fn new(name: &str, roles: &[&str]) -> Self {
        Self::of("test", name, roles)
    }

    /// The same in another environment.
    #[must_use]
    pub fn of(env: &str, name: &str, roles: &[&str]) -> Self {
        let accessor = base62(&random::<8>(), 10);
        let text = compose("lgt", env, &accessor, &random::<32>());
        let created = clock::now() - 3600;
        Self {
            name: name.to_owned(),
            accessor,
            text,
            env: env.to_owned(),
            roles: roles.iter().map(ToString::to_string).collect(),
            grants: Vec::new(),
            state: "active",
            created,
            expires: Some(created + 86_400),
            not_before: None,
            source_ip: Vec::new(),
            listed: true,
        }
    }

    /// A credential of the admin API, in no table.
    #[must_use]
    pub fn admin(name: &str) -> Self {
        let token = Self::new(name, &[]).unlisted();
        let text = compose("lga", "test", &token.accessor, &random::<32>());
        Self { text, ..token }
    }

    /// In another state: `disabled`, `revoked`, `rotating`.
    #[must_use]
    pub fn in_state(mut self, state: &'static str) -> Self {
        self.state = state;
        self
    }

    /// Whose life ended a minute ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expires = Some(clock::now() - 60);
        self
    }

    /// Whose life ends in `seconds`.
    #[must_use]
    pub fn expiring_in(mut self, seconds: u64) -> Self {
        self.expires = Some(clock::now() + seconds);
        self
    }

    /// Which also holds `scope`, for `seconds`.
    #[must_use]
    pub fn granted(mut self, scope: &str, seconds: u64) -> Self {
        self.grants.push((scope.to_owned(), clock::now() + seconds));
        self
    }

    /// Valid only in an hour from now.
    #[must_use]
    pub fn not_yet(mut self) -> Self {
        self.not_before = Some(clock::now() + 3600);
        self
    }

    /// Valid only from `network`.
    #[must_use]
    pub fn only_from(mut self, network: &str) -> Self {
        self.source_ip.push(network.to_owned());
        self
    }

    /// A token nobody issued: well-formed, and in no table.
    #[must_use]
    pub fn unlisted(mut self) -> Self {
        self.listed = false;
        self
    }

    /// Whether the policy file names it.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The secret: the whole token as a client sends it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// The credential's field line, without line end.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Authorization: Bearer {}", self.text)
    }

    /// Its entry under `tokens:` of a policy file, a line of YAML.
    #[must_use]
    pub fn declaration(&self) -> String {
        let mut entry = format!(
            "  - {{ accessor: {}, name: {}, owner: team-test, digest: \"{}\", env: {}, roles: [{}], created: {}, state: {}",
            quoted(&self.accessor),
            self.name,
            digest(&self.text, &self.env, PEPPER),
            self.env,
            self.roles.join(", "),
            quoted(&clock::rfc3339(self.created)),
            self.state,
        );
        if let Some(expires) = self.expires {
            entry += &format!(", expires: {}", quoted(&clock::rfc3339(expires)));
        }
        if !self.grants.is_empty() {
            let grant = |(scope, end): &(String, u64)| {
                format!("{{ scope: {scope}, expires: {} }}", quoted(&clock::rfc3339(*end)))
            };
            entry += &format!(", grants: [{}]", self.grants.iter().map(grant).collect::<Vec<_>>().join(", "));
        }
        entry + &self.restrictions() + " }\n"
    }

    fn restrictions(&self) -> String {
        let mut parts = Vec::new();
        if !self.source_ip.is_empty() {
            parts.push(format!("source_ip: [{}]", self.source_ip.join(", ")));
        }
        if let Some(not_before) = self.not_before {
            parts.push(format!("not_before: {}", quoted(&clock::rfc3339(not_before))));
        }
        if parts.is_empty() { String::new() } else { format!(", restrictions: {{ {} }}", parts.join(", ")) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// `<kind>_<env>_<accessor>_<secret:43>_<crc:6>`.
#[must_use]
pub fn compose(kind: &str, env: &str, accessor: &str, secret: &[u8; 32]) -> String {
    let body = format!("{kind}_{env}_{accessor}_{}", base62(secret, 43));
    let check = base62(&crc32(body.as_bytes()).to_be_bytes(), 6);
    format!("{body}_{check}")
}

/// What is stored of a token: its keyed BLAKE3 under the environment's key, as a policy file writes it.
#[must_use]
pub fn digest(token: &str, env: &str, pepper: &str) -> String {
    let key = blake3::derive_key(&format!("leastgate token v1 {env}"), pepper.as_bytes());
    format!("blake3:{}", blake3::keyed_hash(&key, token.as_bytes()).to_hex())
}

/// A number given as big-endian bytes, in base 62, left-padded with `0`.
fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for byte in &mut number {
            let value = rest * 256 + usize::from(*byte);
            *byte = u8::try_from(value / 62).expect("a quotient below 256, for the rest was below 62");
            rest = value % 62;
        }
        *digit = ALPHABET[rest];
    }
    String::from_utf8(digits).expect("base 62 is ASCII")
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("/dev/urandom can be read");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_has_the_check_value_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn base62_pads_and_counts() {
        assert_eq!(base62(&[0, 61], 3), "00z");
        assert_eq!(base62(&[1, 0], 3), "048");
        assert_eq!(base62(&[0xff; 32], 43).len(), 43);
    }

    #[test]
    fn a_token_has_its_five_parts_and_does_not_print() {
        let token = Token::new("reader", &["reader"]);
        let lengths: Vec<_> = token.secret().split('_').map(str::len).collect();
        assert_eq!(lengths, [3, 4, 10, 43, 6]);
        assert!(!format!("{token:?}").contains(&token.secret()[20..32]));
    }
}
