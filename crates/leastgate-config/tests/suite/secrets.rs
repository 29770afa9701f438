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
