//! Seeded runs of everything at once: faults, power cuts, kills, several processes.
//!
//! A seed that fails is printed. `AUDIT_SEED=<seed> cargo test --lib one_seed -- --nocapture` runs it
//! again and shows every call to the disk; `AUDIT_SEEDS=<number>` runs so many instead of 10,000.

use std::{panic, time::Duration};

use super::{
    oracle::{self, Strictness},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    FlushMode, Retention, Rotation, Severity, Verdict,
    queue::Stage,
    storage::sim::{Applied, Errno, Fault, Op, Prng, SyncFailure},
    writer::Next,
};

const SEEDS: u64 = 10_000;

/// Faults that end a write or a sync.
const ERRNOS: [Errno; 7] =
    [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::ROFS, Errno::MFILE, Errno::INTR];

/// One run, step by step drawn from its seed.
struct Run {
    world: World,
    prng: Prng,
    settings: Settings,
    nodes: Vec<Node>,
    /// Syncs that had failed when all was well the last time.
    failures: u64,
    /// The file system reports a failed sync one late, so nothing is promised.
    promises_nothing: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::for_purpose(seed, 99);
        let mode = match prng.below(4) {
            0 => FlushMode::Immediate,
            1 => FlushMode::Batched { size: 5, interval: 200 * MS },
            _ => FlushMode::Hybrid { batch_size: 4, batch_interval: 500 * MS, critical_immediate: true },
        };
        let mut settings = Settings::with_mode(mode);
        if prng.chance(500) {
            settings = settings.rotation(Rotation::never().max_bytes(800 + prng.below(6000) as u64));
        }
        if prng.chance(300) {
            let most = 1 + u32::try_from(prng.below(3)).unwrap();
            settings = settings.retention(Retention::keep_all().max_segments(most));
        }
        let world = World::new(seed);
        let failure = match prng.below(16) {
            0 => SyncFailure::Ext4Data,
            1..=4 => SyncFailure::Xfs,
            5..=8 => SyncFailure::Btrfs,
            _ => SyncFailure::Ext4Ordered,
        };
        world.disk.set_sync_failure(failure);
        let promises_nothing = failure == SyncFailure::Ext4Data;
        Self { world, prng, settings, nodes: Vec::new(), failures: 0, promises_nothing }
    }

    fn failed_syncs(&self) -> u64 {
        Op::SYNCS.into_iter().map(|op| self.world.disk.failures(op)).sum()
    }

    fn inject(&mut self) {
        let disk = self.world.disk.clone();
        if self.prng.chance(300) {
            disk.inject(Fault::short_write(1 + self.prng.below(700)).per_mille(200));
            disk.inject(Fault::short_read(1 + self.prng.below(700)).per_mille(100));
        }
        for _ in 0..self.prng.below(3) {
            let errno = ERRNOS[self.prng.below(ERRNOS.len())];
            let op = match self.prng.below(3) {
                0 => Op::SYNCS[self.prng.below(3)],
                1 => Op::CHANGES[self.prng.below(Op::CHANGES.len())],
                _ => Op::ALL[self.prng.below(Op::ALL.len())],
            };
            let fault = if self.prng.chance(700) {
                Fault::error(&[op], errno)
            } else {
                Fault::error_applied(&[op], errno)
            };
            disk.inject(match self.prng.below(4) {
                0 => fault.per_mille(60),
                1 => fault.nth(1 + self.prng.next() % 20).and_later(),
                _ => fault.nth(1 + self.prng.next() % 40),
            });
        }
        if self.prng.chance(200) {
            disk.set_free_bytes(self.prng.below(6000));
        }
    }

    fn mend(&mut self) {
        self.world.disk.clear_faults();
        self.world.disk.set_capacity(None);
    }

    fn open(&mut self) {
        let failures = self.failed_syncs();
        let process = self.world.disk.process();
        let opened = self.world.open_in(process.clone(), &self.settings);
        if let Ok(node) = opened {
            let damaged = node.found.iter().find(|found| found.damaged);
            assert!(damaged.is_none() || self.promises_nothing, "a false alarm: {damaged:?}");
            self.failures = self.failed_syncs();
            self.nodes.push(node);
        } else {
            process.kill();
            // What a dead process knew of a failed sync, and could not write down, is known to
            // nobody: only a restart of the machine brings the truth out.
            if self.failed_syncs() > failures {
                self.power_cut();
            }
        }
    }

    fn power_cut(&mut self) {
        self.world.disk.power_cut();
        self.nodes.clear();
        self.failures = self.failed_syncs();
    }

    fn kill(&mut self, index: usize) {
        let node = self.nodes.remove(index);
        node.process.kill();
        let marked = node.queue.gauges.head().is_some_and(|head| {
            let lock = self.world.disk.contents(&format!("control/chain-{:03}.lock", head.chain()));
            lock.is_some_and(|lock| lock.starts_with(b"poison"))
        });
        drop(node);
        if self.failed_syncs() > self.failures && !marked {
            self.power_cut();
        }
    }

    /// Forgets processes that a crash ended.
    fn bury(&mut self) {
        while let Some(dead) = self.nodes.iter().position(|node| !node.process.is_alive()) {
            self.kill(dead);
        }
    }

    fn act(&mut self) {
        if self.nodes.is_empty() {
            self.open();
            return;
        }
        let index = self.prng.below(self.nodes.len());
        let events = self.prng.below(6);
        let node = &mut self.nodes[index];
        match self.prng.below(20) {
            0..=9 => {
                for _ in 0..events {
                    let severity = if self.prng.chance(300) { Severity::Critical } else { Severity::Routine };
                    let padding = if self.prng.chance(100) { 900 } else { self.prng.below(200) };
                    node.emit(&mut self.world, severity, padding);
                }
                node.pump(&mut self.world);
            }
            10..=12 => {
                let time = MS * u32::try_from(self.prng.below(1000)).unwrap();
                self.world.advance(time);
            }
            13 => {
                self.world.advance(Duration::from_secs(61));
            }
            14 | 15 => {
                node.pump(&mut self.world);
            }
            16 => {
                node.queue.ask_rotation();
                node.pump(&mut self.world);
            }
            17 if self.nodes.len() < 3 => self.open(),
            18 if self.prng.chance(400) => self.mend(),
            19 if self.prng.chance(300) => self.close(index),
            _ => {}
        }
        self.bury();
        if self.nodes.iter().all(|node| !node.is_failing()) && !self.nodes.is_empty() {
            self.failures = self.failed_syncs();
        }
    }

    /// Closes in order, or gives up after a while as an application does.
    fn close(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.queue.end(Stage::Closing);
        for attempt in 0..20 {
            match node.pump(&mut self.world) {
                Next::Ended => break,
                Next::Pause(_, until) => {
                    let rest = until.saturating_sub(self.world.now.elapsed);
                    self.world.advance(rest + MS);
                }
            }
            if attempt == 10 {
                node.queue.end(Stage::Abandoned);
            }
        }
        if node.process.is_alive() {
            assert_eq!(node.queue.stage(), Stage::Closed, "close takes for ever");
        }
        if node.queue.stage() == Stage::Closed && !node.is_failing() {
            self.nodes.remove(index);
        } else {
            self.kill(index);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..2 + self.prng.below(3) {
            self.inject();
            if self.prng.chance(600) {
                self.world.disk.cut_power_at(1 + self.prng.next() % 120, Applied::Seeded);
            }
            for _ in 0..=self.prng.below(2) {
                self.open();
                self.bury();
            }
            for node in &self.nodes {
                if self.prng.chance(300) {
                    node.process.kill_at(1 + self.prng.next() % 60, Applied::Seeded);
                }
            }
            for _ in 0..self.prng.below(40) {
                self.act();
            }
            match self.prng.below(3) {
                0 => self.power_cut(),
                1 => {
                    while !self.nodes.is_empty() {
                        self.kill(0);
                    }
                }
                _ => {}
            }
            self.mend();
        }
        self.mend();
        while !self.nodes.is_empty() {
            self.kill(0);
        }
        // Crashes while recovering from crashes.
        for _ in 0..self.prng.below(3) {
            self.world.disk.cut_power_at(1 + self.prng.next() % 30, Applied::Seeded);
            self.open();
            self.bury();
            self.mend();
            self.power_cut();
        }
        if self.prng.chance(700) {
            self.power_cut();
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<(), String> {
        let mut node = self.world.open(&self.settings).map_err(|error| format!("cannot open: {error}"))?;
        if self.promises_nothing {
            return Ok(());
        }
        let left_alone = node.found.iter().any(|found| found.left_alone);
        if let Some(damaged) = node.found.iter().find(|found| found.damaged) {
            return Err(format!("a false alarm: {damaged:?}"));
        }
        node.critical(&mut self.world);
        node.run_for(&mut self.world, SECOND);
        node.close(&mut self.world);
        oracle::check(&self.world, Strictness::Once)?;
        let (verdict, report) = oracle::verify(&self.world)?;
        if verdict != Verdict::Intact && !left_alone {
            return Err(format!("after recovery and close: {report}"));
        }
        Ok(())
    }
}

fn run(seed: u64, shows: bool) -> Result<(), String> {
    let outcome = panic::catch_unwind(|| {
        let mut run = Run::new(seed);
        if shows {
            run.world.disk.record_trace();
        }
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| run.run()));
        if shows {
            run.world.disk.trace().iter().for_each(|line| println!("{line}"));
            for (name, bytes) in run.world.disk.snapshot() {
                println!("--- {name}\n{}", String::from_utf8_lossy(&bytes));
            }
        }
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        })
    });
    outcome.unwrap_or_else(|_| Err("panicked".to_owned()))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn ten_thousand_crashes_lose_nothing_that_was_acknowledged() {
    let seeds = number("AUDIT_SEEDS").unwrap_or(SEEDS);
    let first = number("AUDIT_FIRST_SEED").unwrap_or(0);
    let threads = 2;
    let failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let part = |thread: u64| {
            scope.spawn(move || {
                (first..first + seeds)
                    .filter(|seed| seed % threads == thread)
                    .filter_map(|seed| run(seed, false).err().map(|error| (seed, error)))
                    .collect::<Vec<_>>()
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts.into_iter().flat_map(|part| part.join().expect("join")).collect()
    });
    for (seed, error) in failures.iter().take(20) {
        println!("AUDIT_SEED={seed}: {error}");
    }
    assert!(failures.is_empty(), "{} of {seeds} seeds failed", failures.len());
}

#[test]
fn one_seed() {
    if let Some(seed) = number("AUDIT_SEED") {
        println!("{:?}", run(seed, true));
    }
}
