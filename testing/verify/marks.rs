//! Marks of lines in the wrong place. Verification once took a line that was moved forward for the end of the chain.
//! All lines behind it were then out of place, and their marks were ignored. With a copy of the last line of a log in
//! front, any durable record could be changed. The verdict was only `Unclean`, and the next run of the writer declared
//! the change void. A mark is true wherever its line is. (Found by random edits.)

use super::{
    honest::Machine,
    log::{Chain, Log, name},
};
use crate::{Verdict, storage::sim::SimDisk};

/// Six records that are durable by their own marks, and one more that no mark covers. The third is
/// missing, and a copy of the last is at `place`.
fn deleted_behind_a_copy(place: usize) -> Log {
    let chain = Chain::new(0).events(4).event_marked("last", None);
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| {
        let last = lines[6].clone();
        lines.remove(2);
        lines.insert(place, last);
    });
    log
}

#[test]
fn a_line_moved_forward_does_not_hide_marks() {
    for place in 0..=2 {
        let report = deleted_behind_a_copy(place).verify();
        assert_eq!(report.verdict(), Verdict::Damaged, "{place}\n{report}");
    }
}

#[test]
fn recovery_voids_nothing_behind_a_line_moved_forward() {
    for place in 0..=2 {
        let log = deleted_behind_a_copy(place);
        let mut machine = Machine::new(1);
        machine.disk = SimDisk::with_files(1, &log.files);
        let mut process = machine.open();
        process.emit(&mut machine, 2);
        process.close(&mut machine);
        let report = machine.log().verify();
        assert_eq!(report.verdict(), Verdict::Damaged, "{place}\n{report}");
        // With the copy in front, nothing names the chain, and it is left alone.
        let next = machine.log().files.remove(&name(0, 2));
        assert_eq!(next.is_none(), place == 0, "{place}\n{report}");
        let Some(next) = next else { continue };
        let next: serde_json::Value =
            serde_json::from_slice(next.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        let counted = next["segment"]["after"][0]["bytes"].as_u64().unwrap();
        // If the copy is in front of the line that it was meant to hide, the chain continues as if it were not there.
        // Otherwise the sixth record is the first that no mark states to be durable.
        let lines = if place == 1 { 7 } else { 5 };
        let mut durable = 0;
        log.clone().edit(0, 1, |file| durable = file[..lines].concat().len() as u64);
        assert_eq!(counted, durable, "{place}\n{report}");
    }
}
