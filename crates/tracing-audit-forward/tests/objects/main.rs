//! The archive in an object store: a directory, and a real S3 server with object lock.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect has failed"
)]

mod delivery;
mod fakes;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "this test needs less of it")]
mod proxy;
#[path = "../support/records.rs"]
#[allow(dead_code, reason = "this test needs less of it")]
mod records;
mod restoring;
mod s3;
#[path = "../support/s3.rs"]
#[allow(dead_code, reason = "this test needs less of it")]
mod server;
mod settings;
mod strange;
mod tampering;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Rotation};
use tracing_audit_forward::{Archive, Entry, Objects, ObjectsBuilder, Position, Sink as _};
use tracing_subscriber::prelude::*;

/// The location of an archive in a test.
enum Place<'a> {
    Directory(TempDir),
    S3(&'a server::Server, &'a str),
}

impl Place<'_> {
    fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        let Self::Directory(dir) = self else { panic!("it is no directory") };
        dir.path().join("archive")
    }

    fn builder(&self) -> ObjectsBuilder {
        match self {
            Self::Directory(dir) => Objects::builder(&format!(
                "archive:{}?service=web&host=n1",
                dir.path().join("archive").display()
            )),
            Self::S3(server, place) => server.builder(place, ""),
        }
    }

    fn sink(&self) -> Objects {
        self.builder().build().unwrap()
    }

    fn archive(&self) -> Archive {
        self.builder().archive().unwrap()
    }

    /// Returns the keys below `web/n1/` and `live/web/n1/` of an archive in a directory, without the id of
    /// the chain.
    fn keys(&self) -> Vec<String> {
        let root = self.path();
        let mut keys: Vec<String> = files(&root)
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
            .filter(|key| !key.starts_with("probe/"))
            .map(|key| {
                let parts = key.split('/').filter(|part| part.len() != 32 && *part != "web" && *part != "n1");
                parts.collect::<Vec<_>>().join("/")
            })
            .collect();
        keys.sort();
        keys
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Writes a closed log with this many segments, of `events` events each.
fn log_of(dir: &Path, segments: u32, events: u64) -> PathBuf {
    let path = dir.join("log");
    let log = AuditLog::builder(&path).rotation(Rotation::never()).stderr(false).open().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for segment in 0..segments {
            if segment > 0 {
                log.rotate().unwrap();
            }
            for number in 0..events {
                tracing::info!(target: "audit", action = "item.read", actor = "mia", number, "read – an item");
            }
        }
    });
    log.close().unwrap();
    path
}

fn position(entry: &Entry) -> Position {
    Position { chain_id: Arc::clone(&entry.chain_id), seq: entry.record.seq(), hash: entry.record.hash() }
}

fn positions(sink: &mut Objects, entries: &[Entry]) -> Vec<Position> {
    sink.positions(std::slice::from_ref(&entries[0].chain_id)).unwrap().unwrap()
}

/// Checks that the archive has this log: verification finds nothing, and the restored log has the same files,
/// byte for byte.
#[track_caller]
fn check_whole(archive: &mut Archive, log: &Path) {
    let report = archive.verify().unwrap();
    assert!(report.is_intact() && report.holes().is_empty(), "{report}");
    let dir = tempfile::tempdir().unwrap();
    let back = dir.path().join("back");
    archive.restore(&back, &[]).unwrap();
    let names = |dir: &Path| -> Vec<(String, Vec<u8>)> {
        let paths = files(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        paths
            .filter(|path| path.parent() == Some(dir))
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect()
    };
    assert!(names(&back) == names(log), "{:?}", files(&back));
}
