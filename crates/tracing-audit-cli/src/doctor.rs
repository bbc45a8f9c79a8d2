//! `tracing-audit doctor`.

mod files;
mod locks;
mod records;
mod safeguards;
mod space;

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tracing_audit::{Segment, segments};

use crate::{
    directory::explain,
    output::{escape, escape_json},
};

/// Checks the operation of a log, and prints what needs doing.
///
/// Each line begins with OK, WARN (worth knowing, perhaps intended) or DO (needs doing). Nothing is changed, no lock is
/// taken, and only the ends of the log are read. Records are not checked: use `tracing-audit verify` for that.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The directory of the log.
    log: PathBuf,

    /// The age after which the program's retention removes records, such as 90d or 1y; segments that are
    /// still there two days later are reported.
    #[arg(long, value_name = "AGE", value_parser = age)]
    max_age: Option<Duration>,

    /// The file with the kept heads, as written by `heads --append` and `verify --append-heads`.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit doctor /var/log/shop/audit
  tracing-audit doctor /var/log/shop/audit --max-age 90d --heads /mnt/elsewhere/heads
  tracing-audit doctor /var/log/shop/audit --json | jq -r '.checks[] | select(.state == \"do\") | .remedy'

Exit codes: 0 nothing needs doing, 1 something does, 2 could not look.";

/// Parses an age: how long ago something was, in the syntax of `--since`.
fn age(text: &str) -> Result<Duration> {
    let then = crate::time::Point::parse(text)?.system_time();
    let age = SystemTime::now().duration_since(then).unwrap_or_default();
    // The syntax also allows `now` and dates in the future, which are no ages.
    if age < Duration::from_secs(1) {
        bail!("`{text}` is not an age: write 90d or 12h");
    }
    Ok(age)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Do,
}

/// The result of one check, and what to do about it.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    of: &'static str,
    state: State,
    found: String,
    remedy: Option<String>,
}

/// The results so far.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.0.push(Check { of: check, state: State::Ok, found: found.into(), remedy: None });
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check {
            of: check,
            state: State::Warn,
            found: found.into(),
            remedy: Some(remedy.into()),
        });
    }

    fn must(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check { of: check, state: State::Do, found: found.into(), remedy: Some(remedy.into()) });
    }

    /// Returns whether a check has no result yet, and so found nothing wrong.
    fn is_fine(&self, check: &str) -> bool {
        !self.0.iter().any(|one| one.of == check)
    }
}

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    log: String,
    needs_doing: usize,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode> {
        // Checks do not depend on each other, apart from `records`, which needs to know the writers.
        let all: Vec<Segment> = segments(&self.log).map_err(|error| explain(&self.log, error))?;
        let now = SystemTime::now();
        let mut findings = Findings::default();
        files::look(&self.log, &mut findings)?;
        space::look(&self.log, &all, now, &mut findings);
        let writers = locks::look(&self.log, &all, &mut findings);
        records::look(&self.log, &all, &writers, self.max_age, now, &mut findings);
        safeguards::look(&self, &all, now, &mut findings);
        let needs_doing = findings.0.iter().filter(|check| check.state == State::Do).count();
        if self.json {
            let log = self.log.display().to_string();
            let printed = Printed { log, needs_doing, checks: &findings.0 };
            crate::print(&escape_json(&serde_json::to_string(&printed)?));
        } else {
            print(&findings, needs_doing);
        }
        // Warnings do not count: they may be intended, and a monitoring system must be able to rely on the exit code.
        Ok(ExitCode::from(u8::from(needs_doing > 0)))
    }
}

fn print(findings: &Findings, needs_doing: usize) {
    let mut text = String::new();
    for Check { of, state, found, remedy } in &findings.0 {
        let (style, word) = match state {
            State::Ok => (AnsiColor::Green.on_default(), "OK"),
            State::Warn => (AnsiColor::Yellow.on_default(), "WARN"),
            State::Do => (AnsiColor::Red.on_default().bold(), "DO"),
        };
        writeln!(text, "{style}{word:<4}{style:#}  {of:<12}  {}", escape(found)).unwrap_or_default();
        if let Some(remedy) = remedy {
            let style = Style::new().bold();
            writeln!(text, "{:20}{style}{}{style:#}", "", escape(remedy)).unwrap_or_default();
        }
    }
    text.push_str(match needs_doing {
        0 => "\nNothing needs doing.",
        1 => "\nOne thing needs doing.",
        _ => "\nSome things need doing.",
    });
    text.push_str(" To check whether the records are intact, run `tracing-audit verify`.");
    crate::print(&text);
}

/// Formats an age in its largest suitable unit.
fn words(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
