//! The tables of the document: their figures, columns and units.

use crate::{
    contestants::{self, Contestant},
    figures::{Results, Spread},
    measure::Measure,
};

/// One table, with charts of some of its columns.
pub(crate) struct Table {
    pub(crate) measure: Measure,
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
    pub(crate) unit: Unit,
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// The figures of the columns that have a chart.
    pub(crate) charted: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    GigabytesPerSecond,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::PerSecond => "events/s",
            Self::GigabytesPerSecond => "GB/s",
        }
    }

    pub(crate) fn print(self, value: f64) -> String {
        match self {
            Self::Nanoseconds | Self::PerSecond => grouped(value),
            Self::GigabytesPerSecond => format!("{:.2}", value / 1e9),
        }
    }
}

pub(crate) const TABLES: &[Table] = &[
    Table {
        measure: Measure::Cost,
        title: "Cost of an event on the emitting thread",
        note: "Median of the calls, in bursts that fit every queue, and paced with 50 µs between events. The cost \
               of reading the clock twice is subtracted. The loggers without fields format the same content as \
               text, inqjet on its own thread.",
        unit: Unit::Nanoseconds,
        columns: &[
            ("burst, 1 thread", "burst.1.p50"),
            ("2 threads", "burst.2.p50"),
            ("8 threads", "burst.8.p50"),
            ("paced, 1 thread", "paced.1.p50"),
            ("2 threads", "paced.2.p50"),
            ("8 threads", "paced.8.p50"),
        ],
        charted: &["burst.1.p50"],
    },
    Table {
        measure: Measure::Cost,
        title: "The slowest call in a thousand",
        note: "p99.9 of the same calls. With more threads than cores, it is mostly due to the scheduler.",
        unit: Unit::Nanoseconds,
        columns: &[
            ("burst, 1 thread", "burst.1.p999"),
            ("2 threads", "burst.2.p999"),
            ("8 threads", "burst.8.p999"),
            ("paced, 1 thread", "paced.1.p999"),
            ("2 threads", "paced.2.p999"),
            ("8 threads", "paced.8.p999"),
        ],
        charted: &[],
    },
    Table {
        measure: Measure::Sustained,
        title: "Events per second, sustained",
        note: "Threads emit as fast as they can for one second; time counts until everything is written, and \
               nothing is lost. Ours and the floors of the chain also write hashes, which add half as many bytes.",
        unit: Unit::PerSecond,
        columns: &[("1 thread", "1"), ("8 threads", "8")],
        charted: &["1"],
    },
    Table {
        measure: Measure::Durable,
        title: "Durable before the call returns",
        note: "Events per second. Each event is synced when the call returns; waiting threads may share a sync. \
               audit-trail takes events from one thread at a time.",
        unit: Unit::PerSecond,
        columns: &[("1 thread", "1"), ("8 threads", "8"), ("64 threads", "64")],
        charted: &["8", "64"],
    },
    Table {
        measure: Measure::Verify,
        title: "Verification",
        note: "Bytes of log per second. Each crate runs its own verification; ours makes every check of the \
               format. SHA-256 over the lines runs on as many threads as ours; audit-trail has one.",
        unit: Unit::GigabytesPerSecond,
        columns: &[("one core", "one"), ("all cores", "all")],
        charted: &["one"],
    },
];

impl Table {
    /// Returns the contestants that have a figure in the table, in their order.
    pub(crate) fn rows(&self, results: &Results) -> Vec<(&'static Contestant, Vec<Option<Spread>>)> {
        contestants::ALL
            .iter()
            .filter(|contestant| contestant.measures.contains(&self.measure))
            .map(|contestant| {
                let figures = self.columns.iter().map(|(_, figure)| self.spread(results, contestant, figure));
                (contestant, figures.collect::<Vec<_>>())
            })
            .filter(|(_, figures)| figures.iter().any(Option::is_some))
            .collect()
    }

    pub(crate) fn spread(&self, results: &Results, contestant: &Contestant, figure: &str) -> Option<Spread> {
        results.spread(&format!("{}/{}/{figure}", contestant.name, self.measure.name()))
    }
}

/// Formats a whole number with a space between thousands.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_in_readable_units() {
        assert_eq!(grouped(1_234_567.4), "1 234 567");
        assert_eq!(grouped(12.0), "12");
        assert_eq!(Unit::GigabytesPerSecond.print(1_234_000_000.0), "1.23");
    }
}
