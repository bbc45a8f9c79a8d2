//! docs/verify.py shares no code with the library. They must agree on every log.

use std::{path::Path, process::Command};

use super::log::{Chain, Log, name};
use crate::{
    Head, Verdict, Verifier,
    format::After,
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
        for line in (0..count).step_by(3) {
            type Change = fn(&mut Vec<Vec<u8>>, usize);
            let changes: [Change; 5] = [
                |lines, line| drop(lines.remove(line)),
                |lines, line| lines.insert(line, lines[line].clone()),
                |lines, line| lines[line][20] ^= 1,
                |lines, line| lines.truncate(line),
                |lines, line| lines.rotate_left(line),
            ];
            for change in changes {
                let mut altered = log.clone();
                altered.edit(0, segment, |lines| change(lines, line));
                agree(&altered, &[]);
            }
        }
    }
    let mut kept = chain.head();
    kept.seq += 5;
    agree(&log, &[kept]);
}

/// Always the same random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A log with all that makes judging hard: void bytes, retention, a witness, a torn end.
fn eventful(random: &mut Random) -> Log {
    let base = Chain::new(0).events(2).roll().events(2).event_marked("last", None);
    let bytes = base.segments[&2].len() as u64;
    let lost = base.clone().event_marked("lost", None).event_marked("lost", None);
    let next = Chain { segments: lost.segments, ..base };
    let next = next.segment(vec![After { segment: 2, bytes }]).recovery().events(3);
    let next = if random.below(2) == 0 { next.prune(4, (1, 1)).event("pruned") } else { next };
    let next = next.roll().events(1).event_marked("a", None).event_marked("b", None);
    let next = if random.below(2) == 0 { next.close() } else { next };
    let other = Chain::new(1).sees(&next).mark();
    if random.below(2) == 0 { Log::of(&[&next, &other]) } else { Log::of(&[&next]) }
}

#[test]
fn the_independent_checker_agrees_on_random_damage() {
    if !has_python() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let mut random = Random(1);
    for _ in 0..25 {
        let mut log = eventful(&mut random);
        for _ in 0..=random.below(3) {
            let segment = u32::try_from(random.below(4)).unwrap() + 1;
            let change = random.below(6);
            if change == 5 {
                log.files.remove(&name(0, segment));
            }
            if !log.files.contains_key(&name(0, segment)) {
                continue;
            }
            log.edit(0, segment, |lines| {
                let (line, to) = (random.below(lines.len().max(1)), random.below(lines.len().max(1)));
                match change {
                    _ if lines.is_empty() => {}
                    0 => drop(lines.remove(line)),
                    1 => lines.insert(to, lines[line].clone()),
                    2 => lines[line][3] ^= 1,
                    3 => lines.insert(line, b"no record\n".to_vec()),
                    _ => lines.truncate(line),
                }
            });
        }
        agree(&log, &[]);
    }
}
