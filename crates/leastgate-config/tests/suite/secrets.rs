//! Secrets are read from where the file says, and never shown; a token in a file is refused unseen.

use std::ffi::OsString;

use leastgate_config::{GatewayInputs, SecretSource, load_gateway, load_policy};

use crate::{Folder, SMALLEST, gateway_errors};

/// As long as a token, and none.
const TOKEN: &str = "lgt_prod_7Hq2ZkP0xA_0123456789012345678901234567890123456789012_AbCdEf";

fn nothing(_: &str) -> Option<OsString> {
    None
}

#[test]
fn a_token_anywhere_is_refused_and_not_shown() {
    let admin = TOKEN.replace("lgt_", "lga_");
    let escaped = TOKEN.replace("lgt_prod", "lgt\\x5fprod");
    let texts = [
        format!("{SMALLEST}state_dir: {TOKEN}\n"),
        format!("{SMALLEST}# my token: {TOKEN}\n"),
        format!("{SMALLEST}{admin}: 1\n"),
        format!("{SMALLEST}state_dir: \"{escaped}\"\n"),
        format!("{SMALLEST}state_dir: [ {TOKEN}\n"),
    ];
    for text in &texts {
        let errors = gateway_errors(text);
        assert!(errors.contains("a token stands here"), "{errors}");
        assert!(errors.contains("leastgate.yaml:6:"), "{errors}");
        assert!(!errors.contains("0123456789"), "{errors}");
        let folder = Folder::with(text);
        let errors = load_policy(&[folder.file()]).expect_err("accepted").to_string();
        assert!(errors.contains("a token stands here") && !errors.contains("0123456789"), "{errors}");
    }
}

#[test]
fn a_token_in_the_environment_is_refused_and_not_shown() {
    let folder = Folder::with(SMALLEST);
    for name in ["LEASTGATE__STATE_DIR", "LEASTGATE__TOKEN", "LEASTGATE__PEPPER__CURRENT"] {
        let env = vec![(name.into(), TOKEN.into())];
        let errors = load_gateway(&GatewayInputs { env, ..folder.inputs() }).expect_err("accepted").render(false);
        assert!(errors.contains(name) && errors.contains("a token stands here"), "{errors}");
        assert!(!errors.contains("0123456789"), "{errors}");
    }
}

#[test]
fn a_pepper_written_where_its_source_belongs_is_not_shown() {
    for wrong in
        ["hunter2", "[ hunter2 ]", "{ fil: hunter2 }", "{ file: \"hunter2\\n\" }", "{ env: 'hunter2 hunter2' }"]
    {
        let errors = gateway_errors(&SMALLEST.replace("{ env: PEPPER }", wrong));
        assert!(errors.contains("leastgate.yaml:3:"), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    for wrong in ["hunter2", "{ hunter2: 1 }", "{ current: { env: A }, hunter2: }", "[ hunter2 ]"] {
        let errors = gateway_errors(&SMALLEST.replace("{ current: { env: PEPPER } }", wrong));
        assert!(errors.contains("leastgate.yaml:3:") && !errors.contains("hunter2"), "{errors}");
    }
    let folder = Folder::with(SMALLEST);
    for name in ["LEASTGATE__PEPPER__CURRENT", "LEASTGATE__PEPPER", "LEASTGATE__PEPER"] {
        for value in ["hunter2", "hunter2: [", "\"hunter2"] {
            let env = vec![(name.into(), value.into())];
            let errors = load_gateway(&GatewayInputs { env, ..folder.inputs() }).expect_err("accepted").render(false);
            assert!(errors.contains(name) && !errors.contains("hunter2"), "{errors}");
        }
    }
}

/// As `openssl rand` makes them.
const PEPPERS: [&str; 3] = [
    "S3cr3tPepperValue0123456789abcdef",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "q83vEjRWeJASNFZ4kBI0VniQq83vEjRWeJASNFZ4kBI=",
];

#[test]
fn a_pepper_behind_a_misspelt_key_is_not_shown() {
    for pepper in PEPPERS {
        for wrong in [
            format!("{SMALLEST}peper: {pepper}\n"),
            format!("{SMALLEST}pepper_value: \"{pepper}\"\n"),
            format!("{SMALLEST}limits: {{ bdy: {pepper} }}\n"),
            format!("{SMALLEST}pepper: {pepper}\n"),
            format!("{SMALLEST}pepper: {{ current: {pepper} }}\npepper: {pepper}\n"),
        ] {
            let errors = gateway_errors(&wrong);
            assert!(errors.contains("leastgate.yaml:"), "{errors}");
            assert!(!errors.contains(&pepper[..20]), "{errors}");
        }
    }
}

#[test]
fn a_line_that_is_no_yaml_is_not_shown_where_it_may_hold_a_secret() {
    let pepper = PEPPERS[0];
    for wrong in [
        format!("{{ current: \"{pepper} }}"),
        format!("{{ current: {{ file: x }}, {pepper}: y, a: b: c }}"),
        format!("\n  current:\n    file: \"{pepper}\" x"),
        format!("*{pepper}"),
        format!("!{pepper} x"),
    ] {
        let errors = gateway_errors(&SMALLEST.replace("{ current: { env: PEPPER } }", &wrong));
        assert!(errors.contains("leastgate.yaml:") && errors.contains("not valid YAML"), "{errors}");
        assert!(!errors.contains(&pepper[..20]), "{errors}");
    }
    let errors = gateway_errors(&SMALLEST.replace("environment: prod", "environment: \"prod\" x"));
    assert!(errors.contains("\"prod\" x"), "elsewhere the line helps: {errors}");
}

#[test]
fn a_previous_pepper_is_read_from_a_place_of_its_own_and_shown_by_it() {
    let both = SMALLEST.replace("env: PEPPER }", "env: PEPPER }, previous: { file: old/pepper }");
    let folder = Folder::with(&both);
    let loaded = load_gateway(&folder.inputs()).unwrap();
    let place = folder.file().parent().unwrap().join("old/pepper");
    assert_eq!(loaded.config.pepper.previous, Some(SecretSource::File(place)));
    assert!(loaded.render(true).contains("old/pepper"), "{}", loaded.render(true));
    assert_eq!(load_gateway(&Folder::with(SMALLEST).inputs()).unwrap().config.pepper.previous, None);
    for pepper in PEPPERS {
        let errors = gateway_errors(&both.replace("{ file: old/pepper }", pepper));
        assert!(!errors.contains(&pepper[..20]), "{errors}");
    }
}

#[test]
fn a_secret_in_place_of_its_source_is_not_shown() {
    let folder = Folder::with(SMALLEST);
    let which = [("CURRENT", "FILE"), ("CURRENT", "ENV"), ("CURRENT", "CREDENTIAL"), ("PREVIOUS", "FILE")];
    for pepper in PEPPERS {
        for (which, name) in which {
            let env = vec![(format!("LEASTGATE__PEPPER__{which}__{name}").into(), pepper.into())];
            let said = match load_gateway(&GatewayInputs { env, ..folder.inputs() }) {
                Ok(loaded) => {
                    let peppers = &loaded.config.pepper;
                    let source = peppers.previous.as_ref().unwrap_or(&peppers.current);
                    let error = source.read(&nothing).expect_err("read").to_string();
                    assert!(error.contains("not shown") || name == "CREDENTIAL", "{error}");
                    format!("{source}\n{error}\n{}\n{}", loaded.render(true), loaded.to_json())
                }
                Err(errors) => errors.render(false),
            };
            assert!(!said.contains(&pepper[..20]), "{said}");
        }
    }
    for shown in ["/run/secrets/pepper", "/srv/prod-eu-west-1/leastgate.d/pepper_2026.hex", "C0.key"] {
        assert_eq!(SecretSource::File(shown.into()).to_string(), shown);
    }
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    for wrong in ["http://user:hunter2@127.0.0.1:8081", "user:hunter2@127.0.0.1", "http://user:a b@hunter2@h"] {
        let errors = gateway_errors(&SMALLEST.replace("http://127.0.0.1:8081", wrong));
        assert!(errors.contains("leastgate.yaml:2:37") && errors.contains("expected http://"), "{errors}");
        assert!(!errors.contains("user:"), "{errors}");
    }
    let same_line = "upstreams: { a: { endpoints: [ \"http://u:hunter2@h\" ], hots: keep } }";
    let errors =
        gateway_errors(&SMALLEST.replace("upstreams:", same_line).replace("hots: keep } } {", "hots: keep } } # {"));
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn a_secret_comes_without_its_final_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pepper");
    for (content, secret) in [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("s3cret\n\n", "s3cret\n"), ("x", "x")]
    {
        std::fs::write(&path, content).unwrap();
        let read = SecretSource::File(path.clone()).read(&nothing).unwrap();
        assert_eq!(read.as_slice(), secret.as_bytes());
    }
    let directory = folder.path().as_os_str().to_owned();
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.clone());
    assert_eq!(SecretSource::Credential("pepper".to_owned()).read(&env).unwrap().as_slice(), b"x");
    let env = |name: &str| (name == "PEPPER").then(|| OsString::from("from env"));
    assert_eq!(SecretSource::Env("PEPPER".to_owned()).read(&env).unwrap().as_slice(), b"from env");
}

#[test]
fn a_secret_that_cannot_be_read_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let large = folder.path().join("large");
    std::fs::write(&large, "hunter2".repeat(20_000)).unwrap();
    let cases = [
        (SecretSource::File(folder.path().join("none")), "/none can't be opened: No such file or directory"),
        (SecretSource::File(empty), "/empty is empty"),
        (SecretSource::File(large), "/large is larger than the 64KiB allowed here"),
        (
            SecretSource::Env("PEPPER".to_owned()),
            "the environment variable PEPPER, which should hold the secret, is not set",
        ),
        (SecretSource::Credential("pepper".to_owned()), "$CREDENTIALS_DIRECTORY is not set"),
    ];
    for (source, expected) in cases {
        let error = source.read(&nothing).expect_err("read").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"));
    }
}
