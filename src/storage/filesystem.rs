//! Kinds of file systems: how they are recognised, and what each means for a log.

use std::fmt;

/// The kind of file system that holds a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    F2fs,
    Zfs,
    Bcachefs,
    Overlayfs,
    Tmpfs,
    Ramfs,
    Fuse,
    Nfs,
    Smb,
    Cifs,
    Smb2,
    NineP,
    Ceph,
    Lustre,
    Gpfs,
    Ocfs2,
    Gfs2,
    Vfat,
    Exfat,
    /// Any other, by the name or number that the system gives it.
    Other(String),
}

impl FileSystem {
    /// Each known kind, its number from statfs(2), and its name in an `open` record.
    const KNOWN: [(Self, u32, &'static str); 22] = [
        (Self::Ext4, 0xEF53, "ext4"),
        (Self::Xfs, 0x5846_5342, "xfs"),
        (Self::Btrfs, 0x9123_683E, "btrfs"),
        (Self::F2fs, 0xF2F5_2010, "f2fs"),
        (Self::Zfs, 0x2FC1_2FC1, "zfs"),
        (Self::Bcachefs, 0xCA45_1A4E, "bcachefs"),
        (Self::Overlayfs, 0x794C_7630, "overlayfs"),
        (Self::Tmpfs, 0x0102_1994, "tmpfs"),
        (Self::Ramfs, 0x8584_58F6, "ramfs"),
        (Self::Fuse, 0x6573_5546, "fuse"),
        (Self::Nfs, 0x6969, "nfs"),
        (Self::Smb, 0x517B, "smb"),
        (Self::Cifs, 0xFF53_4D42, "cifs"),
        (Self::Smb2, 0xFE53_4D42, "smb2"),
        (Self::NineP, 0x0102_1997, "9p"),
        (Self::Ceph, 0x00C3_6400, "ceph"),
        (Self::Lustre, 0x0BD0_0BD0, "lustre"),
        (Self::Gpfs, 0x4750_4653, "gpfs"),
        (Self::Ocfs2, 0x7461_636F, "ocfs2"),
        (Self::Gfs2, 0x0116_1970, "gfs2"),
        (Self::Vfat, 0x4D44, "vfat"),
        (Self::Exfat, 0x2011_BAB0, "exfat"),
    ];

    /// Returns the kind with this type from statfs(2) on Linux.
    #[cfg(any(test, target_os = "linux", target_os = "android"))]
    pub(crate) fn from_magic(magic: u32) -> Self {
        let known = Self::KNOWN.into_iter().find(|(_, number, _)| *number == magic);
        known.map_or_else(|| Self::Other(format!("0x{magic:x}")), |(kind, ..)| kind)
    }

    /// Returns the kind with this name, as the system gives it.
    #[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
    pub(crate) fn from_name(name: &str) -> Self {
        let name = match name {
            // The names on macOS.
            "smbfs" => "smb",
            "msdos" => "vfat",
            name => name,
        };
        let known = Self::KNOWN.into_iter().find(|(_, _, known)| *known == name);
        known.map_or_else(|| Self::Other(name.to_owned()), |(kind, ..)| kind)
    }

    /// Returns whether several machines may use it at the same time. Then locks may be local to one
    /// machine and write errors may be reported late, so nothing could be promised. Whether locks
    /// are local may depend on mount options, so all kinds are refused alike.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Nfs | Self::Smb | Self::Cifs | Self::Smb2 | Self::NineP)
            || matches!(self, Self::Ceph | Self::Lustre | Self::Gpfs | Self::Ocfs2 | Self::Gfs2)
    }

    /// Returns whether files have owners and modes of their own, so that they can be private.
    pub(crate) fn keeps_permissions(&self) -> bool {
        !matches!(self, Self::Vfat | Self::Exfat)
    }

    /// Returns, for messages, what erases everything on it in normal operation, if anything does.
    pub(crate) fn forgets_at(&self) -> Option<&'static str> {
        match self {
            Self::Tmpfs | Self::Ramfs => Some("which loses everything at a restart"),
            Self::Overlayfs => Some("inside of a container, and is lost with it; use a volume"),
            _ => None,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::KNOWN.iter().find(|(kind, ..)| kind == self)) {
            (Self::Other(name), _) => f.write_str(name),
            (_, Some((_, _, name))) => f.write_str(name),
            (_, None) => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_number_and_by_its_name() {
        for (kind, magic, name) in FileSystem::KNOWN {
            assert_eq!(FileSystem::from_magic(magic), kind);
            assert_eq!(FileSystem::from_name(name), kind);
            assert_eq!(kind.to_string(), name);
        }
        assert_eq!(FileSystem::from_magic(0xBEEF).to_string(), "0xbeef");
        assert_eq!(FileSystem::from_name("apfs").to_string(), "apfs");
        assert!(FileSystem::from_name("smbfs").is_shared());
        assert!(!FileSystem::from_name("msdos").keeps_permissions());
    }

    #[test]
    fn shared_and_volatile_file_systems_are_recognised() {
        let of = |is: fn(&FileSystem) -> bool| {
            let kinds = FileSystem::KNOWN.into_iter().filter(|(kind, ..)| is(kind));
            kinds.map(|(_, _, name)| name).collect::<Vec<_>>()
        };
        let shared = ["nfs", "smb", "cifs", "smb2", "9p", "ceph", "lustre", "gpfs", "ocfs2", "gfs2"];
        assert_eq!(of(FileSystem::is_shared), shared);
        assert_eq!(of(|kind| !kind.keeps_permissions()), ["vfat", "exfat"]);
        assert_eq!(of(|kind| kind.forgets_at().is_some()), ["overlayfs", "tmpfs", "ramfs"]);
    }
}
