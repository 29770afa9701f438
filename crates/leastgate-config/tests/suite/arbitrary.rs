//! No bytes whatever make a loader panic, and every error it gives can be shown.

use leastgate_config::{fingerprint, load_policy, parse_policy};
use proptest::prelude::*;

use crate::{Folder, gateway};

/// Text that looks enough like our files to get past the parser.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "version",
        "apis",
        "scopes",
        "roles",
        "tokens",
        "boundaries",
        "allow",
        "match",
        "when",
        "limits",
        "listeners",
        "data",
        "address",
        "audit",
        "sinks",
        "kind",
        "file",
        "pepper",
        "current",
        "upstreams",
        "endpoints",
        "1",
        "2s",
        "16MiB",
        "true",
        "~",
        "&a",
        "*a",
        "<<",
        "é",
        "\u{202e}",
        "\u{1b}[31m",
        "\u{9b}31m",
        "!!binary",
        "!x",
        "|",
        ">",
        "\"",
        "'",
    ]);
    let glue = prop::sample::select(vec![
        ": ", "\n", "\n  ", "\n- ", "[", "]", "{", "}", ", ", " ", "\t", "\r\n", "---\n", " #",
    ]);
    prop::collection::vec((word, glue), 0..60)
        .prop_map(|parts| parts.into_iter().flat_map(|(word, glue)| [word, glue]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, &bytes).unwrap();
        match load_policy(&[&file]) {
            Ok(policy) => prop_assert_eq!(policy.fingerprint(), fingerprint(&[&file])),
            Err(errors) => prop_assert!(!errors.render(true).is_empty()),
        }
    }

    #[test]
    fn near_yaml_never_panics(text in yamlish()) {
        for outcome in [gateway(&text).map(drop), parse_policy(&[("policy.yaml", &text)]).map(drop)] {
            if let Err(errors) = outcome {
                prop_assert!(!errors.is_empty());
                // Nothing that a terminal would act on gets through.
                prop_assert!(!errors.render(false).contains(['\u{1b}', '\u{9b}']), "{}", errors);
                prop_assert!(!errors.summary_line().contains(['\u{1b}', '\u{9b}']), "an escape in the summary");
                prop_assert!(!errors.summary_line().contains('\n'), "{}", errors.summary_line());
            }
        }
    }

    #[test]
    fn environment_never_panics(name in "[A-Z_]{0,20}", value in ".{0,40}") {
        let mut inputs = Folder::with(crate::SMALLEST).inputs();
        inputs.env = vec![(format!("LEASTGATE__{name}").into(), value.into())];
        let _ = leastgate_config::load_gateway(&inputs).map_err(|errors| errors.render(true));
    }
}
