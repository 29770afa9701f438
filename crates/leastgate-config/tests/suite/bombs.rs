//! Files made to exhaust the gateway are refused at once.

use std::fmt::Write;
use std::time::Duration;

use leastgate_config::{Diagnostics, parse_policy};
use rustix::time::{ClockId, clock_gettime};

/// The promise is one second of a release build; this is a debug build.
const PATIENCE: Duration = Duration::from_secs(10);

fn refusal(text: &str) -> Diagnostics {
    let start = worked();
    let errors = parse_policy(&[("policy.yaml", text)]).expect_err("the bomb is accepted");
    let took = worked() - start;
    assert!(took < PATIENCE, "took {took:?}");
    errors
}

fn refused(text: &str) -> String {
    refusal(text).summary_line()
}

/// What this thread has used of a processor, whatever else the machine is busy with.
fn worked() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

#[test]
fn aliases_of_aliases() {
    let mut text = String::from("a0: &a0 [ x, x, x, x, x, x, x, x, x, x ]\n");
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [ {below} ]").unwrap();
    }
    let line = refused(&text);
    assert!(line.contains("alias"), "{line}");
}

#[test]
fn deep_nesting() {
    for (open, count) in [("[", 100_000), ("{a: ", 100_000), ("- ", 50_000)] {
        let line = refused(&format!("version: 1\nx: {}", open.repeat(count)));
        assert!(line.starts_with("policy.yaml:"), "{line}");
    }
    let mut text = String::new();
    for depth in 0..200 {
        writeln!(text, "{}a:", " ".repeat(depth)).unwrap();
    }
    assert!(refused(&text).contains("nested deeper than 32 levels"));
}

#[test]
fn a_great_many_values() {
    for much in [
        format!("environments: [{}]", "a,".repeat(4_000_000)),
        "a: 1\n".repeat(2_000_000),
        "- [[]]\n".repeat(2_000_000),
    ] {
        let line = refused(&much);
        assert!(line.contains("more than 250000 values"), "{line}");
    }
}

#[test]
fn much_text_that_says_nothing() {
    const MUCH: usize = 15 << 20;
    refused(&format!("x: \"{}\"", "\\n".repeat(MUCH / 2)));
    refused(&format!("x: |\n{}", "  a\n".repeat(MUCH / 4)));
    refused(&"# a comment\n".repeat(MUCH / 12));
    refused(&" ".repeat(MUCH));
    refused(&"\n".repeat(MUCH));
    refused(&"a".repeat(MUCH));
}

#[test]
fn a_great_many_errors() {
    let distinct: String = (0..100_000).map(|number| format!("versoin{number}: 1\n")).collect();
    for text in [distinct, "x: 1\n".repeat(100_000)] {
        let errors = refusal(&text);
        assert!(errors.len() >= 1_000);
        assert!(errors.render(false).len() < 100_000);
    }
}

#[test]
fn a_file_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let start = worked();
    let errors = leastgate_config::load_policy(&[&file]).expect_err("accepted");
    assert!(errors.summary_line().ends_with("is larger than the 16MiB allowed here"), "{errors}");
    assert!(worked() - start < PATIENCE);
}
