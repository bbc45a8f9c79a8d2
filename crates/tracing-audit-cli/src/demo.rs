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
    print, say,
    shell::quoted,
};
use damage::Damage;
use writer::{Role, WRITER};

/// Writes a realistic log to try this command on.
///
/// Four programs write it, through the layer that applications use: a shop and a worker at the same time, a shop that is
/// killed in the middle (SIGKILL), and one that goes on behind that. There are sessions and requests in spans, failed logins,
/// critical events, and several segments. What they record is the same each time; times and ids are not.
///
/// With `--damage`, a copy of the log is made beside it, named DIR-damaged, and tampered with, so that it can be seen what
/// `verify` finds.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// The directory to write to: one that is not there, or empty.
    log: PathBuf,

    /// How many events, roughly.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    events: u64,

    /// Tampers with a copy.
    #[arg(long, value_name = "KIND")]
    damage: Option<Damage>,
}

const EXAMPLES: &str = "\
Examples:
  tracing-audit demo demo-log
  tracing-audit demo demo-log --damage edit && tracing-audit verify demo-log-damaged
  tracing-audit demo big-log --events 1000000

Exit codes: 0 written, 2 could not write.";

/// Runs the program as one of the writers, if it was started as that.
pub(crate) fn run_as_writer() -> Option<ExitCode> {
    let is_writer = std::env::args_os().nth(1).is_some_and(|first| first == WRITER);
    is_writer.then(|| match writer::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tracing-audit: {error:#}"));
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
        self.tell(&heads)?;
        if let Some(damage) = self.damage {
            let done = damage.apply(&self.log, &copy)?;
            tell_damage(damage, &done, &copy, &heads);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the log; returns the last head of each chain.
    fn write(&self) -> Result<Vec<Head>> {
        let part = |percent: u64| self.events * percent / 100;
        let shop = Started::start(&self.spec(Role::Shop, 1, part(35)))?;
        let worker = Started::start(&self.spec(Role::Worker, 2, part(25)))?;
        let (shop, worker) = (shop.go()?, worker.go()?);
        let first = shop.finish()?;
        let worker = worker.finish()?;
        Started::start(&self.spec(Role::Killed, 3, part(20)))?.go()?.kill()?;
        let left = self.events - part(35) - part(25) - part(20);
        let last = Started::start(&self.spec(Role::Shop, 4, left))?.go()?.finish()?;
        let mut heads = vec![last];
        heads.extend([worker, first].into_iter().filter(|head| head.chain() != last.chain()));
        Ok(heads)
    }

    fn spec(&self, role: Role, seed: u64, events: u64) -> Vec<OsString> {
        let numbers = [seed, events, self.events].map(|number| OsString::from(number.to_string()));
        // A path is none of the options, whatever it begins with.
        let mut spec = vec![WRITER.into(), "--".into(), self.log.clone().into(), role.to_string().into()];
        spec.extend(numbers);
        spec
    }

    fn tell(&self, heads: &[Head]) -> Result<()> {
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
            print("\nTo see what tampering looks like, write one with --damage edit.");
        }
        Ok(())
    }
}

fn tell_damage(damage: Damage, done: &str, copy: &Path, heads: &[Head]) {
    let (shown, copy) = (copy.display().to_string(), quoted(copy));
    print(&format!("\n{} is a copy in which {done}. Try:\n", escape(&shown)));
    print(&format!("  tracing-audit verify {copy}"));
    if damage == Damage::Cut {
        for head in heads {
            print(&format!("  tracing-audit verify {copy} --head {head}"));
        }
        print("\nWithout a head that was kept elsewhere, a cut looks like a program that was killed there.");
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

/// A writer that has opened the log.
struct Started {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Started {
    fn start(spec: &[OsString]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program again")?;
        let mut command = Command::new(program);
        command.args(spec).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a writer")?;
        let Some(stdout) = child.stdout.take() else { bail!("a writer has no output") };
        let mut started = Self { child, said: BufReader::new(stdout) };
        started.hear("open")?;
        Ok(started)
    }

    /// Lets it begin.
    fn go(mut self) -> Result<Self> {
        let stdin = self.child.stdin.as_mut();
        let told = stdin.map(|stdin| writeln!(stdin)).transpose();
        told.context("cannot speak to a writer")?;
        Ok(self)
    }

    /// Waits for the next word; a writer that ends without it has said why.
    fn hear(&mut self, what: &str) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("cannot hear a writer")?;
        let word = line.trim_end();
        match word.split_once(' ') {
            Some((first, rest)) if first == what => Ok(rest.to_owned()),
            _ if word == what => Ok(String::new()),
            _ => {
                drop(self.child.kill());
                drop(self.child.wait());
                bail!("a writer ended before it was done");
            }
        }
    }

    fn finish(mut self) -> Result<Head> {
        let head = self.hear("closed")?.parse()?;
        self.child.wait().context("cannot wait for a writer")?;
        Ok(head)
    }

    /// Kills a writer that is in the middle of it.
    fn kill(mut self) -> Result<()> {
        self.hear("amid")?;
        self.child.kill().context("cannot kill a writer")?;
        self.child.wait().context("cannot wait for a writer")?;
        Ok(())
    }
}
