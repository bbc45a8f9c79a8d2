//! An output file that appears only when it is complete, and never inside a log.

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

/// The mode of the file before the umask: readable by owner and group, like segments.
const MODE: u32 = 0o640;

/// Standard output, or a temporary file that replaces `path` once it is complete.
pub(crate) enum OutputFile {
    Stdout(BufWriter<io::Stdout>),
    File { path: PathBuf, file: BufWriter<NamedTempFile> },
}

impl OutputFile {
    /// Creates a temporary file beside `path`, or uses standard output if `path` is `-`.
    ///
    /// # Errors
    ///
    /// If `path` is in the directory of the log, is no regular file, or cannot be written.
    pub(crate) fn create(path: &Path, log: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout())));
        }
        let path = resolve(path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let log = log.canonicalize().with_context(|| format!("cannot open {}", log.display()))?;
        if parent.starts_with(&log) {
            bail!("{} is in the directory of the log; write it elsewhere", path.display());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tracing-audit-").suffix(".tmp").permissions(Permissions::from_mode(MODE));
        // In the same directory, because a rename works only within a file system.
        let file = builder.tempfile_in(parent);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::File { file: BufWriter::with_capacity(1 << 16, file), path })
    }

    /// Syncs the file and renames it to its final name, durably.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Self::File { path, file } = self else { return Ok(()) };
        let failed = || format!("cannot write {}", path.display());
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
        // Sync before the rename: otherwise a power cut could leave the new name with an incomplete file, see
        // fsync(2).
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&path).map_err(|error| error.error).with_context(failed)?;
        // The rename is durable only when the directory is synced, see fsync(2).
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

/// Turns the error of a closed pipe into success: the reader wants no more.
pub(crate) fn unless_unread(done: Result<ExitCode>) -> Result<ExitCode> {
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// Resolves the links in the path of a file that exists or will be created.
///
/// Only a regular file may be replaced: output to a pipe or a device has to go through standard output.
fn resolve(path: &Path) -> Result<PathBuf> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => bail!("{} is a directory; name a file", path.display()),
        Ok(found) if !found.is_file() => {
            bail!("{} is not a file; write with `-o -` and redirect standard output", path.display())
        }
        // Without links, so that the file is replaced and not the link to it.
        Ok(_) => Ok(path.canonicalize()?),
        Err(_) => {
            let name =
                path.file_name().with_context(|| format!("{} does not name a file", path.display()))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let parent = parent.canonicalize();
            Ok(parent.with_context(|| format!("cannot write {}", path.display()))?.join(name))
        }
    }
}
