//! Takes tokens out of everything that is recorded. A run of `lgt_` or `lga_` and `[0-9A-Za-z_]*`, each character raw or
//! percent-encoded (however often), becomes `lgt_<env>_<accessor>_REDACTED`, or `lgt_REDACTED` if no environment and
//! accessor can be read from it (`lga_…` where it began so). The checksum is not asked: a mistyped token is nearly a token.

/// A token found in recorded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenRun {
    /// How many bytes of the input it takes up.
    pub(crate) len: usize,
    kind: u8,
    public: Public,
}

/// The decoded characters after `lgt_` as far as they may hold environment and accessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Public {
    bytes: [u8; PUBLIC_MAX],
    len: usize,
}

const ENVIRONMENT_MAX: usize = 16;
const ACCESSOR: usize = 10;
const PUBLIC_MAX: usize = ENVIRONMENT_MAX + 1 + ACCESSOR + 1;

/// The token run that begins exactly at the start of `input`.
pub(crate) fn token_run(input: &[u8]) -> Option<TokenRun> {
    let (mut at, mut kind) = (0, b't');
    for expected in [b"l".as_slice(), b"g", b"ta", b"_"] {
        let (byte, width) = unit(&input[at..])?;
        if !expected.contains(&byte) {
            return None;
        }
        if expected.len() > 1 {
            kind = byte;
        }
        at += width;
    }
    let mut public = Public { bytes: [0; PUBLIC_MAX], len: 0 };
    while let Some((byte, width)) = unit(&input[at..]) {
        if !(byte.is_ascii_alphanumeric() || byte == b'_') {
            break;
        }
        public.push(byte);
        at += width;
    }
    Some(TokenRun { len: at, kind, public })
}

impl TokenRun {
    /// Appends what is recorded instead. Only `[0-9A-Za-z_]`, so it needs no escaping anywhere.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[b'l', b'g', self.kind, b'_']);
        if let Some(public) = self.public.environment_and_accessor() {
            out.extend_from_slice(public);
            out.push(b'_');
        }
        out.extend_from_slice(b"REDACTED");
    }
}

impl Public {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// `<env>_<accessor>`, if both stand there and a `_` follows.
    fn environment_and_accessor(&self) -> Option<&[u8]> {
        let text = &self.bytes[..self.len];
        let env = text.iter().position(|&byte| byte == b'_')?;
        let named = text.first()?.is_ascii_lowercase()
            && text[..env].iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let end = env + 1 + ACCESSOR;
        let accessor = text.get(env + 1..end)?;
        let whole = accessor.iter().all(u8::is_ascii_alphanumeric) && text.get(end) == Some(&b'_');
        (named && env <= ENVIRONMENT_MAX && whole).then(|| &text[..end])
    }
}

/// The first character of `input` with every layer of percent-encoding taken off (`%6C`, `%256C`, `%25%36%43`), and its
/// width.
fn unit(input: &[u8]) -> Option<(u8, usize)> {
    peel(input, NESTED)
}

/// How deep escapes are looked for in the digits of others: each layer could double the work.
const NESTED: u8 = 4;

fn peel(input: &[u8], nested: u8) -> Option<(u8, usize)> {
    let (mut byte, mut at) = (*input.first()?, 1);
    while byte == b'%'
        && let Some((high, high_width)) = hex_digit(&input[at..], nested)
        && let Some((low, low_width)) = hex_digit(&input[at + high_width..], nested)
    {
        byte = high << 4 | low;
        at += high_width + low_width;
    }
    Some((byte, at))
}

/// The value of a hexadecimal digit, raw or escaped, and its width.
fn hex_digit(input: &[u8], nested: u8) -> Option<(u8, usize)> {
    let (byte, width) = match (input.first()?, nested.checked_sub(1)) {
        (b'%', Some(nested)) => peel(input, nested)?,
        (plain, _) => (*plain, 1),
    };
    let digit = char::from(byte).to_digit(16)?;
    Some((u8::try_from(digit).ok()?, width))
}

/// `text` with every token taken out. For messages off the hot path; the JSON writer redacts by itself.
pub fn redact(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if let Some(run) = matches!(byte, b'l' | b'%').then(|| token_run(&bytes[at..])).flatten() {
            run.write(&mut out);
            at += run.len;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    // Runs are whole ASCII characters, so what is left of the text is still UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expect: &str) {
        assert_eq!(redact(input), expect);
    }

    #[test]
    fn tokens_are_replaced_by_what_is_public_of_them() {
        check("/a/lgt_prod_0123456789_SECRETsecret_abc123/b", "/a/lgt_prod_0123456789_REDACTED/b");
        check("lga_prod_0123456789_x", "lga_prod_0123456789_REDACTED");
        check("xlgt_prod_0123456789_xyz", "xlgt_prod_0123456789_REDACTED");
        check("lgt_", "lgt_REDACTED");
        check("lgt_prod_short_secret", "lgt_REDACTED");
        check("lgt_Prod_0123456789_secret", "lgt_REDACTED");
        check("lgt_prod_0123456789", "lgt_REDACTED");
        check("lgt_seventeencharacter_0123456789_s", "lgt_REDACTED");
        check("lgt-prod lg lgt %6 %zz é", "lgt-prod lg lgt %6 %zz é");
    }

    #[test]
    fn percent_encoding_hides_nothing() {
        check("%6cgt_prod_0123456789_s", "lgt_prod_0123456789_REDACTED");
        check("%6C%67%74%5F%70rod%5f0123456789_s%65cret!", "lgt_prod_0123456789_REDACTED!");
        check("%256cgt_prod_0123456789_secret", "lgt_prod_0123456789_REDACTED");
        check("%25256C%2567t_x", "lgt_REDACTED");
        check("%25%36%43%67t_%25%37%38", "lgt_REDACTED");
        check("%25%32%35%25%33%36%25%36%33gt_x", "lgt_REDACTED");
        check("%%36%63gt_x", "lgt_REDACTED");
        check("%%%%%25%25%25 %2%35zz", "%%%%%25%25%25 %2%35zz");
    }
}
