//! Taking tokens out of texts: nothing of a secret is left, and nothing else is lost.

use leastgate_policy::token::redact_into;
use leastgate_telemetry::redact;

use crate::fields::with_tokens;
use crate::world::assert_no_secret;

pub(crate) fn body(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&with_tokens(bytes)).into_owned();
    let redacted = redact(&text);
    assert_no_secret(redacted.as_bytes());
    assert_eq!(redact(&redacted), redacted, "redacting twice differs");
    if !text.contains('%') {
        let mut other = String::new();
        redact_into(&text, &mut other);
        assert_eq!(other, redacted, "two redactions differ");
        let has_token = text.contains("lgt_") || text.contains("lga_");
        assert!(has_token || redacted == text, "{text:?} became {redacted:?}");
    }
    // What is left stands in its order.
    let mut rest = text.chars();
    let kept = redacted.replace("REDACTED", "");
    let is_kept = |character: char| rest.any(|own| own == character);
    assert!(text.contains('%') || kept.chars().all(is_kept), "{text:?} became {redacted:?}");
}
