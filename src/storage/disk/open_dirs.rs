//! Where a log lies: its directory, and that one's place in its parent. Once they are open no path is followed any
//! more: the program may have another root by then, and somebody may have put another directory at the path.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{ANY_MODE, CONTROL, DiskOptions, filesystem_of, held::Held, refusal, stat_at};
use crate::{error::InsecureReason, storage::Dir};

/// How a directory is opened that names are looked up in. Whoever may not list it may do that all the same.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const SEARCH: OFlags = LIST;

/// How a directory is opened that is listed and synced too.
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directories of a log, open.
#[derive(Debug)]
pub(super) struct OpenDirs {
    /// `None` in a log that is only read: it is wherever its directory is.
    parent: Option<Parent>,
    log: Held,
    /// `None` in a log that is only read and has no `control`.
    control: Option<Held>,
}

/// The directory that has the one of the log, and the name there.
#[derive(Debug, Clone)]
struct Parent {
    path: PathBuf,
    dir: Arc<Held>,
    name: OsString,
}

impl OpenDirs {
    /// Opens a log to write: makes what is missing, refuses what is unsafe, and makes every name on the way durable.
    pub(super) fn create(root: &Path, options: DiskOptions) -> io::Result<Self> {
        let path = root.parent().unwrap_or(root);
        let made = make_parents(path)?;
        let dir = Arc::new(Held::open(|| rustix::fs::open(path, SEARCH, Mode::empty()))?);
        let place = Self::within(Parent { path: path.to_owned(), dir, name: name_of(root) }, options)?;
        sync_above(root, made)?;
        Ok(place)
    }

    /// Opens a log that exists, to read.
    pub(super) fn of_existing(root: &Path) -> io::Result<Self> {
        let log = Held::open(|| rustix::fs::open(root, LIST, Mode::empty()))?;
        let control = match open_dir(log.get()?, CONTROL.as_ref(), LIST) {
            // Which locks there are it may be told all the same.
            Err(error) if is(&error, &[Errno::ACCESS]) => open_dir(log.get()?, CONTROL.as_ref(), SEARCH),
            opened => opened,
        };
        let control = match control {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self { parent: None, log, control })
    }

    /// Opens what lies at the place of the log now, and makes it anew there where it was removed.
    pub(super) fn again(&self, options: DiskOptions) -> io::Result<Self> {
        let Some(mut parent) = self.parent.clone() else { return Err(Errno::BADF.into()) };
        // What was closed is known to be before anything else gets its number.
        for held in [Some(&self.log), self.control.as_ref()].into_iter().flatten() {
            drop(held.get());
        }
        if parent.dir.get().is_err() {
            // Nothing is made at the end of a path: it must lead to the directory that was open before.
            let dir = Held::open(|| rustix::fs::open(&parent.path, SEARCH, Mode::empty()))
                .map_err(|error| no_way_back(&parent.path, &error.to_string()))?;
            if !parent.dir.is_same_as(&dir.stat()?) {
                return Err(no_way_back(&parent.path, "it is another directory now"));
            }
            parent.dir = Arc::new(dir);
        }
        let path = parent.path.clone();
        Self::within(parent, options).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let path = path.display();
                let reason =
                    format!("{error}: {path} was removed; restart the program, which then makes it anew");
                io::Error::new(io::ErrorKind::NotFound, reason)
            }
            _ => error,
        })
    }

    /// The same directories, open a second time.
    pub(super) fn apart(&self) -> io::Result<Self> {
        let again = |dir: &Held| {
            let dir = dir.get()?;
            Held::open(|| rustix::fs::openat(dir, ".", LIST, Mode::empty()))
        };
        let control = self.control.as_ref().map(again).transpose()?;
        Ok(Self { parent: self.parent.clone(), log: again(&self.log)?, control })
    }

    fn within(parent: Parent, options: DiskOptions) -> io::Result<Self> {
        let mode = if options.group_readable { Mode::RWXU | Mode::RGRP | Mode::XGRP } else { Mode::RWXU };
        let (log, is_new) = make_dir(parent.dir.get()?, &parent.name, mode)?;
        name_synced(sync_parent_of_log(parent.dir.get()?), is_new)?;
        check_dir(log.get()?)?;
        // The control directory is searched by whoever may read the log: verification asks for its locks.
        let (control, is_new) = make_dir(log.get()?, CONTROL.as_ref(), mode)?;
        name_synced(log.get()?.sync_all(), is_new)?;
        check_dir(control.get()?)?;
        Ok(Self { parent: Some(parent), log, control: Some(control) })
    }

    /// One of the directories, if its descriptor still is what was opened.
    pub(super) fn dir(&self, dir: Dir) -> io::Result<&fs::File> {
        match dir {
            Dir::Log => self.log.get(),
            Dir::Control => self.control.as_ref().ok_or(Errno::NOENT)?.get(),
        }
    }

    /// Whether a directory is where it was opened.
    pub(super) fn holds(&self, dir: Dir) -> io::Result<bool> {
        let Some(parent) = &self.parent else { return Ok(true) };
        let is_there = lies_at(&self.log, parent.dir.get()?, &parent.name)?;
        match (&self.control, dir) {
            (Some(control), Dir::Control) if is_there => lies_at(control, self.log.get()?, CONTROL.as_ref()),
            _ => Ok(is_there),
        }
    }
}

/// What is wrong where the program closed the descriptors, and nothing leads to what they were.
fn no_way_back(parent: &Path, cause: &str) -> io::Error {
    let parent = parent.display();
    io::Error::other(format!(
        "this program closed the descriptors of the log, and {parent} does not lead to the directory that the log is in: \
         {cause}; restart the program, which must open the log after it closed its descriptors and changed its root"
    ))
}

/// The last name of a path. With a slash behind it the system would follow a symlink of that name.
fn name_of(path: &Path) -> OsString {
    match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_owned(),
        Some(Component::ParentDir) => "..".into(),
        _ => ".".into(),
    }
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn open_dir(parent: &fs::File, name: &OsStr, how: OFlags) -> io::Result<Held> {
    let opened = Held::open(|| rustix::fs::openat(parent, name, how | OFlags::NOFOLLOW, Mode::empty()));
    opened.map_err(|error| match error {
        error if is(&error, &[Errno::LOOP, Errno::NOTDIR]) => refusal(InsecureReason::NotADirectory),
        error => error,
    })
}

/// Opens a directory of ours, and makes it where it is missing. Says whether it was.
fn make_dir(parent: &fs::File, name: &OsStr, mode: Mode) -> io::Result<(Held, bool)> {
    let (dir, is_new) = match open_dir(parent, name, LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_permissions_are_kept(parent)?;
            let is_new = match rustix::fs::mkdirat(parent, name, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            (open_dir(parent, name, LIST)?, is_new)
        }
        opened => (opened?, false),
    };
    check_permissions_are_kept(dir.get()?)?;
    if is_new {
        // A directory that hands its group on to the files in it goes on doing so.
        let setgid = Mode::from_raw_mode(rustix::fs::fstat(dir.get()?)?.st_mode) & Mode::SGID;
        rustix::fs::fchmod(dir.get()?, mode | setgid)?;
        dir.get()?.sync_all()?;
    }
    Ok((dir, is_new))
}

fn check_permissions_are_kept(dir: &fs::File) -> io::Result<()> {
    if filesystem_of(dir)?.keeps_permissions() { Ok(()) } else { Err(refusal(InsecureReason::NoPermissions)) }
}

/// An audit trail lies in a directory of its own that nobody else can write to.
fn check_dir(dir: &fs::File) -> io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refusal(InsecureReason::ForeignDirectory));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(refusal(InsecureReason::WritableDirectory));
    }
    Ok(())
}

/// Whether a directory lies at this name.
fn lies_at(dir: &Held, parent: &fs::File, name: &OsStr) -> io::Result<bool> {
    match stat_at(parent, name) {
        Ok(named) => Ok(named.is_some_and(|named| dir.is_same_as(&named))),
        // Who became another user may not look. What was removed has no link.
        Err(error) if is(&error, &[Errno::ACCESS]) => Ok(dir.stat()?.links > 0),
        Err(error) => Err(error),
    }
}

/// Makes what is missing of a path. Returns how many directories at its end were.
fn make_parents(path: &Path) -> io::Result<usize> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.iter().rev() {
        // Parents are the user's own; the umask decides about them.
        match rustix::fs::mkdir(*dir, ANY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing.len())
}

/// Makes the names of the parents of a log durable, up to the root of its file system. The first `made` are new.
fn sync_above(root: &Path, made: usize) -> io::Result<()> {
    let device = |dir: &Path| fs::metadata(dir).map(|data| data.dev()).ok();
    for (above, dir) in root.ancestors().enumerate() {
        let Some(parent) = dir.parent() else { break };
        // The name of the log itself is durable already.
        if above > 0 {
            name_synced(fs::File::open(parent).and_then(|parent| parent.sync_all()), above <= made)?;
        }
        if device(dir) != device(parent) {
            // What has been mounted is there after a power cut, whatever the names above it are.
            break;
        }
    }
    Ok(())
}

/// The parent is open for look-ups alone.
fn sync_parent_of_log(dir: &fs::File) -> io::Result<()> {
    // Nothing is kept open, so the number does not matter.
    fs::File::from(rustix::fs::openat(dir, ".", LIST, Mode::empty())?).sync_all()
}

/// What came of making a name durable. That is done also where the name was there before, because whoever made it may
/// have died before this; but there a directory need not be one that can be synced, or be ours.
fn name_synced(synced: io::Result<()>, is_new: bool) -> io::Result<()> {
    match synced {
        Err(error) if !is_new && is(&error, &[Errno::INVAL, Errno::ROFS, Errno::ACCESS, Errno::PERM]) => {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_pardoned_only_where_it_is_not_ours() {
        for errno in [Errno::INVAL, Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            assert!(name_synced(Err(errno.into()), false).is_ok());
            assert!(name_synced(Err(errno.into()), true).is_err());
        }
        for is_new in [false, true] {
            assert!(name_synced(Err(Errno::IO.into()), is_new).is_err());
            assert!(name_synced(Err(Errno::NOSPC.into()), is_new).is_err());
            assert!(name_synced(Ok(()), is_new).is_ok());
        }
    }

    #[test]
    fn the_last_name_of_a_path_is_that_of_the_directory_itself() {
        for (path, name) in
            [("/a/b", "b"), ("/a/b/", "b"), ("/a/b//./", "b"), ("/a/b/..", ".."), ("/", "."), ("/a", "a")]
        {
            assert_eq!(name_of(Path::new(path)), name, "{path}");
        }
    }
}
