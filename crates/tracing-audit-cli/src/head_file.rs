//! Files in which heads are kept: one a line, with comments behind `#`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tracing_audit::Head;

use crate::output::print_stderr;

/// A file of heads, as it was read.
#[derive(Debug)]
pub(crate) struct HeadFile {
    path: PathBuf,
    pub(crate) heads: Vec<Head>,
    /// Whether there was no file.
    pub(crate) is_new: bool,
    /// How much of the file is whole: half a head at its end is not.
    whole: u64,
    /// Whether a line feed must come before what is appended.
    is_unfinished: bool,
}

impl HeadFile {
    /// Reads a file that must be there.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the heads in {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Reads a file to append to, if it is there. One in the directory of the log is refused: whoever changes the log
    /// could change it too.
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
        // Asked before it is opened, since opening a pipe waits for who writes.
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => bail!("{name} is no file that heads can be appended to"),
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
            let said = line.split('#').next().unwrap_or_default().trim();
            if !said.is_empty() {
                match said.parse() {
                    Ok(head) => heads.push(head),
                    Err(_) if !line.ends_with('\n') && is_begun(line) => {
                        print_stderr(&format!(
                            "tracing-audit: the last line of {} is half a head, as a full disk leaves it: it is passed over",
                            path.display()
                        ));
                        break;
                    }
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!(
                                "line {number} of {} is no head; a head is CHAIN/NUMBER:HASH",
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

    /// Appends the heads that are not there yet, durably; also those that are there are durable then. A new file is for its
    /// owner only.
    pub(crate) fn append(&self, heads: &[Head]) -> Result<()> {
        self.try_append(heads).with_context(|| format!("cannot append the heads to {}", self.path.display()))
    }

    #[expect(clippy::disallowed_methods, reason = "it is no segment that is cut back")]
    fn try_append(&self, heads: &[Head]) -> Result<()> {
        let is_new = !self.path.exists();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        // Another one may append, and would be cut off.
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let now = Self::parse(&self.path, &text)?;
        let mut lines = String::from(if now.is_unfinished { "\n" } else { "" });
        let new = heads.iter().filter(|head| !now.heads.contains(head));
        lines.extend(new.map(|head| format!("{head}\n")));
        if now.whole < text.len() as u64 {
            file.set_len(now.whole)?;
        }
        // What is there may be from a run that could not sync it.
        let write = |file: &mut File| {
            file.write_all(lines.as_bytes())?;
            file.sync_all()
        };
        if let Err(error) = write(&mut file) {
            // Half a head is none, and one that may not be durable must not look so to the next run.
            drop(file.set_len(now.whole));
            return Err(error.into());
        }
        // The name is not durable before its directory is. Whoever may write the file need not be allowed to open that, and some
        // file systems sync no directory: then the one who made the file has to see to it.
        let synced = File::open(parent_of(&target_of(&self.path))).and_then(|parent| parent.sync_all());
        match synced {
            Err(error) if is_new || !is_refused(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether a directory may not be opened or cannot be synced, which says nothing of its disk.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// Whether a line may be the beginning of a head: `000/35:3e7787`.
fn is_begun(line: &str) -> bool {
    let is = |text: &str, kind: fn(&u8) -> bool| text.as_bytes().iter().all(kind);
    let (chain, rest) = line.split_once('/').unwrap_or((line, ""));
    let (number, hash) = rest.split_once(':').unwrap_or((rest, ""));
    is(chain, u8::is_ascii_digit)
        && is(number, u8::is_ascii_digit)
        && hash.len() < 64
        && is(hash, u8::is_ascii_hexdigit)
}

/// What a path leads to, also where that is not there yet.
fn target_of(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // As many links as the kernel follows.
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&target) else { break };
        target = parent_of(&target).join(link);
    }
    target
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
