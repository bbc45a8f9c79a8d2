//! Logs written by hand, for states that a real disk does not produce on demand.

use std::{fs, io::Write as _, path::PathBuf};

use tempfile::TempDir;

use crate::sealed::seal;

/// A chain written by hand.
pub(crate) struct Crafted {
    dir: TempDir,
    /// The number and the hash of the last record.
    pub(crate) seq: u64,
    pub(crate) hash: String,
    segment: u32,
    chain: u16,
    /// The time of the records.
    pub(crate) time: String,
}

impl Crafted {
    /// Makes a chain with a `segment` line and an `open` record.
    pub(crate) fn new() -> Self {
        Self::at("2026-11-21T08:00:00.000000000Z")
    }

    pub(crate) fn at(time: &str) -> Self {
        Self::of_chain(0, time)
    }

    pub(crate) fn of_chain(chain: u16, time: &str) -> Self {
        let (dir, hash, time) = (tempfile::tempdir().unwrap(), "0".repeat(64), time.to_owned());
        let mut log = Self { dir, seq: 0, hash, segment: 0, chain, time };
        log.segment("");
        log.line(r#""kind":"open","open":{"writer":"9e107d9d372bb682","service":"shop","host":"web-1","pid":1,"machine":"9e107d9d372bb682","version":"0.1.0","flush_mode":"immediate","filesystem":"ext4","chains":{}}"#);
        log
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join(format!("audit-{:03}-{:08}.jsonl", self.chain, self.segment))
    }

    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(self.file()).unwrap().len()
    }

    /// Begins a segment; `after` has the entries for the earlier ones.
    pub(crate) fn segment(&mut self, after: &str) {
        self.segment += 1;
        let Self { seq, segment, chain, .. } = *self;
        self.line(&format!(
            r#""kind":"segment","segment":{{"format":1,"id":"5f1c2a9be07d4c3388a1d6e2b94f7013","chain":"{chain:03}","segment":{segment},"after":[{after}],"chains":{{}}}},"durable":{seq}"#
        ));
    }

    pub(crate) fn event(&mut self, rest: &str) {
        self.line(&format!(r#""kind":"event","severity":"routine","action":"a","actor":"b"{rest}"#));
    }

    /// Appends a record with these members.
    pub(crate) fn line(&mut self, members: &str) {
        self.seq += 1;
        let Self { seq, time, hash, .. } = self;
        let (line, hash) = seal(&format!(r#"{{"seq":{seq},"ts":"{time}",{members},"_prev_hash":"{hash}"}}"#));
        self.hash = hash;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.file()).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
