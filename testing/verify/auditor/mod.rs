//! What docs/verify.py does beyond agreeing with the library: rules for what the next version writes, locks, its
//! output, and its arguments. Lines are written out here, so that they stay the same when the writer changes.

mod files;
mod locks;
mod printed;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    log::{Chain, Log, name},
    python::is_there,
};

const TIME: &str = "2026-11-21T08:00:00.000000005Z";
const INTACT: i32 = 0;
const DAMAGED: i32 = 1;
const NO_VERDICT: i32 = 2;
const UNCLEAN: i32 = 3;

/// A log on disk.
struct OnDisk {
    dir: tempfile::TempDir,
}

impl OnDisk {
    fn of(log: &Log) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &log.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        fs::create_dir(dir.path().join("control")).unwrap();
        Self { dir }
    }

    fn lock(&self, chain: u16) -> PathBuf {
        self.dir.path().join("control").join(format!("chain-{chain:03}.lock"))
    }

    /// Runs the checker; returns the exit code and what it printed.
    fn ask(&self, arguments: &[&str]) -> (i32, String) {
        let mut all = vec![self.dir.path().to_str().unwrap()];
        all.extend(arguments);
        ask(&all)
    }

    #[track_caller]
    fn is(&self, code: i32, said: &[&str]) {
        let (found, printed) = self.ask(&[]);
        assert_eq!(found, code, "{printed}");
        for words in said {
            assert!(printed.contains(words), "{words}: {printed}");
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py")
}

fn ask(arguments: &[&str]) -> (i32, String) {
    let output = Command::new("python3").arg(script()).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// Appends the next segment of a chain, with this list in `after`.
fn segment(chain: Chain, after: &str) -> Chain {
    let chain = Chain { segment: chain.segment + 1, ..chain };
    let (id, number, segment, durable) = (chain.id, chain.number, chain.segment, chain.seq);
    let object = format!(
        r#""format":1,"id":"{id}","chain":"{number}","segment":{segment},"after":[{after}],"chains":{{}}"#
    );
    let line = format!(r#","ts":"{TIME}","kind":"segment","segment":{{{object}}}"#);
    chain.put(line.as_bytes(), Some(durable))
}

/// Appends a record with an object of its own.
fn record(chain: Chain, kind: &str, object: &str) -> Chain {
    let (line, durable) = (format!(r#","ts":"{TIME}","kind":"{kind}","{kind}":{{{object}}}"#), chain.seq);
    chain.put(line.as_bytes(), Some(durable))
}

/// Appends an `open` of this version, or of the previous one.
fn open(chain: Chain, is_new: bool) -> Chain {
    let machine = if is_new { r#""machine":"0123456789abcdef","# } else { "" };
    record(chain, "open", &format!(r#""writer":"0000000000000007","pid":7,{machine}"chains":{{}}"#))
}

fn started(is_new: bool) -> Chain {
    open(segment(Chain::bare(0), ""), is_new).events(2)
}

/// Returns what counts of the newest segment of a chain.
fn counts(chain: &Chain) -> String {
    format!(r#"{{"segment":{},"bytes":{}}}"#, chain.segment, chain.segments[&chain.segment].len())
}
