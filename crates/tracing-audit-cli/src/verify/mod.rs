//! `tracing-audit verify`.

mod against;
mod copy;
mod json;
mod neighbours;
mod print;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_audit::{Head, Report, Verdict, Verifier, segments};

use crate::{
    directory::explain,
    head_file::HeadFile,
    lookup::record_at,
    output::{escape, print, print_stderr},
    store::Store,
};
use against::Comparison;
use neighbours::{Neighbours, UnconfirmedLookup};

/// Limit of the findings, notes and so on of a kind that are printed.
const MAX_PRINTED: usize = 20;

/// Checks that nothing in a log was changed, removed or inserted.
///
/// Reads every record, computes its hash, and follows the links between records. Changes nothing, needs no key, and works
/// while programs write the log. The files alone cannot show that their end was cut off: pass heads kept elsewhere.
///
/// The first word is the result: PASS, UNCLEAN, FAIL or UNCOMPARED. UNCLEAN means that nothing durable is altered, but a
/// program crashed or was killed. UNCOMPARED means that no record could be compared with the copy. The last part lists what was
/// not checked, and what that would have needed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tracing-audit verify /var/lib/shop/audit-log
  tracing-audit verify /var/lib/shop/audit-log --heads heads.txt
  tracing-audit verify /var/lib/shop/audit-log --append-heads heads.txt   (every day, by a timer)
  tracing-audit verify /srv/audit/*/                                      (a table at the end)
  tracing-audit verify /var/lib/shop/audit-log --against /mnt/archive     (with .gz and .zst)
  tracing-audit verify /var/lib/shop/audit-log --json | jq .verdict
  tracing-audit verify s3://audit-archive/logs --heads heads.txt          (streams, stores nothing)

Exit codes: 0 intact; 1 damaged, or different from the copy; 2 could not check, or had nothing to compare; 3 unclean.
For several logs: 1 if any is damaged, else 2 if any could not be checked, else 3 if any is unclean, else 0.")]
pub(crate) struct Verify {
    /// The directory of a log, or several; or one forwarded copy: `file:PATH`, `postgres://USER@HOST/DATABASE`,
    /// `tls://HOST/STREAM` or `nats://HOST/STREAM`, `s3://BUCKET/PREFIX` or `archive:DIR`.
    #[arg(required = true, value_name = "DIR")]
    logs: Vec<OsString>,

    /// For a copy: the log that was forwarded, which shows where forwarding began and which records the store refused.
    #[arg(long, value_name = "DIR")]
    of: Option<PathBuf>,

    /// For a copy: the name of the forwarder. Default: the kind of store.
    #[arg(long)]
    name: Option<String>,

    /// A head kept elsewhere, as returned by `heads`, `close`, `confirm` and `on_head`, which the log must have. May be given
    /// more than once.
    #[arg(long = "head", value_name = "HEAD")]
    heads: Vec<Head>,

    /// A file with a head on each line; `#` begins a comment. May be given more than once.
    #[arg(long = "heads", value_name = "FILE")]
    head_files: Vec<PathBuf>,

    /// Like `--heads`, then append the verified heads to the file, durably, unless the result is FAIL. If the file does not
    /// exist, it is created, readable by its owner only. It must not be in the directory of the log.
    #[arg(long, value_name = "FILE")]
    append_heads: Option<PathBuf>,

    /// Also compare the log with a copy, a directory of segments, plain or compressed as `.gz` or `.zst`. The log must have
    /// every record that the copy has.
    #[arg(long, value_name = "COPY")]
    against: Option<PathBuf>,

    /// Print a JSON object for each log, on one line; its schema is in docs/command.md.
    #[arg(long)]
    json: bool,

    /// Number of threads that compute hashes, 1 to 1024. Default: the number of processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Print only the verdict.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// The result of checking one log.
struct Checked {
    report: Report,
    /// The heads that it was checked against.
    kept: Vec<Head>,
    /// The times of the first and the last record of each chain.
    times: BTreeMap<u16, (Option<String>, Option<String>)>,
    /// The lines around findings, by the index of the finding.
    places: BTreeMap<usize, Neighbours>,
    against: Option<Comparison>,
}

impl Checked {
    /// Returns whether the copy differs from the log.
    fn parts(&self) -> bool {
        self.against.as_ref().is_some_and(|comparison| comparison.parts)
    }

    /// Returns whether a copy was given that has no record in common with the log.
    fn compared_nothing(&self) -> bool {
        self.against.as_ref().is_some_and(|comparison| comparison.same == 0)
    }

    /// Returns the first word of the output.
    fn result(&self) -> &'static str {
        match self.report.verdict() {
            _ if self.parts() => "FAIL",
            Verdict::Intact | Verdict::Unclean if self.compared_nothing() => "UNCOMPARED",
            Verdict::Intact => "PASS",
            Verdict::Unclean => "UNCLEAN",
            _ => "FAIL",
        }
    }

    fn exit_code(&self) -> u8 {
        match self.result() {
            "UNCOMPARED" => 2,
            "FAIL" => 1,
            _ => exit_code_of(self.report.verdict()),
        }
    }
}

/// Returns the exit code of a verdict.
pub(crate) fn exit_code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Intact => 0,
        Verdict::Unclean => 3,
        _ => 1,
    }
}

impl Verify {
    pub(crate) fn run(self) -> Result<ExitCode> {
        // Only a single argument may be a forwarded copy: several are always directories.
        if let [log] = &*self.logs {
            if let Some(store) = store_of(log)? {
                return self.run_on_copy(store);
            }
            self.refuse_options_of_copies()?;
            return self.run_on_one(Path::new(log)).map(ExitCode::from);
        }
        self.refuse_options_of_copies()?;
        if !self.heads.is_empty()
            || !self.head_files.is_empty()
            || self.append_heads.is_some()
            || self.against.is_some()
        {
            bail!("heads and copies belong to one log: verify that one alone");
        }
        Ok(self.run_on_several())
    }

    fn refuse_options_of_copies(&self) -> Result<()> {
        if self.of.is_some() || self.name.is_some() {
            bail!(
                "--of and --name are for a forwarded copy (`file:PATH`), and this is the directory of a log"
            );
        }
        Ok(())
    }

    fn run_on_one(&self, log: &Path) -> Result<u8> {
        let checked = match self.check(log) {
            Ok(checked) => checked,
            Err(error) => {
                if self.json {
                    print(&json::failed(log, &error));
                }
                return Err(error);
            }
        };
        self.show(&checked);
        self.append(&checked)?;
        Ok(checked.exit_code())
    }

    /// Checks one log after the other, and prints a table at the end.
    fn run_on_several(&self) -> ExitCode {
        let mut rows = Vec::new();
        for log in self.logs.iter().map(Path::new) {
            match self.check(log) {
                Ok(checked) => {
                    if self.quiet {
                        print(&format!("{}  {}", checked.report.verdict(), escape(&log.to_string_lossy())));
                    } else {
                        self.show(&checked);
                        if !self.json {
                            print("");
                        }
                    }
                    rows.push(print::Row::of(log, &checked));
                }
                Err(error) => {
                    print_stderr(&format!("tracing-audit: {error:#}"));
                    if self.json {
                        print(&json::failed(log, &error));
                    }
                    rows.push(print::Row::failed(log));
                }
            }
        }
        if !self.json && !self.quiet {
            print(&print::table(&rows));
        }
        // Damage comes first: a log that could not be checked must not hide a damaged one.
        let worst = [1, 2, 3].into_iter().find(|code| rows.iter().any(|row| row.exit_code == *code));
        ExitCode::from(worst.unwrap_or(0))
    }

    fn show(&self, checked: &Checked) {
        if self.json {
            print(&json::of(checked));
        } else if self.quiet {
            let verdict = if checked.parts() { Verdict::Damaged } else { checked.report.verdict() };
            print(if checked.exit_code() == 2 { "uncompared" } else { verdict.as_str() });
        } else {
            print(print::text(checked).trim_end());
        }
    }

    /// Returns the heads that were given, and the file that new ones are appended to.
    fn kept(&self, log: Option<&Path>) -> Result<(Vec<Head>, Option<HeadFile>)> {
        let mut heads = self.heads.clone();
        for file in &self.head_files {
            heads.extend(HeadFile::read(file)?.heads);
        }
        let Some((file, log)) = self.append_heads.as_ref().zip(log) else { return Ok((heads, None)) };
        let kept = HeadFile::to_append(file, log)?;
        // The heads that are already in the file are checked, too.
        heads.extend(&kept.heads);
        Ok((heads, Some(kept)))
    }

    fn check(&self, log: &Path) -> Result<Checked> {
        let cannot = || format!("cannot verify {}", log.display());
        let (kept, file) = self.kept(Some(log))?;
        if let Some(file) = file.filter(|file| file.is_new) {
            print_stderr(&format!(
                "{} is new: there was no head yet to check against",
                file.path().display()
            ));
        }
        // All kept heads are checked, not only the newest: an old one shows which part of the log was rewritten.
        let mut verifier = kept.iter().fold(Verifier::new(log), |verifier, head| verifier.expect_head(*head));
        if let Some(threads) = self.threads {
            verifier = verifier.threads(threads.into());
        }
        // The bar is on standard error, so that standard output can be redirected.
        let bar = self.progress(log);
        if let Some(bar) = bar.clone() {
            verifier = verifier.progress(move |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
        }
        let report = verifier.run();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let report = report.map_err(|error| explain(log, error)).with_context(cannot)?;
        let against = self.against.as_ref().map(|copy| against::compare(log, copy)).transpose();
        let against = against.with_context(|| format!("cannot compare {} with its copy", log.display()))?;
        let (mut times, mut places) = (BTreeMap::new(), BTreeMap::new());
        if !self.quiet {
            times = report.chains().iter().map(|chain| (chain.chain(), times_of(log, chain))).collect();
            places = places_of(log, &report);
        }
        Ok(Checked { report, kept, times, places, against })
    }

    /// Appends the heads, unless the result is FAIL.
    fn append(&self, checked: &Checked) -> Result<()> {
        let Some(file) = &self.append_heads else { return Ok(()) };
        if checked.exit_code() == 1 {
            print_stderr(&format!("no head was appended to {}, since the result is FAIL", file.display()));
            return Ok(());
        }
        // Read the file again: another process may have appended the same heads meanwhile.
        HeadFile::to_append(file, checked.report.path())?.append(checked.report.heads())
    }

    /// Makes a progress bar on standard error, if that is a terminal.
    fn progress(&self, log: &Path) -> Option<ProgressBar> {
        // `indicatif` hides the bar if standard error is not a terminal.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if self.quiet || bar.is_hidden() {
            return None;
        }
        let style =
            "{prefix}  {percent:>3} %  {wide_bar}  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(escape(&log.to_string_lossy()).into_owned());
        // Show the bar at once: the first progress may take a while.
        bar.tick();
        Some(bar)
    }
}

/// Returns the store that an argument names, or `None` for a directory.
///
/// An existing directory is one, and so is any path with a `/` before its first `:`.
fn store_of(log: &OsStr) -> Result<Option<Store<'_>>> {
    let Some(url) = log.to_str().filter(|_| !Path::new(log).is_dir()) else { return Ok(None) };
    match url.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => Store::parse(url),
        _ => Ok(None),
    }
}

/// Returns the times of the first and the last record of a chain, without reading the records in between.
fn times_of(log: &Path, chain: &tracing_audit::ChainReport) -> (Option<String>, Option<String>) {
    let time = |seq: Option<u64>| record_at(log, chain.chain(), seq?)?.timestamp().map(str::to_owned);
    (time(chain.first_seq()), time(chain.last_seq()))
}

/// Reads the lines around the findings that are printed.
fn places_of(log: &Path, report: &Report) -> BTreeMap<usize, Neighbours> {
    let mut places = BTreeMap::new();
    if report.findings().is_empty() {
        return places;
    }
    let Ok(segments) = segments(log) else { return places };
    let unconfirmed = UnconfirmedLookup::of(log);
    let mut printed = BTreeMap::<_, usize>::new();
    for (index, finding) in report.findings().iter().enumerate() {
        let of_kind = printed.entry(finding.kind()).or_default();
        *of_kind += 1;
        if *of_kind <= MAX_PRINTED
            && let Some(place) = Neighbours::of(&segments, &unconfirmed, finding)
        {
            places.insert(index, place);
        }
    }
    places
}
