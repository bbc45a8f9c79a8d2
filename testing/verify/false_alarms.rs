//! Whatever happens to an honest log, it is never called damaged, with or without the heads that its writer reported as
//! durable.

use std::collections::BTreeMap;

use super::{
    honest::{Machine, Process, START},
    log::{Chain, Log},
    python,
};
use crate::{
    Head, NoteKind, Retention, Rotation, Verdict,
    harness::times,
    storage::sim::{Errno, Fault, Op, Prng},
};

const DAY: i64 = 86_400;

/// Verifies with every head that was reported; nothing may be damage.
#[track_caller]
fn verify(log: &Log, heads: &[Head], what: &str) {
    let verifier = heads.iter().fold(log.verifier(), |verifier, head| verifier.expect_head(*head));
    let report = verifier.run_on(log).unwrap();
    assert_ne!(report.verdict(), Verdict::Damaged, "{what}\n{report}");
}

#[track_caller]
fn intact(log: &Log, what: &str) {
    let report = log.verify();
    assert_eq!(report.verdict(), Verdict::Intact, "{what}\n{report}");
    if python::is_there(what) {
        python::agree(log, &[]);
    }
}

#[test]
fn the_wall_clock_may_jump_in_any_way() {
    // Including the Unix epoch, and the last second that a year of four digits can express.
    for (what, start, steps) in [
        ("a day ahead and back", START, vec![START + DAY, START - DAY, START]),
        ("a leap second, which POSIX repeats", 1_483_228_799, vec![1_483_228_799, 1_483_228_799]),
        ("from 1970 on", 0, vec![1, DAY, -DAY]),
        ("to the end of 9999", 253_402_300_798, vec![253_402_300_799, i64::MAX, START]),
        ("an hour back, with hourly segments", START, vec![START - 3600, START - 7200, START + 7200]),
    ] {
        let mut machine = Machine::at(3, start);
        machine.settings.rotation = Rotation::hourly();
        let mut process = machine.open();
        for second in steps {
            process.emit(&mut machine, 3);
            machine.set_clock(second);
            process.emit(&mut machine, 3);
            process.rest(&mut machine, 2);
        }
        process.close(&mut machine);
        let process = machine.open();
        process.close(&mut machine);
        intact(&machine.log(), what);
    }
}

#[test]
fn lost_events_are_a_note() {
    let mut machine = Machine::new(4);
    let mut process = machine.open();
    process.flood(&machine, 1000);
    process.rest(&mut machine, 2);
    process.close(&mut machine);
    intact(&machine.log(), "a full queue");
    let report = machine.log().verify();
    assert!(report.notes().iter().any(|note| note.kind() == NoteKind::Gap), "{report}");
}

/// ext4 can bring a deleted file back if the directory was not synced.
#[test]
fn files_that_retention_removed_may_come_back() {
    let mut machine = Machine::new(5);
    machine.settings.retention = Retention::keep_all().max_segments(2);
    let mut process = machine.open();
    let mut all = BTreeMap::new();
    for _ in 0..5 {
        process.emit(&mut machine, 4);
        process.rest(&mut machine, 2);
        all.extend(machine.log().files);
        process.rotate(&machine);
        process.rest(&mut machine, 4000);
    }
    process.close(&mut machine);
    let left = machine.log();
    let gone: Vec<_> = all.iter().filter(|(name, _)| !left.files.contains_key(*name)).collect();
    assert!(gone.len() >= 2, "{:?}", left.files.keys());
    for subset in 0..1_u32 << gone.len() {
        let mut log = left.clone();
        for (number, (name, bytes)) in gone.iter().enumerate() {
            if subset >> number & 1 == 1 {
                log.files.insert((*name).clone(), (*bytes).clone());
            }
        }
        intact(&log, "a file that exists again");
    }
}

#[test]
fn chain_numbers_may_have_gaps() {
    let chains: Vec<Chain> =
        [0, 2, 7, 255, 999].into_iter().map(|number| Chain::new(number).events(2)).collect();
    let log = Log::of(&chains.into_iter().map(Chain::close).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    intact(&log, "chains with gaps");
    assert_eq!(log.verify().heads().len(), 5);
}

#[test]
fn a_chain_that_was_left_for_another_number_is_put_in_order_by_the_next_run() {
    let mut machine = Machine::new(6);
    let mut process = machine.open();
    process.emit(&mut machine, 3);
    assert!(machine.disk.remove_behind_back("control/chain-000.lock"));
    for _ in 0..5 {
        process.emit(&mut machine, 3);
        process.rest(&mut machine, 2);
        verify(&machine.log(), &process.heads(), "while it moves");
    }
    let heads = process.heads();
    process.close(&mut machine);
    verify(&machine.log(), &heads, "the chain that was left is not closed");
    machine.open().close(&mut machine);
    verify(&machine.log(), &heads, "after the next run");
    let report = machine.log().verify();
    assert_eq!((report.verdict(), report.heads().len()), (Verdict::Intact, 2), "{report}");
}

/// The pages of a file whose sync failed may stay in the page cache until the machine restarts.
#[test]
fn a_poisoned_segment_is_not_damage_before_and_after_a_restart() {
    for cut in [false, true] {
        let mut machine = Machine::new(7);
        let mut process = machine.open();
        process.emit(&mut machine, 4);
        process.rest(&mut machine, 2);
        let heads = process.heads();
        machine.disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
        machine.disk.inject(Fault::error(&[Op::Create], Errno::IO).on("audit-").and_later());
        process.emit(&mut machine, 4);
        process.rest(&mut machine, 3);
        process.kill();
        machine.disk.clear_faults();
        verify(&machine.log(), &heads, "poisoned");
        if cut {
            machine.disk.power_cut();
        }
        let mut process = machine.open();
        process.emit(&mut machine, 2);
        process.close(&mut machine);
        verify(&machine.log(), &heads, "recovered");
        intact(&machine.log(), "recovered");
    }
}

/// Processes on one machine, with everything that can happen to an honest log, at random.
struct Life {
    machine: Machine,
    processes: Vec<Process>,
    heads: Vec<Head>,
    seen: BTreeMap<String, Vec<u8>>,
}

impl Life {
    fn new(seed: u64, random: &mut Prng) -> Self {
        let mut machine = Machine::new(seed);
        if random.below(2) == 0 {
            machine.settings.retention = Retention::keep_all().max_segments(3);
        }
        if random.below(2) == 0 {
            machine.settings.rotation = Rotation::hourly().max_bytes(4096);
        }
        Self { machine, processes: Vec::new(), heads: Vec::new(), seen: BTreeMap::new() }
    }

    fn step(&mut self, random: &mut Prng) -> &'static str {
        let machine = &mut self.machine;
        let at = random.below(self.processes.len().max(1));
        let Some(process) = self.processes.get_mut(at) else {
            // A failing disk may refuse.
            self.processes.extend(machine.try_open());
            return "open";
        };
        match random.below(14) {
            0 => self.processes.extend(machine.try_open()),
            1 => {
                machine.disk.clear_faults();
                self.processes.swap_remove(at).close(machine);
                return "close";
            }
            2 => {
                self.processes.swap_remove(at).kill();
                return "kill";
            }
            3 => {
                machine.disk.power_cut();
                machine.disk.clear_faults();
                self.processes.clear();
                return "power cut";
            }
            4 => {
                process.rotate(machine);
                return "rotate";
            }
            5 => {
                machine.disk.inject(Fault::error(&Op::SYNCS, Errno::IO));
                return "a sync fails";
            }
            6 => {
                machine.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC));
                return "a write finds no room";
            }
            7 => {
                let second = START + DAY * i64::try_from(random.below(5)).unwrap() - 2 * DAY;
                machine.set_clock(second);
                return "a clock step";
            }
            8 => {
                process.flood(machine, 500);
                return "a flood";
            }
            9 => {
                let now = machine.log().files;
                let oldest = now.keys().next().cloned();
                let gone = self.seen.iter().find(|(name, _)| Some(*name) < oldest.as_ref());
                if let Some((name, bytes)) = gone {
                    machine.disk.replace(name, bytes);
                }
                return "a file comes back";
            }
            10 => process.rest(machine, 4000),
            _ => process.emit(machine, 4),
        }
        "work"
    }

    fn look(&mut self, what: &str) {
        for process in &mut self.processes {
            process.work(&self.machine);
            self.heads.extend(process.heads());
        }
        self.heads.sort_unstable_by_key(Head::seq);
        self.heads.dedup();
        let log = self.machine.log();
        if log.files.is_empty() {
            return;
        }
        verify(&log, &self.heads, what);
        self.seen.extend(log.files);
    }
}

#[test]
fn nothing_that_happens_to_an_honest_log_is_damage() {
    let lives = times("AUDIT_LIVES", 30);
    let has_python = python::is_there("nothing_that_happens_to_an_honest_log_is_damage");
    for seed in 0..lives {
        let mut random = Prng::new(seed);
        let mut life = Life::new(seed, &mut random);
        let mut story = format!("seed {seed}:");
        for _ in 0..25 {
            story = format!("{story} {},", life.step(&mut random));
            life.look(&story);
        }
        life.machine.disk.clear_faults();
        for process in std::mem::take(&mut life.processes) {
            process.close(&mut life.machine);
        }
        life.machine.open().close(&mut life.machine);
        life.look(&story);
        if has_python && seed % 20 == 0 {
            python::agree(&life.machine.log(), &life.heads);
        }
    }
}
