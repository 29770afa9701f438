//! How the values of both files are written, for the tables of keys.

use crate::scalar;
use crate::shape::Notation;

macro_rules! notation {
    ($name:ident, $check:expr, $pattern:expr) => {
        pub(crate) const $name: Notation = Notation { check: $check, pattern: $pattern };
    };
}

notation!(WORDS, scalar::words, None);
notation!(DURATION, |text| scalar::duration(text).map(drop), Some("^0*[1-9][0-9]*(ms|s|m|h|d)$"));
notation!(DURATION_OR_ZERO, |text| scalar::duration_or_zero(text).map(drop), Some("^[0-9]+(ms|s|m|h|d)$"));
notation!(
    DURATION_OR_NONE,
    |text| scalar::duration_or_none(text).map(drop),
    Some("^(none|0*[1-9][0-9]*(ms|s|m|h|d))$")
);
notation!(SIZE, |text| scalar::size(text).map(drop), Some("^[0-9]+(B|KiB|MiB|GiB)$"));
notation!(SIZE_OR_NONE, |text| scalar::size_or_none(text).map(drop), Some("^(none|[0-9]+(B|KiB|MiB|GiB))$"));
notation!(RATE, |text| scalar::rate(text).map(drop), Some("^0*[1-9][0-9]*/(s|m|h)$"));
notation!(BYTE_RATE, |text| scalar::byte_rate(text).map(drop), Some("^[0-9]+(B|KiB|MiB|GiB)/s$"));
notation!(NETWORK, |text| scalar::network(text).map(drop), Some("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"));
notation!(SOCKET, |text| scalar::socket(text).map(drop), Some("^.+:[0-9]{1,5}$"));
notation!(MOMENT, |text| scalar::moment(text).map(drop), Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$"));
notation!(ENVIRONMENT, scalar::environment, Some("^[a-z][a-z0-9]{0,15}$"));
