//! Files of kept heads: one per line, with comments after `#`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tracing_audit::Head;

use crate::output::print_stderr;

/// A file of heads that has been read.
#[derive(Debug)]
pub(crate) struct HeadFile {
    path: PathBuf,
    pub(crate) heads: Vec<Head>,
    /// Whether the file did not exist.
    pub(crate) is_new: bool,
    /// Length of the file without an incomplete head at its end, in bytes.
    whole: u64,
    /// Whether the last line has no line feed, which then must be appended first.
    is_unfinished: bool,
}

impl HeadFile {
    /// Reads a file that must exist.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the heads in {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Reads a file that will be appended to, if it exists.
    ///
    /// A file in the directory of the log is refused, also through links: whoever can change the log could change it too.
    pub(crate) fn to_append(path: &Path, log: &Path) -> Result<Self> {
        let name = path.display();
        let inside = || {
            let log = log.canonicalize().ok()?;
            let target = target_of(path);
            let file = target.canonicalize().ok();
            let parent = parent_of(&target).canonicalize().ok();
            Some(
                file.is_some_and(|file| file.starts_with(&log))
                    || parent.is_some_and(|dir| dir.starts_with(&log)),
            )
        };
        if inside().unwrap_or(false) {
            bail!(
                "{name} is in the directory of the log, where whoever changes the log can change it too: keep heads \
                 elsewhere, best on another machine"
            );
        }
        // Checked before it is opened, because opening a FIFO blocks until there is a writer, see fifo(7).
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                bail!("{name} is not a file that heads can be appended to")
            }
            Ok(_) => Self::read(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self {
                path: path.to_owned(),
                heads: Vec::new(),
                is_new: true,
                whole: 0,
                is_unfinished: false,
            }),
            Err(error) => Err(error).with_context(|| format!("cannot read the heads in {name}")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut heads = Vec::new();
        let mut whole = 0;
        for (line, number) in text.split_inclusive('\n').zip(1_u64..) {
            let head = line.split('#').next().unwrap_or_default().trim();
            if !head.is_empty() {
                match head.parse() {
                    Ok(head) => heads.push(head),
                    // Only the last line can be incomplete, and only if it begins like a head. Anything else is a
                    // mistake in the file that must not be ignored.
                    Err(_) if !line.ends_with('\n') && is_begun(line) => {
                        print_stderr(&format!(
                            "tracing-audit: the last line of {} is an incomplete head, as a full disk leaves it: it is ignored",
                            path.display()
                        ));
                        break;
                    }
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!(
                                "line {number} of {} is not a head; a head is CHAIN/NUMBER:HASH",
                                path.display()
                            )
                        });
                    }
                }
            }
            whole += line.len() as u64;
        }
        let is_unfinished = whole == text.len() as u64 && !text.is_empty() && !text.ends_with('\n');
        Ok(Self { path: path.to_owned(), heads, is_new: false, whole, is_unfinished })
    }

    /// Appends the heads that the file does not have yet, and syncs the file even if there are none.
    ///
    /// A new file is readable by its owner only.
    pub(crate) fn append(&self, heads: &[Head]) -> Result<()> {
        self.try_append(heads).with_context(|| format!("cannot append the heads to {}", self.path.display()))
    }

    #[expect(clippy::disallowed_methods, reason = "the file that is truncated is not a segment")]
    fn try_append(&self, heads: &[Head]) -> Result<()> {
        let is_new = !self.path.exists();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        // Without the lock (flock(2)), a truncation below could cut off what another process appends.
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // Read again under the lock: another process may have appended since.
        let now = Self::parse(&self.path, &text)?;
        // All heads go into one write, so that a crash leaves at most one of them incomplete.
        let mut lines = String::from(if now.is_unfinished { "\n" } else { "" });
        let new = heads.iter().filter(|head| !now.heads.contains(head));
        lines.extend(new.map(|head| format!("{head}\n")));
        if now.whole < text.len() as u64 {
            file.set_len(now.whole)?;
        }
        // Sync even if nothing is new: the heads in the file may be from a run whose sync failed.
        let write = |file: &mut File| {
            file.write_all(lines.as_bytes())?;
            file.sync_all()
        };
        if let Err(error) = write(&mut file) {
            // An incomplete head is useless, and one that may not be durable must not look durable to the next run.
            drop(file.set_len(now.whole));
            return Err(error.into());
        }
        // A new name is durable only once its directory is synced, see fsync(2). Whoever may write the file may not be
        // allowed to open the directory, and some file systems cannot sync one. Then that was up to the process that created
        // the file.
        let synced = File::open(parent_of(&target_of(&self.path))).and_then(|parent| parent.sync_all());
        match synced {
            Err(error) if is_new || !is_refused(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Returns whether opening or syncing a directory was refused, which is no sign of a failing disk.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// Returns whether a line may be the beginning of a head: `000/35:3e7787`.
fn is_begun(line: &str) -> bool {
    let is = |text: &str, kind: fn(&u8) -> bool| text.as_bytes().iter().all(kind);
    let (chain, rest) = line.split_once('/').unwrap_or((line, ""));
    let (number, hash) = rest.split_once(':').unwrap_or((rest, ""));
    is(chain, u8::is_ascii_digit)
        && is(number, u8::is_ascii_digit)
        && hash.len() < 64
        && is(hash, u8::is_ascii_hexdigit)
}

/// Resolves the symlinks of a path, also if the target does not exist yet.
fn target_of(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // The kernel follows at most 40 links, see path_resolution(7).
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&target) else { break };
        target = parent_of(&target).join(link);
    }
    target
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
