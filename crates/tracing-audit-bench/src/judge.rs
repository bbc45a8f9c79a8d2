//! The figures to reach, as ratios within one run.

use crate::figures::{Results, Spread};

/// What must be, with the figures that decide it.
struct Goal {
    what: String,
    above: String,
    below: Option<String>,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A goal, and how far it was reached.
pub(crate) struct Judged {
    pub(crate) what: String,
    pub(crate) must: String,
    pub(crate) is: Spread,
    pub(crate) passes: bool,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn print(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

/// `above` and `below` without what stands in front of the figure.
fn ratio(what: impl Into<String>, above: impl Into<String>, below: impl Into<String>, bound: Bound) -> Goal {
    Goal { what: what.into(), above: above.into(), below: Some(below.into()), bound }
}

fn figure(what: &str, above: &str, bound: Bound) -> Goal {
    Goal { what: what.into(), above: above.into(), below: None, bound }
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    costs(&mut goals);
    for (threads, bound) in [(1, 3.0), (8, 2.0)] {
        let ours = format!("ours/sustained/{threads}");
        let what = format!("sustained, {threads} threads");
        let fmt = format!("fmt-lossless/sustained/{threads}");
        goals.push(ratio(format!("{what} / fmt + non_blocking"), &ours, fmt, Bound::AtLeast(bound)));
        let floor = format!("floor-chain-synced/sustained/{threads}");
        goals.push(ratio(format!("{what} / floor of the chain, synced"), &ours, floor, Bound::AtLeast(0.8)));
    }
    for ours in ["ours-immediate", "ours-critical"] {
        let key = |threads: u32| format!("{ours}/durable/{threads}");
        for (what, threads, below, bound) in [
            ("1 thread / raw loop", 1, "raw/durable/1", 0.9),
            ("1 thread / ideal group commit", 1, "ideal/durable/1", 0.95),
            ("8 threads / raw loop with one", 8, "raw/durable/1", 4.0),
            ("64 threads / raw loop with one", 64, "raw/durable/1", 15.0),
            ("8 threads / okaywal", 8, "okaywal/durable/8", 1.0),
            ("64 threads / okaywal", 64, "okaywal/durable/64", 1.5),
            ("64 threads / SQLite", 64, "sqlite/durable/64", 10.0),
        ] {
            goals.push(ratio(format!("durable, {ours}, {what}"), key(threads), below, Bound::AtLeast(bound)));
        }
    }
    goals.push(figure(
        "p99 of a critical event at half the sustained rate, in syncs",
        "ours/mixed/p99-in-syncs",
        Bound::AtMost(3.0),
    ));
    goals.push(ratio(
        "four processes on one log / on four, durable",
        "ours/processes/together",
        "ours/processes/apart",
        Bound::AtLeast(0.9),
    ));
    for (what, key) in [
        ("peak memory in MiB, 5 million events", "ours/memory/peak-mib"),
        ("the same while every sync hangs", "ours/memory-stalled/peak-mib"),
    ] {
        goals.push(figure(what, key, Bound::AtMost(32.0)));
    }
    verification(&mut goals);
    goals.push(figure(
        "seconds to open a log of 10 GB after a kill",
        "ours/large/open-seconds",
        Bound::AtMost(1.0),
    ));
    goals
}

fn costs(goals: &mut Vec<Goal>) {
    for kind in ["burst", "paced"] {
        for threads in [1, 2, 8] {
            let what = format!("routine event on the caller, {kind}, {threads} threads");
            let key = |who: &str, share: &str| format!("{who}/cost/{kind}.{threads}.{share}");
            let fmt = format!("{what}, p50 / fmt + non_blocking");
            goals.push(ratio(fmt, key("ours", "p50"), key("fmt-lossless", "p50"), Bound::AtMost(0.2)));
            if threads == 1 {
                let floor = format!("{what}, p50 / floor of formatting");
                goals.push(ratio(floor, key("ours", "p50"), key("floor-format", "p50"), Bound::AtMost(1.5)));
            }
            let slow = format!("{what}, p99.9 / fmt + non_blocking");
            goals.push(ratio(slow, key("ours", "p999"), key("fmt-lossless", "p999"), Bound::AtMost(1.0)));
        }
    }
}

fn verification(goals: &mut Vec<Goal>) {
    let floor = |cores: &str| format!("floor-sha256/verify/{cores}");
    for (how, ours, bound) in [("", "ours", 0.6), (", layout, hash and link only", "ours-hashes", 0.85)] {
        for (cores, on) in [("one", "one core"), ("all", "all cores")] {
            let what = format!("verify{how}, {on} / SHA-256 over the lines on as many threads");
            let key = format!("{ours}/verify/{cores}");
            goals.push(ratio(what, key, floor(cores), Bound::AtLeast(bound)));
        }
    }
    let what = "verify, a log of 10 GB, all cores / SHA-256 over the lines above";
    goals.push(ratio(what, "ours/large/verify", floor("all"), Bound::AtLeast(0.6)));
}

/// Judges what there are figures for.
pub(crate) fn judge(results: &Results) -> Vec<Judged> {
    let judged = |goal: Goal| {
        let is = match &goal.below {
            Some(below) => results.ratio(&goal.above, below)?,
            None => results.spread(&goal.above)?,
        };
        let passes = goal.bound.holds(is.median);
        Some(Judged { what: goal.what, must: goal.bound.print(), is, passes })
    };
    goals().into_iter().filter_map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::Figures, measure::TURNS, plan::Plan};

    /// A goal whose two figures were never measured in the same turn once vanished without a word.
    #[test]
    fn what_each_goal_compares_is_measured_in_the_last_turn() {
        let plan = Plan::parse(&[]).unwrap();
        let last: Vec<String> = [plan.steps(true), plan.steps(false)]
            .concat()
            .iter()
            .filter(|step| step.measure.is_due(TURNS))
            .map(|step| format!("{}/{}/", step.contestant.name, step.measure.name()))
            .collect();
        for goal in goals() {
            for key in [Some(&goal.above), goal.below.as_ref()].into_iter().flatten() {
                assert!(last.iter().any(|step| key.starts_with(step)), "nothing measures {key}");
            }
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_median_of_its_ratios() {
        let mut results = Results::default();
        for (ours, raw) in [(8.0, 10.0), (9.5, 10.0), (190.0, 200.0)] {
            results.begin_turn();
            for (name, value) in [("ours-immediate", ours), ("raw", raw)] {
                let mut figures = Figures::default();
                figures.add("1", value);
                results.note(name, "durable", &figures);
            }
        }
        let judged = judge(&results);
        let [one] = judged.as_slice() else { panic!("one goal has figures") };
        assert!(one.passes && (one.is.median - 0.95).abs() < 1e-9 && one.must == "≥ 0.9");
        assert!(!Bound::AtMost(0.2).holds(0.21) && !Bound::AtLeast(4.0).holds(3.9));
    }
}
