//! `tracing-audit stats`.

mod count;
mod show;

use std::{num::NonZero, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use tracing_audit::RecordKind;

use crate::{
    filter::Filter,
    output::{grouped, print, print_stderr},
    scan::Scan,
};
use count::Counts;

/// Counts events by actor, action, resource, outcome, severity, hour or day.
///
/// Checks only the hash of each record: this is not a verification. Outcomes that count as failed are words such as failure,
/// denied, refused, rejected, error, timeout and false, in upper or lower case.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 counted, 1 no record matches, 2 something could not be read.

Examples:
  tracing-audit stats /var/log/shop
  tracing-audit stats /var/log/shop --by actor --action 'auth.*' --outcome denied --top 10
  tracing-audit stats /var/log/shop --by day --by hour --since '7 days'
  tracing-audit stats /var/log/shop --by outcome --json")]
pub(crate) struct Stats {
    /// The directory of the log.
    log: PathBuf,

    /// What to count by; may be given more than once. Default: action.
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Vec<By>,

    /// Number of rows to print in each table: those with the most events, or the latest hours and days. Default: 20 rows,
    /// but all hours and days.
    #[arg(long, value_name = "N")]
    top: Option<NonZero<usize>>,

    #[command(flatten)]
    filter: Filter,

    /// Print JSON; its schema is in docs/command.md.
    #[arg(long)]
    json: bool,

    /// Number of threads. Default: as many as can run at once, at most 16.
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

/// What events are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// What was done.
    Action,
    /// Who did it.
    Actor,
    /// What it was done to.
    Resource,
    /// The result.
    Outcome,
    /// Critical or routine.
    Severity,
    /// The hour, in UTC.
    Hour,
    /// The day, in UTC.
    Day,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Actor => "actor",
            Self::Resource => "resource",
            Self::Outcome => "outcome",
            Self::Severity => "severity",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Self::Hour | Self::Day)
    }
}

impl Stats {
    pub(crate) fn run(mut self) -> Result<ExitCode> {
        if self.by.is_empty() {
            self.by.push(By::Action);
        }
        let scan = Scan::new(&self.log, &self.filter)?.threads(self.threads);
        let threads = scan.thread_count();
        let (sums, trouble) = scan.fold(|| Counts::new(&self.by, threads), Counts::add)?;
        // The sums of all threads together fit into the limit of one, so merging them folds nothing.
        let mut counts = Counts::new(&self.by, 1);
        for sum in sums {
            counts.merge(sum);
        }
        // Gaps and recoveries have no actor, outcome and so on: a filter by one of those never finds them.
        let finds = show::Finds {
            gaps: self.filter.may_find(RecordKind::Gap),
            recoveries: self.filter.may_find(RecordKind::Recovery),
        };
        if self.json {
            print(&show::json(&counts, &self, finds)?);
        } else {
            show::text(&counts, &self, finds);
        }
        if counts.total.unconfirmed > 0 {
            let unconfirmed = grouped(counts.total.unconfirmed);
            print_stderr(&format!(
                "tracing-audit: {unconfirmed} events are UNCONFIRMED: the actions may have been refused"
            ));
        }
        Ok(ExitCode::from(match (trouble.report(), counts.records) {
            (true, _) => 2,
            (false, 0) => 1,
            (false, _) => 0,
        }))
    }
}
