//! The files of a collector: each log in a directory that `verify` accepts, and the heads beside them.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use fs2::FileExt as _;

use super::{
    chain::CollectedChain,
    table::{private, replace},
};
use crate::{error::Error, kept::Kept};

/// Maximum number of files that are synced one by one. A fleet can have thousands, and syncing each would
/// take longer than their records take to arrive.
const MAX_SYNCED: usize = 256;

/// The directory of a collector, locked against other collectors.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Opened before anything is written, so that syncfs(2) on it reports every writeback that failed since.
    root: Kept,
    _lock: Kept,
}

impl Directory {
    /// Opens the directory, creates it if it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        make(path).map_err(|error| Error::io("make", path)(error))?;
        let failed = |error| Error::io("lock", path)(error);
        let lock = Kept::open(private().write(true).create(true), &path.join("lock")).map_err(failed)?;
        match lock.get().map_err(failed)?.try_lock_exclusive() {
            Ok(()) => {}
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
                return Err(Error::CollectorRuns { path: path.to_owned() });
            }
            Err(error) => return Err(failed(error)),
        }
        let root = Kept::open(File::options().read(true), path);
        let root = root.map_err(|error| Error::io("open", path)(error))?;
        Ok(Self { path: path.to_owned(), root, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of all logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Returns the directory of a log.
    pub(super) fn log(&self, log: &str) -> PathBuf {
        self.logs().join(log)
    }

    fn segment(&self, chain: &CollectedChain) -> Option<PathBuf> {
        Some(self.log(chain.log.as_deref()?).join(chain.file_name()))
    }

    /// Returns how many bytes a file has beyond what the table records. The inner `Err` describes a file that
    /// has less.
    pub(super) fn surplus(&self, chain: &CollectedChain) -> Result<Result<u64, String>, Error> {
        let Some(path) = self.segment(chain) else { return Ok(Ok(0)) };
        match fs::symlink_metadata(&path) {
            Ok(data) if !data.is_file() => Ok(Err(format!("{} is not a regular file", path.display()))),
            Ok(data) => Ok(data.len().checked_sub(chain.bytes).ok_or_else(|| {
                format!("{} has {} bytes, and the table says {}", path.display(), data.len(), chain.bytes)
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Err(format!("{} is in the table, and is not here", path.display())))
            }
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// Cuts off what the table does not record: no sync covered it. If the stream no longer has it, it is
    /// moved to `cut/`.
    pub(super) fn cut(&self, chain: &CollectedChain, is_in_stream: bool) -> Result<(), Error> {
        let Some(path) = self.segment(chain) else { return Ok(()) };
        let failed = |error| Error::io("cut", &path)(error);
        let mut file = private().read(true).write(true).open(&path).map_err(failed)?;
        if !is_in_stream {
            let mut rest = Vec::new();
            file.seek(SeekFrom::Start(chain.bytes)).map_err(failed)?;
            file.read_to_end(&mut rest).map_err(failed)?;
            let aside = self.path.join("cut");
            make(&aside).map_err(|error| Error::io("make", &aside)(error))?;
            let log = chain.log.as_deref().unwrap_or_default().replace('/', "+");
            let name =
                |number: u32| aside.join(format!("{log}+{}+{}+{number}", chain.file_name(), chain.bytes));
            let free = (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_default();
            // Durable before the cut below: these lines exist nowhere else.
            replace(&free, &rest, true).map_err(|error| Error::io("write", aside)(error))?;
        }
        // Not synced: if a crash undoes the cut, the next start cuts again, and lines appended later are synced
        // with the length.
        #[expect(clippy::disallowed_methods, reason = "it is a copy")]
        file.set_len(chain.bytes).map_err(failed)
    }

    /// Syncs the files written since the last sync, and their names. `begun` are the new files.
    pub(super) fn sync(&self, written: &BTreeSet<PathBuf>, begun: &BTreeSet<PathBuf>) -> Result<(), Error> {
        if written.len() > MAX_SYNCED {
            let synced = self.root.get().and_then(sync_all_below);
            return synced.map_err(|error| Error::io("sync", &self.path)(error));
        }
        for path in written {
            let synced = File::open(path).and_then(|file| file.sync_data());
            synced.map_err(|error| Error::io("sync", path)(error))?;
        }
        let above = begun.iter().flat_map(|path| path.ancestors().skip(1));
        let dirs: BTreeSet<&Path> = above.filter(|dir| dir.starts_with(&self.path)).collect();
        // Deepest first, so that a durable name always leads to a durable directory.
        for dir in dirs.into_iter().rev() {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|error| Error::io("sync", dir)(error))?;
        }
        Ok(())
    }

    /// Writes the heads of a log for `verify --heads`. They can be derived from the table again, so nothing
    /// is synced.
    pub(super) fn write_heads(&self, log: &str, chains: &[&CollectedChain]) -> Result<(), Error> {
        let path = self.path.join("heads").join(log);
        if let Some(parent) = path.parent() {
            make(parent).map_err(|error| Error::io("make", parent)(error))?;
        }
        let mut text = format!("# The heads of {log}, as they were collected.\n");
        for chain in chains {
            if let Some(head) = chain.head() {
                let ts = chain.ts.as_deref().unwrap_or("no time");
                text.extend([&head.to_string(), "  # ", &chain.chain_id, " ", ts, "\n"]);
            }
        }
        replace(&path, text.as_bytes(), false).map_err(|error| Error::io("write", path)(error))
    }
}

/// Appends lines to a segment, or begins it with them. A file that is begun is in no table yet, so existing
/// content is replaced.
pub(super) fn append(path: &Path, begins: bool, lines: &[u8]) -> Result<(), Error> {
    let failed = |error| Error::io("write", path)(error);
    let mut options = private();
    if begins {
        if let Some(parent) = path.parent() {
            make(parent).map_err(|error| Error::io("make", parent)(error))?;
        }
        options.write(true).create(true).truncate(true);
    } else {
        options.append(true);
    }
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(lines).map_err(failed)
}

/// Syncs the whole file system: one call for any number of files. It also waits for what others write there.
#[cfg(target_os = "linux")]
fn sync_all_below(root: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all_below(_: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Returns whether a directory exists and has any entry.
pub(super) fn has_anything(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
