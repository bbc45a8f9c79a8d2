//! Files in which heads are kept: one a line, with comments behind `#`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tracing_audit::Head;

/// A file of heads, as it was read.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    pub(crate) heads: Vec<Head>,
    /// Whether there was no file.
    pub(crate) is_new: bool,
    /// Whether a line feed must come before what is appended.
    is_unfinished: bool,
}

impl Kept {
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
            let file = path.canonicalize().ok();
            let parent = parent_of(path).canonicalize().ok();
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
        match File::open(path) {
            Ok(mut file) => {
                if !file.metadata()?.is_file() {
                    bail!("{name} is no file that heads can be appended to");
                }
                let mut text = String::new();
                file.read_to_string(&mut text).with_context(|| format!("cannot read the heads in {name}"))?;
                Self::parse(path, &text)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path: path.to_owned(), heads: Vec::new(), is_new: true, is_unfinished: false })
            }
            Err(error) => Err(error).with_context(|| format!("cannot read the heads in {name}")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut heads = Vec::new();
        for (line, number) in text.lines().zip(1_u64..) {
            let said = line.split('#').next().unwrap_or_default().trim();
            if !said.is_empty() {
                let head = said.parse().with_context(|| {
                    format!("line {number} of {} is no head; a head is CHAIN/NUMBER:HASH", path.display())
                })?;
                heads.push(head);
            }
        }
        let is_unfinished = !text.is_empty() && !text.ends_with('\n');
        Ok(Self { path: path.to_owned(), heads, is_new: false, is_unfinished })
    }

    /// Appends the heads that are not there yet, durably. A new file is for its owner only.
    pub(crate) fn append(&self, heads: &[Head]) -> Result<()> {
        let mut lines = String::from(if self.is_unfinished { "\n" } else { "" });
        let new = heads.iter().filter(|head| !self.heads.contains(head));
        lines.extend(new.map(|head| format!("{head}\n")));
        if lines.trim().is_empty() {
            return Ok(());
        }
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            file.write_all(lines.as_bytes())?;
            file.sync_all()?;
            if self.is_new {
                // The name is not durable before its directory is.
                File::open(parent_of(&self.path))?.sync_all()?;
            }
            io::Result::Ok(())
        };
        write().with_context(|| format!("cannot append the heads to {}", self.path.display()))
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
