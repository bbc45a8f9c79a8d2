//! Runs the steps, each in its own process, and collects their figures.

use std::{
    fs::File,
    io::{IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use crate::{
    Result, THREADS,
    figures::{Figures, Results},
    measure::{Measure, Scale, TURNS},
    plan::{Plan, Step},
};

/// Returns the directory for data: on the real disk, below a directory that `cargo clean` removes.
pub(crate) fn data_dir() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// Runs all steps of all rounds.
pub(crate) fn run(plan: &Plan) -> Result<Results> {
    let data = data_dir()?;
    let (in_rounds, once) = (plan.steps(true), plan.steps(false));
    let rounds = if in_rounds.is_empty() { 1 } else { plan.rounds };
    let in_a_round: usize = in_rounds.iter().map(|step| step.measure.turns()).sum();
    let mut progress = Progress::new(in_a_round * rounds + once.len());
    let mut results = Results::default();
    let mut kept = Kept::new(&data)?;
    for (round, turn) in (1..=rounds).flat_map(|round| (1..=TURNS).map(move |turn| (round, turn))) {
        results.begin_turn();
        let is_last = round == rounds && turn == TURNS;
        let due = in_rounds.iter().filter(|step| step.measure.is_due(turn));
        for step in due.chain(once.iter().filter(|_| is_last)) {
            progress.show(round, step);
            match kept.place(&data).and_then(|dir| measured(step, dir, plan.scale)) {
                Ok(figures) => results.note(step.contestant.name, step.measure.name(), &figures),
                Err(error) => {
                    let (name, measure) = (step.contestant.name, step.measure.name());
                    results.failures.push(format!("round {round}.{turn}, {name}, {measure}: {error}"));
                }
            }
        }
        if turn == TURNS && round < rounds {
            kept.remove(&data)?;
        }
    }
    progress.end();
    Ok(results)
}

/// The directories of the measurements of a round, kept until its end.
///
/// On a file system mounted with `discard`, a disk is slower for a while after gigabytes were removed, which would slow
/// down the next measurement.
struct Kept(Vec<TempDir>);

const PREFIX: &str = "bench-";
/// How long the disk rests after more than [`MUCH`] bytes were removed.
const REST: Duration = Duration::from_secs(20);
const MUCH: u64 = 1 << 30;

impl Kept {
    /// Removes what an aborted run left behind.
    fn new(data: &Path) -> Result<Self> {
        for entry in std::fs::read_dir(data)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self(Vec::new()))
    }

    /// Creates a directory for the next measurement.
    ///
    /// First, the data of earlier measurements is written back, which would otherwise happen during the syncs of this
    /// one. Then its pages are released: a page that is new to a virtual machine costs far more than a reused one.
    fn place(&mut self, data: &Path) -> Result<&Path> {
        write_back(data)?;
        if let Some(last) = self.0.last() {
            forget_pages(last.path())?;
        }
        self.0.push(tempfile::Builder::new().prefix(PREFIX).tempdir_in(data)?);
        Ok(self.0.last().ok_or("no directory")?.path())
    }

    /// Removes the directories, and waits until the disk has discarded their blocks.
    fn remove(&mut self, data: &Path) -> Result<()> {
        let bytes_before = fs2::available_space(data)?;
        self.0.clear();
        write_back(data)?;
        if fs2::available_space(data)?.saturating_sub(bytes_before) > MUCH {
            thread::sleep(REST);
        }
        Ok(())
    }
}

fn write_back(data: &Path) -> Result<()> {
    let status = Command::new("sync").arg("--file-system").arg(data).status()?;
    status.success().then_some(()).ok_or_else(|| "cannot sync the file system".into())
}

/// Drops the files of a directory from the page cache (`posix_fadvise(2)`).
fn forget_pages(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_pages(&path)?;
        } else {
            fadvise(File::open(&path)?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Runs one step in its own process and directory.
fn measured(step: &Step, dir: &Path, scale: Scale) -> Result<Figures> {
    let program = std::env::current_exe()?;
    let mut command = if step.measure == Measure::MemoryStalled {
        hanging_syncs(&program)?
    } else {
        Command::new(&program)
    };
    command.args(["child", step.contestant.name, step.measure.name()]).arg(dir);
    command.arg(if scale.is_quick { "quick" } else { "full" });
    if let Some(threads) = step.threads {
        command.env(THREADS, threads.to_string());
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = within(child, step.measure.limit())?;
    let figures = Figures::parse(&output);
    if figures.iter().next().is_none() {
        return Err("it printed no figure".into());
    }
    Ok(figures)
}

/// Returns a command that runs the program with hanging syncs: after the first few, each takes longer than the
/// measurement.
fn hanging_syncs(program: &Path) -> Result<Command> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Err("left out: strace is not installed".into());
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    command.args(["-e", "inject=fsync,fdatasync:delay_enter=60000000:when=20+"]).arg(program);
    Ok(command)
}

/// Returns what a process printed. Kills it if it takes longer than `limit`.
fn within(mut child: Child, limit: Duration) -> Result<String> {
    let output = reader(child.stdout.take());
    let errors = reader(child.stderr.take());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(format!("killed after {} s", limit.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let [output, errors] = [output, errors].map(|reader| reader.join().unwrap_or_default());
    if !status.success() {
        let last = errors.trim().lines().last().unwrap_or("no message").to_owned();
        return Err(format!("{status}: {last}").into());
    }
    Ok(output)
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // If the pipe breaks, what was read before is used.
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A progress line on standard error.
struct Progress {
    begun: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { begun: Instant::now(), done: 0, all }
    }

    fn show(&mut self, round: usize, step: &Step) {
        let seconds = self.begun.elapsed().as_secs();
        let left = (seconds * (self.all - self.done) as u64).checked_div(self.done as u64);
        let left = left.map_or_else(String::new, |left| format!(", about {left} s left"));
        self.done += 1;
        let threads = step.threads.map_or_else(String::new, |threads| format!(" {threads} threads"));
        let text = format!(
            "[{}/{}] round {round}: {} {}{threads} ({seconds} s{left})",
            self.done,
            self.all,
            step.contestant.name,
            step.measure.name()
        );
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
            std::io::stderr().flush().unwrap_or_default();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        eprintln!("measured in {} s", self.begun.elapsed().as_secs());
    }
}
