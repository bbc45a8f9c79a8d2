//! docs/verify.py shares no code with the library. They must agree on every log.

use std::{path::Path, process::Command};

use super::log::{Chain, Log};
use crate::{
    Head, Verdict, Verifier,
    storage::{Access, Dir, Disk, DiskOptions, Storage as _},
};

/// Writes a log to a real directory.
pub(super) fn write(log: &Log, dir: &Path) {
    let disk = Disk::create(dir, DiskOptions::default()).unwrap();
    for (name, bytes) in log.files.iter().filter(|(name, _)| *name != "control") {
        let file = disk.open(Dir::Log, name, Access::Create).unwrap();
        assert_eq!(file.append(bytes).unwrap(), bytes.len());
    }
}

/// Whether there is a Python to ask.
fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Both verdicts, which must be the same.
#[track_caller]
pub(super) fn agree(log: &Log, heads: &[Head]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write(log, &path);
    let mut verifier = Verifier::new(&path);
    for head in heads {
        verifier = verifier.expect_head(*head);
    }
    let report = verifier.run().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py");
    let heads = heads.iter().map(Head::to_string);
    let output = Command::new("python3").arg(script).arg(&path).args(heads).output().unwrap();
    let code = match report.verdict() {
        Verdict::Intact => 0,
        Verdict::Unclean => 1,
        Verdict::Damaged => 2,
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{report}\n{text}");
}

#[test]
fn the_independent_checker_agrees() {
    if !has_python() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let chain = Chain::new(0).events(3).roll().events(3).gap(1, 2).close();
    let witness = Chain::new(1).sees(&chain).mark().close();
    let log = Log::of(&[&chain, &witness]);
    agree(&log, &[]);
    agree(&log, &[chain.head(), chain.head_at(4), witness.head()]);
    agree(&Log::of(&[&witness]), &[]);
    for segment in [1, 2] {
        let mut count = 0;
        log.clone().edit(0, segment, |lines| count = lines.len());
        for line in (0..count).step_by(2) {
            type Change = fn(&mut Vec<Vec<u8>>, usize);
            let changes: [Change; 5] = [
                |lines, line| drop(lines.remove(line)),
                |lines, line| lines.insert(line, lines[line].clone()),
                |lines, line| lines[line][20] ^= 1,
                |lines, line| lines.truncate(line),
                |lines, line| lines.rotate_left(line),
            ];
            for change in changes {
                let mut changed = log.clone();
                changed.edit(0, segment, |lines| change(lines, line));
                agree(&changed, &[]);
            }
        }
    }
    let mut kept = chain.head();
    kept.seq += 5;
    agree(&log, &[kept]);
}
