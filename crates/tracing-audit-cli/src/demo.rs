//! `tracing-audit demo`.

mod damage;
mod writer;

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tracing_audit::{Head, segments};

use crate::{
    output::{escape, grouped},
    print, print_stderr,
    shell::quoted,
};
use damage::Damage;
use writer::{Role, WRITER};

/// Writes a realistic log to try this command on.
///
/// Four programs write it through the layer that applications use. A shop and a worker write at the same time, another shop
/// is killed in the middle (SIGKILL), and a last one continues after it. The log has sessions and requests in spans, failed
/// logins, critical events, and several segments. The events are the same in each run; times and ids are not.
///
/// With `--damage`, a copy named DIR-damaged is made beside the log and tampered with, to show what `verify` finds.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// The directory to write to. It must not exist, or be empty.
    log: PathBuf,

    /// Approximate number of events.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    events: u64,

    /// Tamper with a copy of the log, in this way.
    #[arg(long, value_name = "KIND")]
    damage: Option<Damage>,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit demo demo-log
  tracing-audit demo demo-log --damage edit && tracing-audit verify demo-log-damaged
  tracing-audit demo big-log --events 1000000

Exit codes: 0 written, 2 could not write.";

/// Runs this process as one of the writers, if it was started as one.
pub(crate) fn run_as_writer() -> Option<ExitCode> {
    let is_writer = std::env::args_os().nth(1).is_some_and(|first| first == WRITER);
    is_writer.then(|| match writer::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_stderr(&format!("tracing-audit: {error:#}"));
            ExitCode::from(2)
        }
    })
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode> {
        require_empty(&self.log)?;
        let copy = damaged_name(&self.log)?;
        if self.damage.is_some() {
            require_empty(&copy)?;
        }
        let heads = self.write()?;
        self.print_summary(&heads)?;
        if let Some(damage) = self.damage {
            let done = damage.apply(&self.log, &copy)?;
            print_damage(damage, &done, &copy, &heads);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the log. Returns the last head of each chain.
    fn write(&self) -> Result<Vec<Head>> {
        // The shares of the four writers, in percent.
        let part = |percent: u64| self.events * percent / 100;
        // Both have the log open before either begins, so that each gets a chain of its own.
        let shop = WriterProcess::start(&self.spec(Role::Shop, 1, part(35)))?;
        let worker = WriterProcess::start(&self.spec(Role::Worker, 2, part(25)))?;
        let (shop, worker) = (shop.begin()?, worker.begin()?);
        let first = shop.finish()?;
        let worker = worker.finish()?;
        WriterProcess::start(&self.spec(Role::Killed, 3, part(20)))?.begin()?.kill()?;
        let left = self.events - part(35) - part(25) - part(20);
        let last = WriterProcess::start(&self.spec(Role::Shop, 4, left))?.begin()?.finish()?;
        let mut heads = vec![last];
        // The last shop continues one of the chains, whose earlier head is outdated.
        heads.extend([worker, first].into_iter().filter(|head| head.chain() != last.chain()));
        Ok(heads)
    }

    fn spec(&self, role: Role, seed: u64, events: u64) -> Vec<OsString> {
        let numbers = [seed, events, self.events].map(|number| OsString::from(number.to_string()));
        // After `--` a path that begins with a hyphen is not taken for an option.
        let mut spec = vec![WRITER.into(), "--".into(), self.log.clone().into(), role.to_string().into()];
        spec.extend(numbers);
        spec
    }

    fn print_summary(&self, heads: &[Head]) -> Result<()> {
        let log = quoted(&self.log);
        let all = segments(&self.log)?;
        let bytes: u64 = all.iter().map(tracing_audit::Segment::bytes).sum();
        print(&format!(
            "{}: about {} events in {} segments, {} bytes.\n",
            escape(&self.log.display().to_string()),
            grouped(self.events),
            all.len(),
            grouped(bytes)
        ));
        print("Its heads, to keep elsewhere:\n");
        for head in heads {
            print(&format!("  {head}"));
        }
        print("\nTry:\n");
        for line in [
            format!("tracing-audit verify {log}"),
            format!("tracing-audit tail {log}"),
            format!("tracing-audit query {log} --action 'auth.*' --outcome denied --count"),
            format!("tracing-audit show {log} 000/42"),
            format!("tracing-audit stats {log} --by actor"),
            format!("tracing-audit doctor {log}"),
        ] {
            print(&format!("  {line}"));
        }
        if self.damage.is_none() {
            print("\nTo see what tampering looks like, run this with --damage edit.");
        }
        Ok(())
    }
}

fn print_damage(damage: Damage, done: &str, copy: &Path, heads: &[Head]) {
    let (shown, copy) = (copy.display().to_string(), quoted(copy));
    print(&format!("\n{} is a copy in which {done}. Try:\n", escape(&shown)));
    print(&format!("  tracing-audit verify {copy}"));
    if damage == Damage::Cut {
        for head in heads {
            print(&format!("  tracing-audit verify {copy} --head {head}"));
        }
        print(
            "\nWithout a head kept elsewhere, a truncated log looks like one whose program was killed there.",
        );
    }
}

fn require_empty(dir: &Path) -> Result<()> {
    let shown = dir.display();
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot write to {shown}")),
        Ok(mut names) => {
            ensure!(names.next().is_none(), "{shown} is not empty: name a directory that is not there yet");
            Ok(())
        }
    }
}

fn damaged_name(log: &Path) -> Result<PathBuf> {
    let Some(name) = log.file_name() else { bail!("{} has no name of its own", log.display()) };
    let mut name = name.to_owned();
    name.push("-damaged");
    Ok(log.with_file_name(name))
}

/// A writer in a process of its own, which has opened the log.
struct WriterProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl WriterProcess {
    fn start(spec: &[OsString]) -> Result<Self> {
        // A process of its own, because SIGKILL ends a whole process.
        let program = std::env::current_exe().context("cannot find this program again")?;
        let mut command = Command::new(program);
        command.args(spec).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a writer")?;
        let Some(stdout) = child.stdout.take() else { bail!("a writer has no output") };
        let mut process = Self { child, stdout: BufReader::new(stdout) };
        process.expect_line("open")?;
        Ok(process)
    }

    /// Lets the writer begin, which waits for a line on its standard input.
    fn begin(mut self) -> Result<Self> {
        let stdin = self.child.stdin.as_mut();
        let written = stdin.map(|stdin| writeln!(stdin)).transpose();
        written.context("cannot write to a writer process")?;
        Ok(self)
    }

    /// Waits for a line that begins with this word, and returns the rest of it.
    ///
    /// A writer that exits without it has printed the reason to standard error.
    fn expect_line(&mut self, what: &str) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("cannot read from a writer process")?;
        let word = line.trim_end();
        match word.split_once(' ') {
            Some((first, rest)) if first == what => Ok(rest.to_owned()),
            _ if word == what => Ok(String::new()),
            _ => {
                drop(self.child.kill());
                drop(self.child.wait());
                bail!("a writer process exited too early");
            }
        }
    }

    fn finish(mut self) -> Result<Head> {
        let head = self.expect_line("closed")?.parse()?;
        self.child.wait().context("cannot wait for a writer")?;
        Ok(head)
    }

    /// Kills the writer before it closes its log.
    fn kill(mut self) -> Result<()> {
        self.expect_line("amid")?;
        self.child.kill().context("cannot kill a writer")?;
        self.child.wait().context("cannot wait for a writer")?;
        Ok(())
    }
}
