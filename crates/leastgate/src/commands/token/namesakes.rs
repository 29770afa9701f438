//! Other tokens with the name: what a command has done to them too, and what it has left as it was.

use leastgate_admin::api::NamesakeView;

use crate::output;

/// What a change was made of besides the token that was asked for.
pub(super) fn tell(name: &str, also: &[NamesakeView], what: &str) {
    for token in also {
        output::note(format_args!("{name} ({}) {what} too", token.accessor));
    }
}

/// Those that still work under the name, and the command for each that ends that.
pub(super) fn warn(name: &str, in_grace: &[NamesakeView], command: &str) {
    for token in in_grace.iter().filter(|token| token.state == "rotating") {
        let until = token.expires.map_or_else(String::new, |end| format!(" until {end}"));
        output::warn(format_args!(
            "the former {name} ({accessor}) is in its grace and works{until}: \
             `leastgate token {command} {accessor} --reason TEXT` ends it",
            accessor = token.accessor
        ));
    }
}

/// Those that a command by name has switched off, and that are not given back by it.
pub(super) fn warn_of_disabled(name: &str, in_grace: &[NamesakeView]) {
    for token in in_grace.iter().filter(|token| token.state == "disabled") {
        output::warn(format_args!(
            "the former {name} ({accessor}) is disabled still: `leastgate token enable {accessor} --reason TEXT`",
            accessor = token.accessor
        ));
    }
}
