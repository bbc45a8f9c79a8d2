//! A small disk, unmounted at the end.

use std::{fs, io::Write as _, path::Path, process::Command};

use tempfile::TempDir;

pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Mounts a disk of this size; `None` if mounting is not allowed.
    pub(crate) fn new(size: &str) -> Option<Self> {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).then_some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn grow(&self, size: &str) {
        assert!(self.mount(&["-o", &format!("remount,size={size}")]));
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mounted = Command::new("mount").args(arguments).arg(self.path()).output();
        mounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

/// Reports that a test cannot run here, so that it is counted.
#[allow(clippy::print_stderr, reason = "it is said to who runs the tests")]
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("AUDIT_SKIPPED") {
        let mut list = fs::File::options().create(true).append(true).open(list).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}
