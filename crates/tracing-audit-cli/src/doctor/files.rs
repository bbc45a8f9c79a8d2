//! Checks of the files: owners and permissions, foreign files, and the file system.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::Findings;
use crate::{directory::is_segment_name, shell::quoted};

const ACCESS: &str = "permissions";

/// The library's own files and directories beside the segments.
const OWN: [&str; 3] = ["control", "hold", "forward-required"];

pub(super) fn look(log: &Path, findings: &mut Findings) -> Result<()> {
    // Two calls, since the log may be reached through a symlink, but its own owner and mode are needed too.
    let itself = fs::symlink_metadata(log).with_context(|| format!("cannot look at {}", log.display()))?;
    let dir = fs::metadata(log).with_context(|| format!("cannot look at {}", log.display()))?;
    if itself.is_symlink() {
        let remedy = "give the program the path that the link points to: it refuses a symlink";
        findings.must(ACCESS, format!("{} is a symlink", log.display()), remedy);
    }
    let names = names_in(log).with_context(|| format!("cannot list {}", log.display()))?;
    let segments: Vec<PathBuf> =
        names.iter().filter(|name| is_segment_name(name)).map(|name| log.join(name)).collect();
    // The owner of the directory is the owner of the log: the library compares all files with it.
    check_access(log, dir.uid(), findings);
    let control = log.join("control");
    check_access(&control, dir.uid(), findings);
    for segment in &segments {
        check_access(segment, dir.uid(), findings);
    }
    check_locks(&control, dir.uid(), findings);
    if dir.mode() & 0o007 != 0 {
        let remedy = format!("chmod o= {}", quoted(log));
        findings.warn(ACCESS, "everybody on this machine may access the directory of the log", remedy);
    }
    if findings.is_fine(ACCESS) {
        let readers = if dir.mode() & 0o040 == 0 { "nobody else" } else { "its group" };
        let found = format!(
            "user {} owns and writes it, {readers} may read it (mode {:o})",
            dir.uid(),
            dir.mode() & 0o777
        );
        findings.ok(ACCESS, found);
    }
    foreign(log, &names, findings);
    file_system(log, findings);
    Ok(())
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Checks what the library demands before it appends: the same owner everywhere, and write access for nobody else.
fn check_access(path: &Path, owner: u32, findings: &mut Findings) {
    let (shown, word) = (path.display(), quoted(path));
    let data = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            findings.warn(ACCESS, format!("cannot look at {shown}: {error}"), "look again as the owner");
            return;
        }
    };
    if data.uid() != owner {
        let found = format!("{shown} belongs to user {}, the log to user {owner}", data.uid());
        findings.must(ACCESS, found, format!("chown {owner} {word}, once it is known who created it"));
    }
    if data.mode() & 0o022 != 0 {
        let found = format!("others than the owner may write {shown} (mode {:o})", data.mode() & 0o777);
        findings.must(ACCESS, found, format!("chmod go-w {word}"));
    }
    // A second name could be outside the log, where others may write. Directories always have several links.
    if data.is_file() && data.nlink() != 1 {
        let found = format!("{shown} has {} names (hard links)", data.nlink());
        findings.must(ACCESS, found, "remove the other names: the program refuses such a file");
    }
}

/// Checks the lock files: whoever can open one for reading can hold its lock (flock(2)).
fn check_locks(control: &Path, owner: u32, findings: &mut Findings) {
    let names = match names_in(control) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            let found = format!("not known for the files in {}: {error}", control.display());
            return findings.warn(ACCESS, found, "look again as the owner");
        }
    };
    for name in names {
        let path = control.join(&name);
        check_access(&path, owner, findings);
        let is_lock = name.starts_with("chain-");
        if is_lock && fs::symlink_metadata(&path).is_ok_and(|data| data.mode() & 0o044 != 0) {
            let found = format!("others may read {}, so they can hold the lock of the chain", path.display());
            findings.must(ACCESS, found, format!("chmod go= {}", quoted(&path)));
        }
    }
}

fn foreign(log: &Path, names: &[String], findings: &mut Findings) {
    const FILES: &str = "files";
    let foreign: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !is_segment_name(name) && !OWN.contains(name))
        .collect();
    if foreign.is_empty() {
        return findings.ok(FILES, "every file is part of the log");
    }
    let some = foreign.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if foreign.len() > 5 { format!(" and {} more", foreign.len() - 5) } else { String::new() };
    let found = format!("not part of the log: {some}{more}");
    let remedy = format!("move them out of {}, once it is known who put them there", quoted(log));
    findings.warn(FILES, found, remedy);
}

/// Magic numbers of statfs(2): file systems whose locks and syncs cannot be relied on.
const SHARED: [(u64, &str); 10] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x7461_636F, "ocfs2"),
    (0x0116_1970, "gfs2"),
];
/// File systems that do not outlive the machine or the container.
const VOLATILE: [(u64, &str); 3] =
    [(0x794C_7630, "overlayfs"), (0x0102_1994, "tmpfs"), (0x8584_58F6, "ramfs")];
/// File systems without owners and permissions.
const WITHOUT_OWNERS: [(u64, &str); 2] = [(0x4D44, "vfat"), (0x2011_BAB0, "exfat")];
/// File systems that need no remark.
const LOCAL: [(u64, &str); 7] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x6573_5546, "fuse"),
];

#[cfg(target_os = "linux")]
fn file_system(log: &Path, findings: &mut Findings) {
    const CHECK: &str = "file system";
    let Ok(system) = rustix::fs::statfs(log) else { return };
    // The type is signed on some architectures; only its lower 32 bits count.
    let magic = u64::try_from(system.f_type).unwrap_or_default() & 0xFFFF_FFFF;
    let of = |kinds: &[(u64, &'static str)]| {
        kinds.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
    };
    if let Some(name) = of(&SHARED) {
        findings.must(
            CHECK,
            format!("{name}: its locks and syncs cannot be relied on"),
            "move the log to a local disk",
        );
    } else if let Some(name) = of(&WITHOUT_OWNERS) {
        findings.must(
            CHECK,
            format!("{name}: it keeps no owners and permissions"),
            "move the log to a local disk",
        );
    } else if let Some(name) = of(&VOLATILE) {
        let found = format!("{name}: the log is lost with the machine or the container");
        findings.must(CHECK, found, "move the log to a persistent volume");
    } else if let Some(name) = of(&LOCAL) {
        findings.ok(CHECK, name);
    } else {
        findings.warn(
            CHECK,
            format!("0x{magic:x}, which this version does not know"),
            "see docs/durability.md for what a file system must guarantee",
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path, findings: &mut Findings) {
    findings.warn(
        "file system",
        "not checked on this operating system",
        "see docs/durability.md for what a file system must guarantee",
    );
}
