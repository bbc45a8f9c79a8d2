//! The real file system: the only module that uses `std::fs`.

mod held;
mod open_dirs;

use std::{
    cell::Cell,
    ffi::OsStr,
    fs, io, mem,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::UNIX_EPOCH,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{Access, Dir, File, FileSystem, LockKind, Stat, Storage};
use crate::error::InsecureReason;
use held::Held;
pub(crate) use held::is_closed_under_us;
use open_dirs::OpenDirs;

const CONTROL: &str = "control";

/// All permission bits. For a new directory, the umask clears some of them.
const ANY_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// The options of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskOptions {
    /// Whether the group may read: modes 0750 and 0640 instead of 0700 and 0600.
    pub(crate) group_readable: bool,
}

/// A log directory on disk.
///
/// Files are opened relative to directories that are held open, so that nobody can substitute
/// another directory under the writer. `reattach` opens the directories again, from their parent.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    options: DiskOptions,
    /// Guards the open directories. Held for reading during one call on a directory, and for
    /// writing only while `reattach` replaces them.
    dirs: RwLock<OpenDirs>,
    /// The user that opened the log.
    user: rustix::process::Uid,
    /// Read when a log is opened for writing. Later these files may be out of reach, in another
    /// root (chroot(2)).
    boot_id: OnceLock<String>,
    machine_id: OnceLock<String>,
}

impl Disk {
    /// Opens a log for writing: creates what is missing, and refuses what is unsafe.
    pub(crate) fn create(root: &Path, options: DiskOptions) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let disk = Self::at(OpenDirs::create(&root, options)?, root, options);
        disk.boot_id();
        disk.machine_id();
        Ok(disk)
    }

    /// Opens an existing log for reading.
    pub(crate) fn open_existing(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        Ok(Self::at(OpenDirs::of_existing(&root)?, root, DiskOptions::default()))
    }

    fn at(dirs: OpenDirs, root: PathBuf, options: DiskOptions) -> Self {
        Self {
            root,
            options,
            dirs: RwLock::new(dirs),
            user: rustix::process::geteuid(),
            boot_id: OnceLock::new(),
            machine_id: OnceLock::new(),
        }
    }

    /// Runs `action` on an open directory.
    fn with_dir<T>(&self, dir: Dir, action: impl FnOnce(&fs::File) -> io::Result<T>) -> io::Result<T> {
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        dirs.dir(dir).and_then(action).map_err(|error| self.explained(error))
    }

    /// Adds to an error that the program became another user, if that explains it.
    fn explained(&self, error: io::Error) -> io::Error {
        let (then, now) = (self.user.as_raw(), rustix::process::geteuid().as_raw());
        // An error with a reason of its own, such as an unsafe file, has nothing to do with the
        // user.
        if then == now || error.get_ref().is_some() || error.kind() != io::ErrorKind::PermissionDenied {
            return error;
        }
        let reason = format!(
            "{error}: user {then} opened the log, and this process is now user {now}; open it as that user, or \
             give the directory and its files to that user"
        );
        io::Error::new(io::ErrorKind::PermissionDenied, reason)
    }
}

/// Returns the error for something unsafe. The builder turns it into `Error::InsecureDirectory`.
fn refusal(reason: InsecureReason) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Returns whether a write failed only for lack of space. The bytes written before it can still be
/// trusted then.
pub(crate) fn is_out_of_room(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Repeats a call while a signal interrupts it (`EINTR`, signal(7)).
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
        // Joining an empty name would append a slash.
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
        // NOFOLLOW: a symlink could lead out of the log. NONBLOCK: opening a FIFO must not block.
        // NOCTTY: a terminal must not become the controlling one (open(2)). APPEND: the kernel puts
        // each write at the end.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Append => OFlags::RDWR | OFlags::APPEND,
                Access::Create => OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL,
                Access::Lock => OFlags::RDWR | OFlags::CREATE,
            };
        let private = Mode::RUSR | Mode::WUSR;
        // Whoever can read a lock file can lock it, and keep the writer out (flock(2)).
        let for_group = self.options.group_readable && access != Access::Lock;
        let mode = if for_group { private | Mode::RGRP } else { private };
        let is_there = Cell::new(false);
        let openat = |dir: &fs::File| {
            Held::open(|| rustix::fs::openat(dir, name, flags, mode).inspect(|_| is_there.set(true)))
        };
        let opened = self.with_dir(dir, openat).and_then(|file| {
            if access != Access::Read {
                check_file(file.get()?)?;
            }
            if matches!(access, Access::Create | Access::Lock) {
                // The umask may have cleared the group's permission to read. The previous version
                // gave it for locks, too.
                let open = file.get()?;
                if Mode::from_raw_mode(rustix::fs::fstat(open)?.st_mode) & ANY_MODE != mode {
                    rustix::fs::fchmod(open, mode)?;
                }
            }
            Ok(file)
        });
        if opened.is_err() && access == Access::Create && is_there.get() {
            // The caller gets an error and so does not know of the file. Left behind the `close` of
            // its chain, it would look like a torn first write.
            drop(self.remove(dir, name));
        }
        Ok(Box::new(DiskFile(opened?)))
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.with_dir(dir, |dir| Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?))
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        // On Apple platforms, fsync(2) does not flush the drive's cache. std uses F_FULLFSYNC
        // there, which rustix does not.
        self.with_dir(dir, fs::File::sync_all)
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        // In a directory that was moved away, a name no longer stands for a file of this log.
        if !dirs.holds(dir)? {
            return Ok(None);
        }
        dirs.dir(dir).and_then(|dir| stat_at(dir, name.as_ref())).or_else(|error| match error {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        })
    }

    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool {
        let Ok(Some(stat)) = self.stat(dir, name) else { return false };
        fs::read_to_string("/proc/locks").is_ok_and(|locks| lists_writer(&locks, &stat))
    }

    fn reattach(&self) -> io::Result<()> {
        // Opened before the write lock is taken, so that no other call waits for the file system.
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner).again(self.options);
        *self.dirs.write().unwrap_or_else(PoisonError::into_inner) =
            dirs.map_err(|error| self.explained(error))?;
        Ok(())
    }

    fn apart(&self) -> io::Result<Arc<dyn Storage>> {
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        let dirs = dirs.apart().map_err(|error| self.explained(error))?;
        let (root, boot_id, machine_id) = (self.root.clone(), self.boot_id.clone(), self.machine_id.clone());
        let (options, user) = (self.options, self.user);
        Ok(Arc::new(Self { root, options, dirs: RwLock::new(dirs), user, boot_id, machine_id }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let system = self.with_dir(Dir::Log, |dir| Ok(rustix::fs::fstatvfs(dir)?))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn boot_id(&self) -> String {
        self.boot_id.get_or_init(|| first_line_of("/proc/sys/kernel/random/boot_id")).clone()
    }

    fn machine_id(&self) -> String {
        // machine-id(5)
        self.machine_id.get_or_init(|| first_line_of("/etc/machine-id")).clone()
    }

    fn filesystem(&self) -> FileSystem {
        self.with_dir(Dir::Log, filesystem_of).unwrap_or_else(|_| FileSystem::Other("unknown".to_owned()))
    }

    fn file_size_limit(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Fsize).current
    }

    fn random(&self) -> io::Result<u128> {
        let mut bytes = [0; 16];
        fill_with_random(&mut bytes)?;
        Ok(u128::from_le_bytes(bytes))
    }
}

/// Returns the contents of a small system file; empty if it does not exist.
fn first_line_of(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// Returns whether /proc/locks lists an exclusive lock on this file. Every user can read it, but it
/// does not list the processes of other containers. On file systems such as btrfs it shows another
/// device than the file, so no lock is found.
#[cfg(target_os = "linux")]
fn lists_writer(locks: &str, file: &Stat) -> bool {
    let device = (rustix::fs::major(file.device), rustix::fs::minor(file.device));
    let sought = format!("{:02x}:{:02x}:{}", device.0, device.1, file.inode);
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:12345 0 EOF
    locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let [kind, _, access, _, file] = [(); 5].map(|()| words.next().unwrap_or_default());
        kind == "FLOCK" && access == "WRITE" && file == sought
    })
}

/// Returns false: only Linux has /proc/locks.
#[cfg(not(target_os = "linux"))]
fn lists_writer(_: &str, _: &Stat) -> bool {
    false
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn fill_with_random(bytes: &mut [u8; 16]) -> io::Result<()> {
    use rustix::rand::{GetRandomFlags, getrandom};
    // Requests of up to 256 bytes are never filled in part (getrandom(2)).
    let filled = retry(|| Ok(getrandom(&mut bytes[..], GetRandomFlags::empty())?))?;
    if filled == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn fill_with_random(bytes: &mut [u8; 16]) -> io::Result<()> {
    use io::Read as _;
    fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// Checks that a file is one of this log. Nothing is appended to a file that only has the right
/// name.
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

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    /// Converts a number, whose type differs by platform.
    fn number<T: Default>(number: impl TryInto<T>) -> T {
        number.try_into().unwrap_or_default()
    }
    Stat {
        device: number(stat.st_dev),
        inode: number(stat.st_ino),
        bytes: number(stat.st_size),
        links: number(stat.st_nlink),
        mode: number::<u32>(stat.st_mode) & 0o7777,
    }
}

/// Returns the file with this name in a directory, without following a symlink.
fn stat_at(dir: &fs::File, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat_of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn filesystem_of(dir: &fs::File) -> io::Result<FileSystem> {
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "the type differs by platform, the numbers have 32 bits"
    )]
    let magic = rustix::fs::fstatfs(dir)?.f_type as u64 as u32;
    Ok(FileSystem::from_magic(magic))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn filesystem_of(dir: &fs::File) -> io::Result<FileSystem> {
    // The name as the kernel returns it, up to its NUL.
    let stat = rustix::fs::fstatfs(dir)?;
    let name = stat.f_fstypename.iter().map(|byte| char::from(u8::try_from(*byte).unwrap_or_default()));
    Ok(FileSystem::from_name(&name.take_while(|character| *character != '\0').collect::<String>()))
}

#[derive(Debug)]
struct DiskFile(Held);

impl File for DiskFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.0.get()?;
        // With O_APPEND, so the offset is irrelevant.
        retry(|| Ok(rustix::io::write(file, bytes)?))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let file = self.0.get()?;
        retry(|| file.write_at(bytes, offset))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.0.get()?;
        retry(|| file.read_at(bytes, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        // On Apple platforms, std uses F_FULLFSYNC, which rustix's fdatasync does not.
        self.0.get()?.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.get()?.sync_all()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }

    fn birth(&self) -> io::Result<u64> {
        let born = self.0.get()?.metadata()?.created().unwrap_or(UNIX_EPOCH);
        let since = born.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_nanos()).unwrap_or_default())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let file = self.0.get()?;
        let taken = retry(|| match kind {
            LockKind::Exclusive => fs2::FileExt::try_lock_exclusive(file),
            LockKind::Shared => fs2::FileExt::try_lock_shared(file),
        });
        match taken {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        let file = self.0.get()?;
        retry(|| fs2::FileExt::unlock(file))
    }

    fn keep(self: Arc<Self>) {
        mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two are compared: one identifies an open file, the other the file at its path.
    #[test]
    fn a_file_is_the_same_by_its_handle_and_by_its_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, b"bytes").expect("a file");
        let open = Held::open(|| rustix::fs::open(&path, OFlags::RDONLY, Mode::empty())).expect("the file");
        let by_path = stat_at(&fs::File::open(dir.path()).expect("it"), "file".as_ref()).expect("the file");
        assert_eq!(Some(open.stat().expect("the file")), by_path);
        #[cfg(target_os = "linux")]
        assert_eq!(held::stat_without_times(open.get().expect("the file")), by_path);
        assert_eq!(by_path.map(|stat| (stat.bytes, stat.links)), Some((5, 1)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_writer_is_found_in_the_list_of_locks() {
        let lines = [
            ("1: FLOCK  ADVISORY  WRITE 4711 08:01:12345 0 EOF", true),
            ("2: FLOCK  ADVISORY  READ  4711 08:01:12345 0 EOF", false),
            ("3: POSIX  ADVISORY  WRITE 4711 08:01:12345 0 EOF", false),
            ("1: -> FLOCK  ADVISORY  WRITE 4712 08:01:12345 0 EOF", false),
            ("4: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF", false),
            ("4: FLOCK  ADVISORY  WRITE 4711 00:2b:12345 0 EOF", false),
            ("5: FLOCK  ADVISORY  WRITE 12345 12345:01:9 12345 EOF", false),
            ("FLOCK", false),
            ("", false),
        ];
        let device = rustix::fs::makedev(8, 1);
        let lock = |inode| Stat { device, inode, bytes: 0, links: 1, mode: 0o600 };
        for (line, is_writer) in lines {
            assert_eq!(lists_writer(&format!("{line}\n"), &lock(12345)), is_writer, "{line}");
        }
        let all = lines.map(|(line, _)| line);
        assert!(lists_writer(&all.join("\n"), &lock(12345)) && !lists_writer(&all.join("\n"), &lock(1)));
    }

    #[test]
    fn an_interrupted_call_is_repeated() {
        let mut calls = 0;
        let locked = retry(|| {
            calls += 1;
            if calls < 3 { Err(Errno::INTR.into()) } else { Ok(true) }
        });
        assert_eq!((locked.expect("the third call"), calls), (true, 3));
        assert!(retry(|| Err::<(), _>(Errno::IO.into())).is_err());
    }
}
