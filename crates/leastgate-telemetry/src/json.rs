//! Writes JSON straight into a byte buffer: the shape of an event is code, and no value reaches a line without being
//! redacted and escaped here. Escaped is everything that could end a line, move a terminal's cursor or turn text around:
//! control characters, U+2028 and U+2029, bidirectional controls, and bytes that are not UTF-8 (as `\xHH`).

use crate::redact::token_run;

/// An object being written. [`Object::end`] closes it.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn start(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Goes on with an object that was begun elsewhere and already has a field.
    pub(crate) fn resume(out: &'a mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    /// Writes the key and hands out the buffer for exactly one value.
    pub(crate) fn value(&mut self, key: &'static str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, key: &'static str, value: impl AsRef<[u8]>) {
        string(self.value(key), value.as_ref());
    }

    pub(crate) fn optional(&mut self, key: &'static str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A word of ours that needs neither redaction nor escaping.
    pub(crate) fn word(&mut self, key: &'static str, value: &'static str) {
        let out = self.value(key);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }

    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        number(self.value(key), value);
    }

    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.raw(key, if value { b"true" } else { b"false" });
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, key: &'static str, json: &[u8]) {
        self.value(key).extend_from_slice(json);
    }

    pub(crate) fn object(&mut self, key: &'static str) -> Object<'_> {
        Object::start(self.value(key))
    }

    /// Goes on inside the object that was the last value and was left open.
    pub(crate) fn reopen(&mut self) -> Object<'_> {
        Object::resume(self.out)
    }

    pub(crate) fn texts<T: AsRef<[u8]>>(&mut self, key: &'static str, values: impl IntoIterator<Item = T>) {
        let mut array = Array::start(self.value(key));
        for value in values {
            string(array.item(), value.as_ref());
        }
        array.end();
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}

/// An array being written. [`Array::end`] closes it.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Array<'a> {
    pub(crate) fn start(out: &'a mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, empty: true }
    }

    /// Hands out the buffer for exactly one value.
    pub(crate) fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out
    }

    pub(crate) fn end(self) {
        self.out.push(b']');
    }
}

/// Appends `value` in decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `value` as a JSON string, redacted and escaped.
pub(crate) fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    fragment(out, value);
    out.push(b'"');
}

/// Appends the inside of a JSON string, redacted and escaped.
pub(crate) fn fragment(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    loop {
        let plain = rest.iter().position(|&byte| CLASS[usize::from(byte)] != Class::Plain).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&byte) = rest.first() else { return };
        let taken = match CLASS[usize::from(byte)] {
            Class::Token => maybe_token(out, rest),
            Class::Wide => wide(out, rest),
            Class::Plain | Class::Escaped => escape(out, byte),
        };
        rest = &rest[taken..];
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Escaped,
    Token,
    Wide,
}

const CLASS: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0_u8;
    loop {
        classes[byte as usize] = match byte {
            0..0x20 | 0x7f | b'"' | b'\\' => Class::Escaped,
            b'l' | b'%' => Class::Token,
            0x80.. => Class::Wide,
            _ => Class::Plain,
        };
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

fn maybe_token(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    match token_run(rest) {
        Some(run) => {
            run.write(out);
            run.len
        }
        None => {
            out.push(rest[0]);
            1
        }
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) -> usize {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        _ => unicode_escape(out, u16::from(byte)),
    }
    1
}

fn unicode_escape(out: &mut Vec<u8>, code: u16) {
    let [high, low] = code.to_be_bytes();
    out.extend_from_slice(&[b'\\', b'u', hex_digit(high >> 4), hex_digit(high), hex_digit(low >> 4), hex_digit(low)]);
}

fn hex_digit(value: u8) -> u8 {
    HEX[usize::from(value & 0x0f)]
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// One character beyond ASCII, or one byte that belongs to none.
fn wide(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    let head = &rest[..rest.len().min(4)];
    let valid = head.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    let Some(character) = valid else {
        out.extend_from_slice(&[b'\\', b'\\', b'x', hex_digit(rest[0] >> 4), hex_digit(rest[0])]);
        return 1;
    };
    let width = character.len_utf8();
    match (character, u16::try_from(u32::from(character))) {
        ('\u{80}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}', Ok(code)) => {
            unicode_escape(out, code);
        }
        _ => out.extend_from_slice(&rest[..width]),
    }
    width
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &[u8]) -> String {
        let mut out = Vec::new();
        string(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        assert_eq!(written(b"a\r\n\x00\x1b[2J\x7f\"\\"), r#""a\u000d\u000a\u0000\u001b[2J\u007f\"\\""#);
        assert_eq!(written("\u{2028}\u{2029}\u{9b}\u{202e}é漢".as_bytes()), "\"\\u2028\\u2029\\u009b\\u202eé漢\"");
        assert_eq!(written(b"\xff\xc3("), r#""\\xff\\xc3(""#);
    }

    #[test]
    fn tokens_do_not_pass() {
        assert_eq!(written(b"all lgt_prod_0123456789_S3cret."), r#""all lgt_prod_0123456789_REDACTED.""#);
    }

    #[test]
    fn objects_nest() {
        let mut out = Vec::new();
        let mut object = Object::start(&mut out);
        object.number("n", u64::MAX);
        object.optional("none", None::<&str>);
        object.texts("list", ["a", "b"]);
        let mut inner = object.object("o");
        inner.boolean("yes", true);
        inner.end();
        object.end();
        assert_eq!(out, br#"{"n":18446744073709551615,"list":["a","b"],"o":{"yes":true}}"#);
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_line_of_valid_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = written(&bytes);
            prop_assert!(!text.bytes().any(|byte| byte < 0x20 || byte == 0x7f));
            let back: String = serde_json::from_str(&text).unwrap();
            if let Ok(original) = std::str::from_utf8(&bytes) && !original.contains("lg") && !original.contains('%') {
                prop_assert_eq!(back, original);
            }
        }
    }
}
