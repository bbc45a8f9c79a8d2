//! The options that select records.

use anyhow::{Result, anyhow, bail};
use clap::Args;
use tracing_audit::{Record, RecordKind, Severity, Value};

use crate::{glob::Glob, line::kind_of, time::Point};

/// The options that select records. A record must match all of them; for an option that is given more than once, one value.
#[derive(Debug, Args, Clone, Default)]
#[command(next_help_heading = "Which records")]
pub(crate) struct Filter {
    /// The actor: who did it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) actor: Vec<String>,

    /// The action: what was done, as in `auth.*`. `*` matches any characters, `?` any one.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub(crate) action: Vec<Glob>,

    /// The resource: what it was done to.
    #[arg(long, value_name = "TEXT")]
    pub(crate) resource: Vec<String>,

    /// The outcome: the result.
    #[arg(long, value_name = "TEXT")]
    pub(crate) outcome: Vec<String>,

    /// The severity: `critical` or `routine`.
    #[arg(long, value_name = "SEVERITY")]
    pub(crate) severity: Option<Severity>,

    /// The kind of record: `event`, or a kind that the log writes itself: `open`, `gap`, `recovery` and others.
    /// May be a kind that only a later version writes.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Vec<String>,

    /// The session id.
    #[arg(long, value_name = "TEXT")]
    pub(crate) session: Vec<String>,

    /// The request id.
    #[arg(long, value_name = "TEXT")]
    pub(crate) request: Vec<String>,

    /// A field or another member with this value, as in `--field tenant=acme`. All that are given must match.
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) fields: Vec<(String, String)>,

    /// A text that the raw line of the record contains. All that are given must match.
    #[arg(long, value_name = "TEXT", value_parser = part_of_line)]
    pub(crate) grep: Vec<String>,

    /// At this time or later: 2026-11-21, 2026-11-21T08:00Z, yesterday, 2h (ago). UTC unless a zone is given.
    #[arg(long, value_name = "TIME", value_parser = Point::parse)]
    pub(crate) since: Option<Point>,

    /// Before this time, in the same syntax.
    #[arg(long, value_name = "TIME", value_parser = Point::parse)]
    pub(crate) until: Option<Point>,

    /// Sequence numbers from A to B, inclusive; either may be left out.
    #[arg(long, value_name = "A..B", value_parser = Range::parse)]
    pub(crate) seq: Option<Range>,

    /// The chain, as in the names of its files: 000.
    #[arg(long, value_name = "CHAIN", value_parser = chain)]
    pub(crate) chain: Vec<u16>,
}

/// A range of sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    fn parse(text: &str) -> Result<Self> {
        let number = |text: &str, default| {
            if text.is_empty() {
                return Ok(default);
            }
            text.parse::<u64>().map_err(|_| anyhow!("`{text}` is not a sequence number"))
        };
        // A single number is a range of one, and `..=` is accepted like `..`.
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let range = Self { first: number(first, 1)?, last: number(last.trim_start_matches('='), u64::MAX)? };
        if text.is_empty() || range.first > range.last {
            bail!("`{text}` is not a range of sequence numbers: write 40..50, 40.. or 42");
        }
        Ok(range)
    }
}

/// Checks a text for `--grep`. JSON escapes control characters, so a text with one would never be found.
fn part_of_line(text: &str) -> Result<String> {
    if let Some(control) = text.chars().find(|character| *character < ' ') {
        bail!(
            "it has the character {}, which no line contains; search for its spelling in the line, e.g. \\n",
            control.escape_unicode()
        );
    }
    Ok(text.to_owned())
}

fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| anyhow!("`{text}` has no `=`: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Checks a kind. A kind that this version does not know is allowed: a later version may have written the log.
fn kind(text: &str) -> Result<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_name) {
        bail!("`{text}` is not a kind: write event, open, gap, recovery, or another name as in the line");
    }
    Ok(text.to_owned())
}

pub(crate) fn chain(text: &str) -> Result<u16> {
    // Digits only: `parse` would also accept a sign.
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(|| anyhow!("`{text}` is not a chain: write 000 to 999"))
}

/// Returns whether the option was not given, or one of its values matches.
///
/// The value is looked up only if needed, because a line with escapes has to be parsed for it.
fn is_one_of<'a>(wanted: &[String], value: impl FnOnce() -> Option<&'a str>) -> bool {
    wanted.is_empty() || value().is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
}

/// Formats a value as `--field` compares it: a text as it is, everything else as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Filter {
    /// Returns whether a record matches.
    pub(crate) fn matches(&self, record: &Record) -> bool {
        // Cheap comparisons come first: those below may have to parse the line.
        self.position_matches(record)
            && self.severity.is_none_or(|severity| record.severity() == Some(severity))
            && is_one_of(&self.kind, || Some(kind_of(record)))
            && is_one_of(&self.actor, || record.actor())
            && is_one_of(&self.resource, || record.resource())
            && is_one_of(&self.outcome, || record.outcome())
            && is_one_of(&self.session, || record.session_id())
            && is_one_of(&self.request, || record.request_id())
            && (self.action.is_empty()
                || record.action().is_some_and(|action| self.action.iter().any(|glob| glob.is_match(action))))
            && self.fields.iter().all(|(name, wanted)| {
                let value = record.field(name).or_else(|| record.get(name));
                value.is_some_and(|value| text_of(value) == *wanted)
            })
            && self.grep.iter().all(|text| record.as_json().contains(text))
    }

    /// Returns whether records of this kind, which the log writes itself and have no actor and so on, can match.
    pub(crate) fn may_find(&self, kind: RecordKind) -> bool {
        let texts = [&self.actor, &self.resource, &self.outcome, &self.session, &self.request, &self.grep];
        texts.iter().all(|texts| texts.is_empty())
            && self.action.is_empty()
            && self.severity.is_none()
            && self.fields.is_empty()
            && (self.kind.is_empty() || self.kind.iter().any(|wanted| wanted == kind.as_str()))
    }

    /// Returns whether the chain, the sequence number and the time match.
    fn position_matches(&self, record: &Record) -> bool {
        (self.chain.is_empty() || self.chain.contains(&record.chain()))
            && self.seq.is_none_or(|range| (range.first..=range.last).contains(&record.seq()))
            && self.time_matches(record)
    }

    /// Returns whether the time matches. A record without a readable time matches neither `--since` nor `--until`.
    fn time_matches(&self, record: &Record) -> bool {
        let time = record.time();
        self.since.is_none_or(|since| time.is_some_and(|time| time >= since.system_time()))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until.system_time()))
    }
}
