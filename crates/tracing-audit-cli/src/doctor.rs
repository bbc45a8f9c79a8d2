//! `tracing-audit doctor`.

mod kept;
mod locks;
mod place;
mod records;
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

/// Looks for what needs doing about a log, and says what.
///
/// Each line begins with OK, WARN (worth knowing, and perhaps meant so) or DO (needs doing). Nothing is changed, no lock is
/// taken, and only the ends of the log are read. What was recorded is not checked: that is `tracing-audit verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The directory of the log.
    log: PathBuf,

    /// How long records are kept, by the settings of the program: 90d, 1y. Older ones are told.
    #[arg(long, value_name = "AGE", value_parser = age)]
    max_age: Option<Duration>,

    /// The file in which heads are kept, as `heads --append` and `verify --append-heads` write it.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,

    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit doctor /var/log/shop/audit
  tracing-audit doctor /var/log/shop/audit --max-age 90d --heads /mnt/elsewhere/heads
  tracing-audit doctor /var/log/shop/audit --json | jq -r '.checks[] | select(.state == \"do\") | .remedy'

Exit codes: 0 nothing needs doing, 1 something does, 2 could not look.";

fn age(text: &str) -> Result<Duration> {
    let then = crate::time::Point::parse(text)?.system_time();
    let age = SystemTime::now().duration_since(then).unwrap_or_default();
    if age < Duration::from_secs(1) {
        bail!("`{text}` is no age: write 90d or 12h");
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

/// What was found of one thing, and what to do about it.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    of: &'static str,
    state: State,
    found: String,
    remedy: Option<String>,
}

/// What was found so far.
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

    /// Whether nothing was found of a thing that is not as it should be.
    fn is_fine(&self, check: &str) -> bool {
        !self.0.iter().any(|one| one.of == check)
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    log: String,
    needs_doing: usize,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let all: Vec<Segment> = segments(&self.log).map_err(|error| explain(&self.log, error))?;
        let now = SystemTime::now();
        let mut findings = Findings::default();
        place::look(&self.log, &mut findings)?;
        space::look(&self.log, &all, now, &mut findings);
        let writers = locks::look(&self.log, &all, &mut findings);
        records::look(&self.log, &all, &writers, self.max_age, now, &mut findings);
        kept::look(&self, &all, now, &mut findings);
        let needs_doing = findings.0.iter().filter(|check| check.state == State::Do).count();
        if self.json {
            let log = self.log.display().to_string();
            let printed = Printed { log, needs_doing, checks: &findings.0 };
            crate::print(&escape_json(&serde_json::to_string(&printed)?));
        } else {
            print(&findings, needs_doing);
        }
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
    text.push_str(" Whether the records are intact, `tracing-audit verify` says.");
    crate::print(&text);
}

/// A time that has passed, in words.
fn words(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
