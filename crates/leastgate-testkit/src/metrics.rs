//! A scrape of `/metrics`, read as Prometheus' text format.

use std::collections::BTreeMap;

/// Samples by name and label set.
#[derive(Debug, Default)]
pub struct Metrics {
    text: String,
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads text format 0.0.4.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self { text: text.to_owned(), ..Self::default() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                metrics.samples.insert(series.to_owned(), value.parse().unwrap_or(f64::NAN));
            }
        }
        metrics
    }

    /// The text as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type of a metric: `counter`, `gauge`, `histogram`.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// The sum over all series of `name` whose label set holds each of `labels`, given as `key="value"`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name)
            .filter(|(set, _)| labels.iter().all(|label| set.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Label set and value of each series of `name`.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.samples.iter().filter_map(move |(series, value)| {
            let set = series.strip_prefix(name)?;
            (set.is_empty() || set.starts_with('{')).then_some((set, *value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_matching_labels() {
        let metrics =
            Metrics::parse("# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na{x=\"2\"} 9\nab 7\n");
        assert_eq!(metrics.sum("a", &["x=\"1\""]), 7.0);
        assert_eq!(metrics.sum("a", &[]), 16.0);
        assert_eq!((metrics.kind("a"), metrics.kind("ab")), (Some("counter"), None));
    }
}
