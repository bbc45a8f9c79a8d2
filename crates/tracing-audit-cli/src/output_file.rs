//! A file that a command writes: it appears when it is complete, and never in a log.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::output::is_broken_pipe;

/// Who may read it: its owner and the group, as segments, less what the umask takes.
const MODE: u32 = 0o640;

/// What is written to.
pub(crate) enum OutputFile {
    Stdout(BufWriter<io::Stdout>),
    File { path: PathBuf, file: BufWriter<NamedTempFile> },
}

impl OutputFile {
    /// Begins a file beside the one that it will be, `-` for standard output.
    pub(crate) fn create(path: &Path, log: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout())));
        }
        let path = resolve(path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let log = log.canonicalize().with_context(|| format!("cannot open {}", log.display()))?;
        if parent.starts_with(&log) {
            bail!("{} lies in the directory of the log; write it elsewhere", path.display());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tracing-audit-").suffix(".tmp").permissions(Permissions::from_mode(MODE));
        let file = builder.tempfile_in(parent);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::File { file: BufWriter::with_capacity(1 << 16, file), path })
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Self::File { path, file } = self else { return Ok(()) };
        let failed = || format!("cannot write {}", path.display());
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&path).map_err(|error| error.error).with_context(failed)?;
        // Until then a power cut could take the name.
        let parent = path.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

/// A reader that has gone away wants no more, which is no failure.
pub(crate) fn unless_unread(done: Result<ExitCode>) -> Result<ExitCode> {
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// Where a file is or will be, without links. Only a file is replaced: what is written to a pipe or a device goes through
/// standard output.
fn resolve(path: &Path) -> Result<PathBuf> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => bail!("{} is a directory; name a file", path.display()),
        Ok(found) if !found.is_file() => {
            bail!("{} is no file; write with `-o -` and redirect standard output", path.display())
        }
        Ok(_) => Ok(path.canonicalize()?),
        Err(_) => {
            let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let parent = parent.canonicalize();
            Ok(parent.with_context(|| format!("cannot write {}", path.display()))?.join(name))
        }
    }
}
