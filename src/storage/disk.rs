//! The real file system: the only file that says `std::fs`.

use std::{
    fs, io, mem,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::UNIX_EPOCH,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{Access, Dir, File, FileSystem, LockKind, Stat, Storage};
use crate::error::InsecureReason;

const CONTROL: &str = "control";

/// Every permission there is; for a new directory, what the umask leaves of them.
const ANY_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// What a disk is opened with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskOptions {
    /// Whether the group may read: modes 0750 and 0640 instead of 0700 and 0600.
    pub(crate) group_readable: bool,
}

/// A log directory on disk.
///
/// Files are opened relative to directories that are held open, so that nobody can put another
/// directory under the writer; `reattach` is the one way to follow the path anew.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    options: DiskOptions,
    /// Guards which directories are open. Held for the length of one `openat` and no longer.
    dirs: RwLock<Dirs>,
}

#[derive(Debug)]
struct Dirs {
    log: fs::File,
    /// `None` in a log that is only read and has no `control`.
    control: Option<fs::File>,
}

impl Disk {
    /// Opens a log to write: makes what is missing, refuses what is unsafe.
    pub(crate) fn create(root: &Path, options: DiskOptions) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let dirs = Dirs::create(&root, options)?;
        Ok(Self { root, options, dirs: RwLock::new(dirs) })
    }

    /// Opens a log that exists, to read.
    pub(crate) fn open_existing(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let log = fs::File::from(rustix::fs::open(&root, flags, Mode::empty())?);
        let control = match rustix::fs::openat(&log, CONTROL, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(control) => Some(control.into()),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { root, options: DiskOptions::default(), dirs: RwLock::new(Dirs { log, control }) })
    }

    /// Runs `action` on an open directory.
    fn with_dir<T>(&self, dir: Dir, action: impl FnOnce(&fs::File) -> io::Result<T>) -> io::Result<T> {
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        match dir {
            Dir::Log => action(&dirs.log),
            Dir::Control => action(dirs.control.as_ref().ok_or_else(|| io::Error::from(Errno::NOENT))?),
        }
    }
}

impl Dirs {
    fn create(root: &Path, options: DiskOptions) -> io::Result<Self> {
        let mode = if options.group_readable { Mode::RWXU | Mode::RGRP | Mode::XGRP } else { Mode::RWXU };
        let log = make_dir(root, mode)?;
        // The control directory is read by whoever may read the log: verification probes its locks.
        let control = make_dir(&root.join(CONTROL), mode)?;
        Ok(Self { log, control: Some(control) })
    }
}

/// Opens a directory, making it and its parents where they are missing, and makes the new names
/// durable: without that, a power cut can lose the whole log.
fn make_dir(path: &Path, mode: Mode) -> io::Result<fs::File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        // Parents are the user's own; the umask decides about them.
        make_dir(parent, ANY_MODE)?;
    }
    let is_new = match rustix::fs::mkdir(path, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir =
        rustix::fs::open(path, flags, Mode::empty()).map(fs::File::from).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => refusal(InsecureReason::NotADirectory),
            error => error.into(),
        })?;
    if is_new {
        if mode != ANY_MODE {
            // A directory that hands its group on to the files in it goes on doing so.
            let setgid = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode) & Mode::SGID;
            rustix::fs::fchmod(&dir, mode | setgid)?;
        }
        dir.sync_all()?;
    }
    if let Some(parent) = parent {
        // Also when it was there: whoever made it may have died before this. A parent that may not
        // be read was not ours to make anything in.
        match fs::File::open(parent).and_then(|parent| parent.sync_all()) {
            Err(error) if is_new || error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    if mode != ANY_MODE {
        check_dir(&dir)?;
    }
    Ok(dir)
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

/// An error that says: this is not safe. The builder turns it into `Error::InsecureDirectory`.
fn refusal(reason: InsecureReason) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Whether a write failed only because there is no room: the bytes before it can still be trusted.
pub(crate) fn is_out_of_room(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Repeats a call for as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Storage for Disk {
    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        let dir = match dir {
            Dir::Log => self.root.clone(),
            Dir::Control => self.root.join(CONTROL),
        };
        // Joining nothing would leave a slash behind.
        if name.is_empty() { dir } else { dir.join(name) }
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        let names = self.with_dir(dir, |dir| {
            let entries = rustix::fs::Dir::read_from(dir)?;
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .filter(|name| !matches!(name.as_deref(), Ok("." | "..")))
                .collect::<io::Result<Vec<_>>>()
        });
        match names {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }

    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Append => OFlags::RDWR | OFlags::APPEND,
                Access::Create => OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL,
                Access::Lock => OFlags::RDWR | OFlags::CREATE,
            };
        let private = Mode::RUSR | Mode::WUSR;
        let mode = if self.options.group_readable { private | Mode::RGRP } else { private };
        let open = || self.with_dir(dir, |dir| Ok(rustix::fs::openat(dir, name, flags, mode)?));
        let file = fs::File::from(retry(open)?);
        if access != Access::Read {
            check_file(&file)?;
        }
        if access == Access::Create {
            // The umask may have taken the group's right to read.
            if Mode::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) & ANY_MODE != mode {
                rustix::fs::fchmod(&file, mode)?;
            }
        }
        Ok(Box::new(DiskFile(file)))
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.with_dir(dir, |dir| Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?))
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        // On Apple platforms std asks for F_FULLFSYNC, which rustix's fsync does not.
        self.with_dir(dir, fs::File::sync_all)
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        // By the whole path, so that a directory that was moved away is noticed.
        match fs::symlink_metadata(self.path(dir, name)) {
            Ok(metadata) => Ok(Some(stat_of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn reattach(&self) -> io::Result<()> {
        let dirs = Dirs::create(&self.root, self.options)?;
        *self.dirs.write().unwrap_or_else(PoisonError::into_inner) = dirs;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        fs2::available_space(&self.root)
    }

    fn boot_id(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| String::new(), |id| id.trim().to_owned())
    }

    fn machine_id(&self) -> String {
        // machine-id(5)
        fs::read_to_string("/etc/machine-id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
    }

    fn filesystem(&self) -> FileSystem {
        self.with_dir(Dir::Log, |dir| Ok(filesystem_of(&rustix::fs::fstatfs(dir)?)))
            .unwrap_or_else(|_| FileSystem::Other("unknown".to_owned()))
    }

    fn file_size_limit(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Fsize).current
    }

    fn random(&self) -> io::Result<u128> {
        use io::Read as _;
        let mut bytes = [0; 16];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u128::from_le_bytes(bytes))
    }
}

/// Nothing is appended to what only looks like a file of ours.
fn check_file(file: &fs::File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.file_type().is_file() {
        return Err(refusal(InsecureReason::NotAFile));
    }
    if metadata.nlink() != 1 {
        return Err(refusal(InsecureReason::HardLinked));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refusal(InsecureReason::ForeignFile));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refusal(InsecureReason::WritableFile));
    }
    Ok(())
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    Stat {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        links: metadata.nlink(),
        mode: metadata.mode() & 0o7777,
    }
}

/// The live segment is asked this before each acknowledgement. Whoever asks for the times of a file as well makes
/// the next write note a finer one, which a journal must take in too (multigrain timestamps, Linux 6.13). `None`
/// where there is no `statx`, or it does not know all of this.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn stat_without_times(file: &fs::File) -> Option<Stat> {
    use rustix::fs::StatxFlags;
    let wanted = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::NLINK | StatxFlags::MODE;
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
    StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted).then(|| Stat {
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        bytes: stat.stx_size,
        links: stat.stx_nlink.into(),
        mode: u32::from(stat.stx_mode) & 0o7777,
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn filesystem_of(stat: &rustix::fs::StatFs) -> FileSystem {
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "the type differs by platform, the numbers have 32 bits"
    )]
    let magic = stat.f_type as u64 as u32;
    FileSystem::from_magic(magic)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn filesystem_of(stat: &rustix::fs::StatFs) -> FileSystem {
    // The name as the system itself gives it, up to its NUL.
    let name = stat.f_fstypename.iter().map(|byte| char::from(u8::try_from(*byte).unwrap_or_default()));
    FileSystem::from_name(&name.take_while(|character| *character != '\0').collect::<String>())
}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| Ok(rustix::io::write(&self.0, bytes)?))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        retry(|| self.0.write_at(bytes, offset))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| self.0.read_at(bytes, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        // On Apple platforms std asks for F_FULLFSYNC, which rustix's fdatasync does not.
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn stat(&self) -> io::Result<Stat> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(stat) = stat_without_times(&self.0) {
            return Ok(stat);
        }
        self.0.metadata().map(|metadata| stat_of(&metadata))
    }

    fn birth(&self) -> io::Result<u64> {
        let born = self.0.metadata()?.created().unwrap_or(UNIX_EPOCH);
        let since = born.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_nanos()).unwrap_or_default())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let taken = retry(|| match kind {
            LockKind::Exclusive => fs2::FileExt::try_lock_exclusive(&self.0),
            LockKind::Shared => fs2::FileExt::try_lock_shared(&self.0),
        });
        match taken {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        retry(|| fs2::FileExt::unlock(&self.0))
    }

    fn keep(self: Arc<Self>) {
        mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two are compared: the one identifies an open file, the other what stands at its path.
    #[test]
    fn a_file_is_the_same_by_its_handle_and_by_its_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, b"bytes").expect("a file");
        let file = DiskFile(fs::File::open(&path).expect("the file"));
        let by_path = stat_of(&fs::symlink_metadata(&path).expect("the file"));
        assert_eq!(file.stat().expect("the file"), by_path);
        #[cfg(target_os = "linux")]
        assert_eq!(stat_without_times(&file.0), Some(by_path));
        assert_eq!((by_path.bytes, by_path.links), (5, 1));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut calls = 0;
        let locked = retry(|| {
            calls += 1;
            if calls < 3 { Err(Errno::INTR.into()) } else { Ok(true) }
        });
        assert_eq!((locked.expect("the third call"), calls), (true, 3));
        assert!(retry(|| Err::<(), _>(Errno::IO.into())).is_err());
    }
}
