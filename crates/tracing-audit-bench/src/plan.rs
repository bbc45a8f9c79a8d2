//! The plan of a run: what it measures, as given on the command line.

use crate::{
    Result,
    contestants::{self, Contestant},
    measure::{Measure, Scale},
};

/// The command of a full run, from the root of the repository.
const COMMAND: &str = "cargo run --release --manifest-path crates/tracing-audit-bench/Cargo.toml";

/// The options of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) scale: Scale,
    pub(crate) writes: bool,
    /// The command line, for the document.
    pub(crate) command: String,
    contestants: Vec<String>,
    measures: Vec<Measure>,
}

/// One measurement of one contestant, in its own process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) contestant: &'static Contestant,
    pub(crate) measure: Measure,
    pub(crate) threads: Option<usize>,
}

impl Plan {
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut plan = Self {
            rounds: 5,
            scale: Scale { is_quick: false },
            writes: false,
            command: format!("{COMMAND} -- {}", words.join(" ")),
            contestants: Vec::new(),
            measures: Vec::new(),
        };
        plan.command.truncate(plan.command.trim_end_matches([' ', '-']).len());
        let mut words = words.iter();
        let mut asked_to_write = false;
        while let Some(word) = words.next() {
            match *word {
                "--quick" => plan.scale.is_quick = true,
                "--write" => asked_to_write = true,
                "--rounds" => {
                    let rounds = words.next().and_then(|word| word.parse().ok());
                    plan.rounds = rounds.filter(|rounds| *rounds > 0).ok_or("--rounds needs a number")?;
                }
                name => match (contestants::find(name), Measure::parse(name)) {
                    (Some(contestant), _) => plan.contestants.push(contestant.name.to_owned()),
                    (_, Some(measure)) => plan.measures.push(measure),
                    _ => {
                        return Err(
                            format!("{name} is not a contestant, measure or option; see --list").into()
                        );
                    }
                },
            }
        }
        let is_whole = plan.contestants.is_empty() && plan.measures.is_empty() && !plan.scale.is_quick;
        plan.writes = asked_to_write || is_whole;
        Ok(plan)
    }

    /// Returns the steps of a round, or those done once after all rounds. Contestants that are compared run one after
    /// the other.
    pub(crate) fn steps(&self, in_rounds: bool) -> Vec<Step> {
        let measures = Measure::all().filter(|measure| measure.is_in_rounds() == in_rounds);
        let measures = measures.filter(|measure| self.measures.is_empty() || self.measures.contains(measure));
        let mut steps = Vec::new();
        for measure in measures {
            let threads: &[Option<usize>] =
                if measure == Measure::Sustained { &[Some(1), Some(8)] } else { &[None] };
            for threads in threads {
                let contestants = contestants::ALL.iter().filter(|contestant| {
                    let wanted = &self.contestants;
                    contestant.measures.contains(&measure)
                        && (wanted.is_empty() || wanted.iter().any(|name| name == contestant.name))
                });
                steps.extend(contestants.map(|contestant| Step { contestant, measure, threads: *threads }));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_contestant_or_a_measure_and_only_a_whole_run_writes() {
        let whole = Plan::parse(&[]).unwrap();
        assert!(whole.writes && whole.steps(true).len() > 40);
        assert_eq!(whole.command, COMMAND);
        let part = Plan::parse(&["ours", "raw", "durable", "cost", "--rounds", "2"]).unwrap();
        assert!(!part.writes && part.rounds == 2);
        let names: Vec<_> = part.steps(true).iter().map(|step| step.contestant.name).collect();
        assert_eq!(names, ["ours", "raw"]);
        assert!(Plan::parse(&["--quick"]).unwrap().scale.is_quick);
        assert!(Plan::parse(&["nobody"]).is_err() && Plan::parse(&["--rounds", "0"]).is_err());
    }
}
