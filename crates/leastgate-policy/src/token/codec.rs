//! The text of a token: `lgt_<env>_<accessor:10>_<secret:43>_<crc:6>` (§7).
//!
//! A fixed prefix that scanners find, the environment in sight, a public accessor, 256 bits of secret, and a CRC32
//! that rejects typos without a look-up. Everything after the prefix is base62, left-padded with `0`.

use memchr::memmem;
use zeroize::Zeroizing;

use super::accessor::{ALPHABET, Accessor, digit};
use super::secret::Secret;

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `lgt_`: a token of the data plane.
    Token,
    /// `lga_`: a credential of the admin API.
    Admin,
}

/// What the text of a token says about itself. Nothing of it is verified but the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// What it is for.
    pub kind: TokenKind,
    /// The environment it names.
    pub environment: &'a str,
    /// Its public id.
    pub accessor: Accessor,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not the shape of one.
    #[error("not the shape of a token")]
    Shape,
    /// The shape of one, with a wrong checksum: a typo, or made up.
    #[error("the token's checksum is wrong")]
    Checksum,
}

const SECRET_LEN: usize = 43;
const CRC_LEN: usize = 6;
/// Longest environment name in bytes.
const MAX_ENVIRONMENT: usize = 16;

impl TokenKind {
    /// `lgt_` or `lga_`.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Token => "lgt_",
            Self::Admin => "lga_",
        }
    }
}

/// Whether a name may be an environment's: `[a-z][a-z0-9]{0,15}`.
#[must_use]
pub fn is_environment_name(name: &str) -> bool {
    (1..=MAX_ENVIRONMENT).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Writes the token of 256 random bits. `environment` must be an environment's name.
#[must_use]
pub fn mint(kind: TokenKind, environment: &str, accessor: Accessor, secret: &[u8; 32]) -> Secret {
    let digits = encode_secret(secret);
    let mut text = String::with_capacity(4 + MAX_ENVIRONMENT + 1 + Accessor::LEN + 1 + SECRET_LEN + 1 + CRC_LEN);
    text.push_str(kind.prefix());
    text.push_str(environment);
    text.push('_');
    text.extend(accessor.to_bytes().map(char::from));
    text.push('_');
    text.extend(digits.iter().copied().map(char::from));
    let crc = encode_crc(crc32fast::hash(text.as_bytes()));
    text.push('_');
    text.extend(crc.map(char::from));
    Secret::new(text)
}

/// Reads a token's text and checks its checksum.
///
/// # Errors
/// Whether its shape or its checksum is wrong.
pub fn inspect(text: &[u8]) -> Result<Parsed<'_>, CodecError> {
    let text = std::str::from_utf8(text).map_err(|_| CodecError::Shape)?;
    let kind = [TokenKind::Token, TokenKind::Admin]
        .into_iter()
        .find(|kind| text.starts_with(kind.prefix()))
        .ok_or(CodecError::Shape)?;
    let mut parts = text[kind.prefix().len()..].split('_');
    let (Some(environment), Some(accessor), Some(secret), Some(crc), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(CodecError::Shape);
    };
    let is_base62 = |part: &str| part.bytes().all(|byte| digit(byte).is_some());
    if !is_environment_name(environment)
        || secret.len() != SECRET_LEN
        || !is_base62(secret)
        || crc.len() != CRC_LEN
        || !is_base62(crc)
    {
        return Err(CodecError::Shape);
    }
    let accessor = accessor.parse().map_err(|_| CodecError::Shape)?;
    let covered = &text[..text.len() - CRC_LEN - 1];
    if encode_crc(crc32fast::hash(covered.as_bytes())) != *crc.as_bytes() {
        return Err(CodecError::Checksum);
    }
    Ok(Parsed { kind, environment, accessor })
}

/// Whether a token with a valid checksum stands anywhere in `bytes`.
pub(crate) fn contains_token(bytes: &[u8]) -> bool {
    tokens_in(bytes).next().is_some()
}

/// Every token with a valid checksum that stands anywhere in `bytes`, whatever is around it.
pub(crate) fn tokens_in(bytes: &[u8]) -> impl Iterator<Item = (TokenKind, &[u8])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(start) = find_prefix(&bytes[from..]).map(|at| at + from) {
            from = start + 1;
            if let Some(text) = token_at(&bytes[start..])
                && let Ok(parsed) = inspect(text)
            {
                return Some((parsed.kind, text));
            }
        }
        None
    })
}

/// What would be the token that begins here, whatever follows it.
fn token_at(bytes: &[u8]) -> Option<&[u8]> {
    let environment = bytes.get(4..)?.iter().take(MAX_ENVIRONMENT + 1).position(|byte| *byte == b'_')?;
    bytes.get(..4 + environment + 1 + Accessor::LEN + 1 + SECRET_LEN + 1 + CRC_LEN)
}

/// Appends `text` with every run that begins like a token replaced: by `lgt_<env>_<accessor>_REDACTED` where it
/// says so much, else by `lgt_REDACTED`, whatever its checksum.
pub fn redact_into(text: &str, out: &mut String) {
    let mut copied = 0;
    for (start, end) in runs(text.as_bytes()) {
        out.push_str(&text[copied..start]);
        push_redacted(&text[start..end], out);
        copied = end;
    }
    out.push_str(&text[copied..]);
}

fn push_redacted(run: &str, out: &mut String) {
    let (prefix, rest) = run.split_at(4);
    let mut parts = rest.split('_');
    out.push_str(prefix);
    if let (Some(environment), Some(accessor)) = (parts.next(), parts.next())
        && is_environment_name(environment)
        && accessor.parse::<Accessor>().is_ok()
        && parts.next().is_some()
    {
        out.push_str(environment);
        out.push('_');
        out.push_str(accessor);
        out.push('_');
    }
    out.push_str("REDACTED");
}

/// Where a prefix of ours and what may follow it stands: `lgt_` or `lga_`, then `[0-9A-Za-z_]*`.
fn runs(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = find_prefix(&bytes[from..])? + from;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let len = bytes[start..].iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len() - start);
        from = start + len;
        Some((start, from))
    })
}

fn find_prefix(bytes: &[u8]) -> Option<usize> {
    memmem::find_iter(bytes, b"lg").find(|at| matches!(bytes.get(at + 2..at + 4), Some(b"t_" | b"a_")))
}

fn encode_secret(secret: &[u8; 32]) -> Zeroizing<[u8; SECRET_LEN]> {
    let mut number = Zeroizing::new(*secret);
    let mut digits = Zeroizing::new([b'0'; SECRET_LEN]);
    for place in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or_default();
            remainder = value % 62;
        }
        *place = ALPHABET[remainder as usize];
    }
    digits
}

fn encode_crc(mut crc: u32) -> [u8; CRC_LEN] {
    let mut digits = [b'0'; CRC_LEN];
    for place in digits.iter_mut().rev() {
        *place = ALPHABET[(crc % 62) as usize];
        crc /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Secret {
        mint(TokenKind::Token, "prod", "0aZ9000001".parse().unwrap(), &[7; 32])
    }

    /// Test vectors for other implementations; computed apart from this code.
    #[test]
    fn vectors() {
        let zero = mint(TokenKind::Token, "prod", Accessor::from_random(0), &[0; 32]);
        assert_eq!(zero.expose(), "lgt_prod_0000000000_0000000000000000000000000000000000000000000_3meQ2X");
        let full = mint(TokenKind::Admin, "staging2", Accessor::from_random(Accessor::COUNT - 1), &[0xFF; 32]);
        assert_eq!(full.expose(), "lga_staging2_zzzzzzzzzz_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1_3oWAhK");
    }

    #[test]
    fn it_reads_what_it_writes() {
        let token = sample();
        let parsed = inspect(token.expose().as_bytes()).unwrap();
        assert_eq!(
            (parsed.kind, parsed.environment, parsed.accessor.to_string().as_str()),
            (TokenKind::Token, "prod", "0aZ9000001")
        );
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let token = sample();
        for at in 0..token.expose().len() {
            let mut bytes = token.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(inspect(&bytes).is_err(), "at {at}");
        }
        assert!(inspect(&token.expose().as_bytes()[1..]).is_err());
        assert!(inspect(format!("{} ", token.expose()).as_bytes()).is_err());
        assert!(inspect(format!("{}_", token.expose()).as_bytes()).is_err());
    }

    #[test]
    fn tokens_are_found_and_redacted_anywhere() {
        let token = sample();
        let text = format!("lg?a={}&b=lgt_&c=lga_x", token.expose());
        assert!(contains_token(text.as_bytes()));
        for around in
            [format!("lgt_{}", token.expose()), format!("{}_x", token.expose()), format!("x{}9", token.expose())]
        {
            assert!(contains_token(around.as_bytes()), "{around}");
        }
        let mut redacted = String::new();
        redact_into(&text, &mut redacted);
        assert_eq!(redacted, "lg?a=lgt_prod_0aZ9000001_REDACTED&b=lgt_REDACTED&c=lga_REDACTED");
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert_eq!(format!("{:?}", sample()), "Secret(REDACTED)");
    }
}
