//! What the fields behind a body may be, whoever sends them.

use http::HeaderMap;

/// The limits of a message's trailers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrailerLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

impl TrailerLimits {
    /// Whether these are within them: names and values are counted.
    pub(super) fn admit(self, trailers: &HeaderMap) -> bool {
        let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        trailers.len() <= self.fields && bytes <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_field_and_the_last_byte_are_within() {
        let trailers: HeaderMap = [("a", "12"), ("b", "34")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        let admits = |bytes, fields| TrailerLimits { bytes, fields }.admit(&trailers);
        assert!(admits(6, 2) && !admits(5, 2) && !admits(6, 1));
    }
}
