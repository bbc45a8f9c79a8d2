//! The open directories of a log: its own, `control`, and its parent. Once they are open, no path
//! is resolved any more. The program may have another root by then (chroot(2)), and somebody may
//! have put another directory at the path.

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

/// The flags to open a directory only for looking up names in it. That works without permission to
/// list it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const SEARCH: OFlags = LIST;

/// The flags to open a directory that is listed and synced, too.
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directories of a log, open.
#[derive(Debug)]
pub(super) struct OpenDirs {
    /// `None` in a log that is only read: that is wherever its directory is.
    parent: Option<Parent>,
    log: Held,
    /// `None` in a log that is only read and has no `control`.
    control: Option<Held>,
}

/// The directory that contains the log's directory, and the name of the log in it.
#[derive(Debug, Clone)]
struct Parent {
    path: PathBuf,
    dir: Arc<Held>,
    name: OsString,
}

impl OpenDirs {
    /// Opens a log for writing: creates what is missing, refuses what is unsafe, and makes every
    /// name on the path durable.
    pub(super) fn create(root: &Path, options: DiskOptions) -> io::Result<Self> {
        let path = root.parent().unwrap_or(root);
        let made = make_parents(path)?;
        let dir = Arc::new(Held::open(|| rustix::fs::open(path, SEARCH, Mode::empty()))?);
        let dirs = Self::within(Parent { path: path.to_owned(), dir, name: name_of(root) }, options)?;
        sync_above(root, made)?;
        Ok(dirs)
    }

    /// Opens an existing log for reading.
    pub(super) fn of_existing(root: &Path) -> io::Result<Self> {
        let log = Held::open(|| rustix::fs::open(root, LIST, Mode::empty()))?;
        let control = match open_dir(log.get()?, CONTROL.as_ref(), LIST) {
            // Without permission to list it, its locks can still be looked up by name.
            Err(error) if is(&error, &[Errno::ACCESS]) => open_dir(log.get()?, CONTROL.as_ref(), SEARCH),
            opened => opened,
        };
        let control = match control {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self { parent: None, log, control })
    }

    /// Opens whatever is at the place of the log now, and creates it there if it was removed.
    pub(super) fn again(&self, options: DiskOptions) -> io::Result<Self> {
        let Some(mut parent) = self.parent.clone() else { return Err(Errno::BADF.into()) };
        // Detect closed descriptors now, before anything that is opened gets their numbers.
        for held in [Some(&self.log), self.control.as_ref()].into_iter().flatten() {
            drop(held.get());
        }
        if parent.dir.get().is_err() {
            // Never create anything at the end of a path alone: it must lead to the directory that
            // was open before.
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
                    format!("{error}: {path} was removed; restart the program, which then creates it again");
                io::Error::new(io::ErrorKind::NotFound, reason)
            }
            _ => error,
        })
    }

    /// Opens the same directories a second time.
    pub(super) fn apart(&self) -> io::Result<Self> {
        let again = |dir: &Held| {
            let dir = dir.get()?;
            Held::open(|| rustix::fs::openat(dir, ".", LIST, Mode::empty()))
        };
        let control = self.control.as_ref().map(again).transpose()?;
        Ok(Self { parent: self.parent.clone(), log: again(&self.log)?, control })
    }

    /// Opens the directories of a log below its parent, creating them if they are missing. Each
    /// name is made durable before anything is created in its directory.
    fn within(parent: Parent, options: DiskOptions) -> io::Result<Self> {
        let mode = if options.group_readable { Mode::RWXU | Mode::RGRP | Mode::XGRP } else { Mode::RWXU };
        let (log, is_new) = make_dir(parent.dir.get()?, &parent.name, mode)?;
        name_synced(sync_parent_of_log(parent.dir.get()?), is_new)?;
        check_dir(log.get()?)?;
        // Whoever may read the log may search the control directory, because verification checks
        // its locks.
        let (control, is_new) = make_dir(log.get()?, CONTROL.as_ref(), mode)?;
        name_synced(log.get()?.sync_all(), is_new)?;
        check_dir(control.get()?)?;
        Ok(Self { parent: Some(parent), log, control: Some(control) })
    }

    /// Returns one of the directories, if its descriptor still refers to it.
    pub(super) fn dir(&self, dir: Dir) -> io::Result<&fs::File> {
        match dir {
            Dir::Log => self.log.get(),
            Dir::Control => self.control.as_ref().ok_or(Errno::NOENT)?.get(),
        }
    }

    /// Returns whether a directory is still where it was opened.
    pub(super) fn holds(&self, dir: Dir) -> io::Result<bool> {
        let Some(parent) = &self.parent else { return Ok(true) };
        let is_there = lies_at(&self.log, parent.dir.get()?, &parent.name)?;
        match (&self.control, dir) {
            (Some(control), Dir::Control) if is_there => lies_at(control, self.log.get()?, CONTROL.as_ref()),
            _ => Ok(is_there),
        }
    }
}

/// Returns the error after the program closed the descriptors and the path does not lead back to
/// the directory.
fn no_way_back(parent: &Path, cause: &str) -> io::Error {
    let parent = parent.display();
    io::Error::other(format!(
        "this program closed the descriptors of the log, and {parent} does not lead to the directory that the log is in: \
         {cause}; restart the program, which must open the log only after closing descriptors and changing its root"
    ))
}

/// Returns the last name of a path. With a trailing slash, the system would follow a symlink of
/// that name.
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

/// Opens a directory of the log, creating it if it is missing. Returns whether it was created.
fn make_dir(parent: &fs::File, name: &OsStr, mode: Mode) -> io::Result<(Held, bool)> {
    let (dir, is_new) = match open_dir(parent, name, LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_permissions_are_kept(parent)?;
            let is_new = match rustix::fs::mkdirat(parent, name, mode) {
                Ok(()) => true,
                // Another process that opens the log was faster.
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            (open_dir(parent, name, LIST)?, is_new)
        }
        opened => (opened?, false),
    };
    check_permissions_are_kept(dir.get()?)?;
    if is_new {
        // Keep the set-group-ID bit: files in such a directory inherit its group (mkdir(2)).
        let setgid = Mode::from_raw_mode(rustix::fs::fstat(dir.get()?)?.st_mode) & Mode::SGID;
        // The umask may have cleared bits in mkdir(2). The caller then syncs the name, and this
        // syncs the mode.
        rustix::fs::fchmod(dir.get()?, mode | setgid)?;
        dir.get()?.sync_all()?;
    }
    Ok((dir, is_new))
}

fn check_permissions_are_kept(dir: &fs::File) -> io::Result<()> {
    if filesystem_of(dir)?.keeps_permissions() { Ok(()) } else { Err(refusal(InsecureReason::NoPermissions)) }
}

/// Checks that a directory belongs to this user and that nobody else can write to it.
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

/// Returns whether this directory is at this name.
fn lies_at(dir: &Held, parent: &fs::File, name: &OsStr) -> io::Result<bool> {
    match stat_at(parent, name) {
        Ok(named) => Ok(named.is_some_and(|named| dir.is_same_as(&named))),
        // A process that became another user may not be able to look up the name. A removed
        // directory has no links.
        Err(error) if is(&error, &[Errno::ACCESS]) => Ok(dir.stat()?.links > 0),
        Err(error) => Err(error),
    }
}

/// Creates the missing directories of a path, and returns how many were missing.
fn make_parents(path: &Path) -> io::Result<usize> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.iter().rev() {
        // Parents are the user's own, so the umask decides their permissions.
        match rustix::fs::mkdir(*dir, ANY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing.len())
}

/// Makes the names of the parents of a log durable, up to the root of its file system. The lowest
/// `made` of them are new.
fn sync_above(root: &Path, made: usize) -> io::Result<()> {
    let device = |dir: &Path| fs::metadata(dir).map(|data| data.dev()).ok();
    for (above, dir) in root.ancestors().enumerate() {
        let Some(parent) = dir.parent() else { break };
        // The name of the log itself is durable already.
        if above > 0 {
            name_synced(fs::File::open(parent).and_then(|parent| parent.sync_all()), above <= made)?;
        }
        if device(dir) != device(parent) {
            // A mount point is not a name on this file system: the mount restores it after a power
            // cut.
            break;
        }
    }
    Ok(())
}

/// Syncs the parent of the log. It is open only for look-ups, and such a descriptor cannot be
/// synced (`O_PATH`, open(2)).
fn sync_parent_of_log(dir: &fs::File) -> io::Result<()> {
    // Closed again at once, so it may have the number of a standard stream.
    fs::File::from(rustix::fs::openat(dir, ".", LIST, Mode::empty())?).sync_all()
}

/// Decides whether a failed sync of a name matters. Names that existed before are synced too,
/// because the process that created them may have died before its sync. But such a directory may
/// belong to somebody else, or be on a file system that cannot sync directories.
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
    fn a_directory_that_cannot_be_synced_is_accepted_only_if_it_is_not_new() {
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
