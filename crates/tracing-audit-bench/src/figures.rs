//! The named figures of one measurement, and their spread over several turns.

use std::{collections::BTreeMap, fmt};

/// The figures of one measurement, in the order in which they were added.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// Parses what `Display` printed.
    pub(crate) fn parse(text: &str) -> Self {
        let figure = |line: &str| {
            let (name, value) = line.strip_prefix("figure ")?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(figure).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "figure {name} {value}"))
    }
}

/// The spread of one figure over several turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = *values.get(if values.len().is_multiple_of(2) { middle - 1 } else { middle })?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// The name of a figure with its contestant and measure: `ours/cost/burst.1.p50`.
pub(crate) type Key = String;

/// Every figure of every turn of every round. A turn has only the figures measured in it.
#[derive(Debug, Default)]
pub(crate) struct Results {
    turns: Vec<BTreeMap<Key, f64>>,
    pub(crate) failures: Vec<String>,
}

impl Results {
    pub(crate) fn begin_turn(&mut self) {
        self.turns.push(BTreeMap::new());
    }

    pub(crate) fn note(&mut self, contestant: &str, measure: &str, figures: &Figures) {
        if let Some(turn) = self.turns.last_mut() {
            turn.extend(
                figures.iter().map(|(name, value)| (format!("{contestant}/{measure}/{name}"), value)),
            );
        }
    }

    pub(crate) fn spread(&self, key: &str) -> Option<Spread> {
        Spread::of(self.turns.iter().filter_map(|turn| turn.get(key).copied()))
    }

    /// Divides one figure by another of the same turn, because the speed of a disk changes within the hour.
    pub(crate) fn ratio(&self, above: &str, below: &str) -> Option<Spread> {
        Spread::of(self.turns.iter().filter_map(|turn| Some(turn.get(above)? / turn.get(below)?)))
    }

    /// Returns the figures whose keys start with `prefix`, with the rest of their names.
    pub(crate) fn under(&self, prefix: &str) -> Vec<(String, Spread)> {
        let mut names: Vec<&str> =
            self.turns.iter().flat_map(BTreeMap::keys).filter_map(|key| key.strip_prefix(prefix)).collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.spread(&format!("{prefix}{name}"))?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_median_the_minimum_and_the_maximum() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(&[f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_turn() {
        let mut results = Results::default();
        for disk in [1.0, 10.0] {
            results.begin_turn();
            for (contestant, speed) in [("ours", 9.0), ("raw", 10.0)] {
                let mut figures = Figures::default();
                figures.add("1", speed * disk);
                results.note(contestant, "durable", &Figures::parse(&figures.to_string()));
            }
        }
        let ratio = results.ratio("ours/durable/1", "raw/durable/1");
        assert_eq!(ratio, Some(Spread { median: 0.9, min: 0.9, max: 0.9 }));
        assert_eq!(results.under("raw/durable/").len(), 1);
    }
}
