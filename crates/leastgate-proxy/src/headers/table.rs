//! What a head's field names mean: by the lists of the policy crate, and by what Connection names.

use http::{HeaderMap, HeaderName, header};
pub(super) use leastgate_policy::fields::{Kind, is_plain, is_spelling_of, kind};
use smallvec::SmallVec;

/// Names collected for removal. A request rarely has more than a handful.
pub(super) type Names = SmallVec<[HeaderName; 8]>;

/// The names a Connection field lists. `None` where it is not a list of names.
pub(super) fn connection_names(headers: &HeaderMap) -> Option<Names> {
    let mut names = Names::new();
    for line in headers.get_all(header::CONNECTION) {
        for token in line.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if !token.is_empty() {
                names.push(HeaderName::from_bytes(token).ok()?);
            }
        }
    }
    Some(names)
}
