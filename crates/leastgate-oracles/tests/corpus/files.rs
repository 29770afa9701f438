//! What lies beside the fuzzer's programs: corpora, and dictionaries in libFuzzer's notation.

use std::fs;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz")).join(name)
}

/// The names in a folder, without their ending, sorted.
pub(crate) fn names(of: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(of)).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry.unwrap()).strip_suffix(ending).unwrap().to_owned()).collect();
    names.sort();
    names
}

/// The files of a target's corpus, in the order of their names.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let of = format!("corpus/{target}");
    let read = |name: String| (name.clone(), fs::read(folder(&of).join(&name)).unwrap());
    names(&of, "").into_iter().map(read).collect()
}

/// The words of a target's dictionary: lines `"word"`, with `\xHH`, `\\` and `\"`.
pub(crate) fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("dictionaries").join(format!("{target}.dict"))).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| word(line).unwrap_or_else(|| panic!("{target}.dict: {line}"))).collect()
}

fn word(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut word = Vec::new();
    while let [first, tail @ ..] = rest {
        (word, rest) = match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                word.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
                (word, tail)
            }
            (b'\\', [escaped @ (b'\\' | b'"'), tail @ ..]) => {
                word.push(*escaped);
                (word, tail)
            }
            (b'\\', _) => return None,
            (plain, tail) => {
                word.push(*plain);
                (word, tail)
            }
        };
    }
    Some(word)
}

/// `bytes` with every `from` replaced by `to`.
pub(crate) fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}
