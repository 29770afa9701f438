//! Events that tell of many tokens: as many in each as a reader, and a sink, take at once.

use leastgate_policy::Accessor;

/// Tokens that one event tells of at most.
pub(crate) const MOST: usize = 500;

/// The tokens of each event, with the detail that names them.
pub(crate) fn each<T>(
    tokens: &[T],
    accessor: impl Fn(&T) -> Accessor,
) -> impl Iterator<Item = (&[T], (String, String))> {
    tokens.chunks(MOST).map(move |of_event| {
        let accessors: Vec<String> = of_event.iter().map(|token| accessor(token).to_string()).collect();
        (of_event, ("accessors".to_owned(), accessors.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_named_once_and_no_event_names_more_than_it_takes() {
        for count in [0, 1, 500, 501, 1_000, 1_001] {
            let tokens: Vec<Accessor> = (0..count).map(Accessor::from_random).collect();
            let named: Vec<_> = each(&tokens, |token| *token).collect();
            assert!(named.iter().all(|(of_event, _)| of_event.len() <= MOST), "{count}");
            let all: Vec<&str> = named.iter().flat_map(|(_, (_, value))| value.split(' ')).collect();
            let expected: Vec<String> = tokens.iter().map(ToString::to_string).collect();
            assert_eq!(all, expected, "{count}");
        }
    }
}
