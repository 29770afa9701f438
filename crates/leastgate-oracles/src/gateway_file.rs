//! The gateway's file: bytes to a configuration, or to errors with their places.

use leastgate_config::parse_gateway;

use crate::fields::with_tokens;
use crate::text_file::{check_errors, in_time};
use crate::world::assert_no_secret;

const NAME: &str = "leastgate.yaml";

pub(crate) fn body(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(with_tokens(bytes)) else { return };
    let loaded = match in_time(|| parse_gateway(NAME, &text)) {
        Err(errors) => return check_errors(&errors, NAME, &text),
        Ok(loaded) => loaded,
    };
    let shown = loaded.render(false);
    assert_no_secret(shown.as_bytes());
    // What `config show` prints is a file that means the same.
    let again = parse_gateway(NAME, &shown).unwrap_or_else(|errors| panic!("{shown}\n{errors}"));
    assert_eq!(again.config, loaded.config, "{shown}");
    assert_eq!(again.render(false), shown);
    assert_eq!(again.to_json(), loaded.to_json());
    assert_no_secret(loaded.render(true).as_bytes());
}
