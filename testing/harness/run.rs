//! One seeded run with everything at once: faults, power cuts, kills, several processes.

use std::{collections::BTreeMap, panic, time::Duration};

use super::{
    Failure, Outcome,
    oracle::{self, Strictness},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    FlushMode, Retention, Rotation, Severity, Verdict,
    queue::Stage,
    storage::sim::{Applied, Errno, Fault, Op, Prng, SimDisk, SimProcess, SyncFailure},
    writer::Next,
};

/// A forwarder whose store never has any record.
const FORWARDER: &str = "archive";

/// The most processes that have the log open at the same time.
const MOST_PROCESSES: usize = 4;

/// The number of failed opens in a row after which the disk is repaired. Each may leave a chain behind, and
/// opening reads what every chain names of every other.
const MOST_VAIN_OPENS: u32 = 8;

/// The errors with which calls fail.
const ERRNOS: [Errno; 7] =
    [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::ROFS, Errno::MFILE, Errno::INTR];

/// One run, drawn step by step from its seed.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) prng: Prng,
    /// Draws what happens to copies of the log. Separate, so that it does not change the run itself.
    pub(super) copies: Prng,
    pub(super) settings: Settings,
    pub(super) nodes: Vec<Node>,
    /// Children that hold what their parents had open, and do nothing.
    pub(super) forks: Vec<SimProcess>,
    /// The number of failed syncs when no process was last in doubt.
    failures: u64,
    /// Why nothing can be promised on this machine, if so.
    pub(super) promises_nothing: Option<&'static str>,
    /// Whether a lock was lost. The log then changed its chain, and records may be in both.
    pub(super) lost_a_lock: bool,
    /// Sealed segments, as they were before retention removed them.
    pub(super) sealed: super::mischief::Sealed,
    failure: Option<Failure>,
    vain_opens: u32,
    outcome: Outcome,
}

/// Runs a seed. Passes every call to the disk and what it left to `show`, if given.
pub(super) fn run(seed: u64, mut show: Option<&mut dyn FnMut(&str)>) -> Result<Outcome, Failure> {
    let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let mut run = Run::new(seed);
        if show.is_some() {
            run.world.disk.record_trace();
        }
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| run.go()));
        if let Some(show) = &mut show {
            run.show(show);
        }
        result.unwrap_or_else(|panic| Err(panicked(&*panic))).map(|()| run.outcome())
    }));
    caught.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Failure::Other(format!("panicked: {}", text.unwrap_or_default()))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::for_purpose(seed, 99);
        let mut settings = draw_settings(&mut prng);
        let mut world = World::new(seed);
        let mut forwarding = Prng::for_purpose(seed, 96);
        if forwarding.chance(100) {
            settings.writer.retention = settings.writer.retention.require_forwarded([FORWARDER]);
        }
        if forwarding.chance(200) {
            // It has stored nothing yet, but it exists.
            world.disk.replace(&format!("control/forward-{FORWARDER}"), b"");
        }
        world.simulate_the_clock();
        // The late report of `Ext4Data` breaks every promise, so it is rare.
        let failure = match prng.below(16) {
            0 => SyncFailure::Ext4Data,
            1..=4 => SyncFailure::Xfs,
            5..=8 => SyncFailure::Btrfs,
            _ => SyncFailure::Ext4Ordered,
        };
        world.disk.set_sync_failure(failure);
        let promises_nothing = match prng.below(32) {
            _ if failure == SyncFailure::Ext4Data => Some("a failed sync is reported one late"),
            0 => Some("a sync lies"),
            1 => Some("somebody changes the files"),
            _ => None,
        };
        world.trusts_the_disk = promises_nothing.is_none();
        Self {
            world,
            prng,
            copies: Prng::for_purpose(seed, 97),
            settings,
            nodes: Vec::new(),
            forks: Vec::new(),
            failures: 0,
            promises_nothing,
            lost_a_lock: false,
            sealed: super::mischief::Sealed::default(),
            failure: None,
            vain_opens: 0,
            outcome: Outcome::default(),
        }
    }

    fn show(&self, show: &mut dyn FnMut(&str)) {
        self.world.disk.trace().iter().for_each(|line| show(line));
        for (name, bytes) in self.world.disk.snapshot() {
            show(&format!("--- {name}\n{}", String::from_utf8_lossy(&bytes)));
        }
    }

    pub(super) fn failed_syncs(&self) -> u64 {
        Op::SYNCS.into_iter().map(|op| self.world.disk.failures(op)).sum()
    }

    fn inject(&mut self) {
        let disk = self.world.disk.clone();
        if self.promises_nothing == Some("a sync lies") {
            disk.inject(Fault::lying_sync().per_mille(300));
        }
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

    pub(super) fn repair(&mut self) {
        self.world.disk.clear_faults();
        self.world.disk.set_capacity(None);
    }

    fn open(&mut self) {
        let failures = self.failed_syncs();
        let process = self.world.disk.process();
        let opened = self.world.open_in(process.clone(), &self.settings);
        self.outcome.opened += 1;
        if let Ok(node) = opened {
            if let Some(damaged) = node.found.iter().find(|found| found.damaged) {
                let alarm = Failure::FalseAlarm(format!("{damaged:?}"));
                self.failure.get_or_insert(alarm);
            }
            self.nodes.push(node);
            self.vain_opens = 0;
            self.settle_failed_syncs();
        } else {
            process.kill();
            self.vain_opens += 1;
            if self.vain_opens >= MOST_VAIN_OPENS {
                self.repair();
            }
            // A process may have died before it could note a failed sync. Nobody else can know of that, so
            // only a restart of the machine makes the state known.
            if self.failed_syncs() > failures {
                self.power_cut();
            }
        }
    }

    pub(super) fn power_cut(&mut self) {
        self.world.disk.power_cut();
        self.nodes.clear();
        self.forks.clear();
        self.failures = self.failed_syncs();
        self.bring_back_what_was_pruned();
    }

    fn kill(&mut self, index: usize) {
        let node = self.nodes.remove(index);
        // Besides the lock of its own chain, it holds those of poisoned chains that it could not mark.
        let takes_doubts_with_it = node.process.locks() > 1;
        node.process.kill();
        self.outcome.kills += 1;
        // An entry of an earlier boot may still be there, and does not concern this one.
        let entry = format!("poison {} ", node.process.storage().boot_id());
        let marked = node.queue.gauges.head().is_some_and(|head| {
            let lock = self.world.disk.contents(&format!("control/chain-{:03}.lock", head.chain()));
            lock.is_some_and(|lock| lock.starts_with(entry.as_bytes()))
        });
        drop(node);
        if takes_doubts_with_it || (self.failed_syncs() > self.failures && !marked) {
            self.power_cut();
        }
    }

    fn kill_all(&mut self) {
        while !self.nodes.is_empty() {
            self.kill(0);
        }
        self.forks.drain(..).for_each(|fork| fork.kill());
    }

    /// Removes processes that a crash ended.
    fn remove_dead(&mut self) {
        while let Some(dead) = self.nodes.iter().position(|node| !node.process.is_alive()) {
            self.kill(dead);
        }
        self.forks.retain(SimProcess::is_alive);
        // If its journal cannot be written, a file system stops (ext4, XFS and Btrfs do). Every process stops
        // with it, including one that just created a file and would learn that its name is synced.
        if self.world.disk.others_are_in_doubt() {
            self.power_cut();
            self.outcome.file_systems_stopped += 1;
        }
    }

    fn act(&mut self) {
        if self.nodes.is_empty() {
            self.open();
            return self.remove_dead();
        }
        let index = self.prng.below(self.nodes.len());
        match self.prng.below(100) {
            0..=49 => self.emit(index),
            50..=61 => {
                let time = MS * u32::try_from(self.prng.below(1000)).unwrap();
                self.world.advance(time);
            }
            62..=65 => self.world.advance(Duration::from_secs(61)),
            66..=73 => drop(self.nodes[index].pump(&mut self.world)),
            74..=77 => {
                self.nodes[index].queue.ask_rotation();
                self.nodes[index].pump(&mut self.world);
            }
            78..=82 if self.nodes.len() < MOST_PROCESSES => self.open(),
            83..=85 if self.prng.chance(400) => self.repair(),
            86..=90 if self.prng.chance(300) => self.close(index),
            91 => self.verify(),
            _ => self.make_mischief(index),
        }
        self.remove_dead();
        self.settle_failed_syncs();
    }

    /// Updates the number of failed syncs. A process that is not failing has dealt with every failed sync of
    /// its own. One that is may be killed before it can note that, although others open the log meanwhile
    /// (seed 805,580).
    fn settle_failed_syncs(&mut self) {
        if self.nodes.iter().all(|node| !node.is_failing()) && !self.nodes.is_empty() {
            self.failures = self.failed_syncs();
        }
    }

    fn emit(&mut self, index: usize) {
        for _ in 0..self.prng.below(6) {
            let severity = if self.prng.chance(300) { Severity::Critical } else { Severity::Routine };
            let padding = match self.prng.below(500) {
                0 => 40_000,
                1..=50 => 900,
                _ => self.prng.below(200),
            };
            self.nodes[index].emit(&mut self.world, severity, padding);
            if self.copies.chance(60) {
                self.nodes[index].refuse_the_last(&mut self.world);
            }
        }
        self.nodes[index].pump(&mut self.world);
    }

    /// Verifies a log while it is being written. It must not be called damaged.
    fn verify(&mut self) {
        match oracle::verify_as_it_is(&self.world) {
            Ok(verdict) => self.outcome.honest_logs += u64::from(verdict.is_some()),
            Err(alarm) => drop(self.failure.get_or_insert(alarm)),
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
            let process = self.nodes.remove(index).process.clone();
            // It kept the lock of a poisoned chain that it could not mark. Only a restart frees that chain.
            if process.locks() > 0 {
                process.kill();
                self.power_cut();
            }
        } else {
            self.kill(index);
        }
    }

    fn go(&mut self) -> Result<(), Failure> {
        // Most runs are short, so that there can be many. Some are long.
        let most = if self.prng.chance(15) { 400 } else { 40 };
        for _ in 0..2 + self.prng.below(3) {
            self.inject();
            if self.prng.chance(600) {
                self.world.disk.cut_power_at(1 + self.prng.next() % 120, Applied::Seeded);
            }
            for _ in 0..=self.prng.below(2) {
                self.open();
                self.remove_dead();
            }
            for node in &self.nodes {
                if self.prng.chance(300) {
                    node.process.kill_at(1 + self.prng.next() % 60, Applied::Seeded);
                }
            }
            for _ in 0..self.prng.below(most) {
                self.act();
            }
            match self.prng.below(3) {
                0 => self.power_cut(),
                1 => self.kill_all(),
                _ => {}
            }
            self.repair();
            if self.promises_nothing.is_none() && self.prng.chance(200) {
                self.verify();
            }
            self.try_copies()?;
            self.make_mischief_at_rest();
        }
        self.repair();
        self.kill_all();
        // Crashes during recovery from crashes.
        for _ in 0..self.prng.below(3) {
            self.world.disk.cut_power_at(1 + self.prng.next() % 30, Applied::Seeded);
            self.open();
            self.remove_dead();
            self.repair();
            self.power_cut();
        }
        if self.prng.chance(700) {
            self.power_cut();
        }
        if self.promises_nothing.is_some() {
            self.finish_without_promises();
            return Ok(());
        }
        // Compares two recoveries of the same image before the real one changes it.
        self.repeat_recovery()?;
        self.finish()?;
        match (self.failure.take(), self.world.premature) {
            (Some(failure), _) => Err(failure),
            (None, Some(head)) => {
                Err(Failure::Lost(format!("{head} was acknowledged before it was on the medium")))
            }
            (None, None) => Ok(()),
        }
    }

    /// Ends a run of which nothing can be promised. Even then, nothing may panic or hang.
    fn finish_without_promises(&mut self) {
        self.open();
        self.remove_dead();
        if !self.nodes.is_empty() {
            self.emit(0);
            self.nodes[0].run_for(&mut self.world, SECOND);
            self.close(0);
        }
        self.outcome.verdict = oracle::verdict_without_promises(&self.world);
        self.failure = None;
    }

    /// Checks that recovery interrupted by a crash and run again has the same result as an uninterrupted one.
    fn repeat_recovery(&mut self) -> Result<(), Failure> {
        let power = self.prng.chance(500);
        let image =
            if power { self.world.disk.after_power_cut(self.prng.next()) } else { self.world.disk.copy() };
        let failures = |disk: &SimDisk| Op::SYNCS.into_iter().map(|op| disk.failures(op)).sum::<u64>();
        let once = image.copy();
        let result = self.recovered(&once)?;
        if failures(&once) > failures(&image) {
            // Writeback had failed, and the process that got the error in the other recovery may be dead.
            return Ok(());
        }
        let twice = image.copy();
        let process = twice.process();
        let at = 1 + self.prng.next() % 12;
        if power {
            twice.cut_power_at(at, Applied::Seeded);
        } else {
            process.kill_at(at, Applied::Seeded);
        }
        let mut world = World::on(twice.clone());
        world.now = self.world.now;
        drop(world.open_in(process.clone(), &self.settings));
        process.kill();
        twice.clear_faults();
        if self.recovered(&twice)? != result {
            return Err(Failure::Other("recovery with a crash in it has another result".to_owned()));
        }
        self.outcome.recoveries_repeated += 1;
        Ok(())
    }

    /// Opens the log on that machine, and returns the events of each chain.
    fn recovered(&self, disk: &SimDisk) -> Result<oracle::Places, Failure> {
        let mut world = World::on(disk.clone());
        world.now = self.world.now;
        let mut settings = self.settings.clone();
        settings.writer.exclusive = false;
        let node = world.open(&settings).map_err(|error| format!("cannot open a copy: {error}"))?;
        drop(node);
        Ok(oracle::places(&oracle::read_log(&disk.snapshot())?))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let left_alone = self.end_in_order()?;
        if left_alone {
            // A chain whose last segment could not be synced waits for the next boot.
            self.power_cut();
            if self.end_in_order()? {
                return Err(Failure::Other("a chain is left alone although nothing is wrong".to_owned()));
            }
        }
        match self.world.disk.open_files() {
            0 => Ok(()),
            open => Err(Failure::Other(format!("{open} files are still open"))),
        }
    }

    /// Opens once more, writes, closes, and checks everything. Returns whether a chain was left alone.
    fn end_in_order(&mut self) -> Result<bool, Failure> {
        let mut opened = self.world.open(&self.settings);
        if opened.is_err() && self.settings.writer.exclusive {
            self.power_cut();
            opened = self.world.open(&self.settings);
        }
        let mut node = opened.map_err(|error| format!("cannot open: {error}"))?;
        self.outcome.opened += 1;
        let left_alone = node.found.iter().any(|found| found.left_alone);
        if let Some(damaged) = node.found.iter().find(|found| found.damaged) {
            return Err(Failure::FalseAlarm(format!("{damaged:?}")));
        }
        node.critical(&mut self.world);
        node.run_for(&mut self.world, SECOND);
        node.close(&mut self.world);
        drop(node);
        let strictness = if self.lost_a_lock { Strictness::OnceOrTwice } else { Strictness::Once };
        let chains = oracle::check(&self.world, strictness)?;
        oracle::check_notices(&chains, self.lost_a_lock)?;
        if !self.settings.writer.retention.require_forwarded.is_empty() {
            self.check_that_all_is_there(&chains)?;
        }
        oracle::check_refusals(&self.world, &chains)?;
        let (verdict, report) = oracle::verify(&self.world)?;
        self.outcome.honest_logs += 1;
        self.outcome.verdict = Some(verdict);
        if verdict != Verdict::Intact && !left_alone {
            return Err(Failure::Other(format!("after recovery and close: {report}")));
        }
        Ok(left_alone)
    }

    /// Checks that nothing was removed, because the required forwarder has stored nothing.
    fn check_that_all_is_there(&self, chains: &BTreeMap<u16, oracle::Chain>) -> Result<(), Failure> {
        let names = self.world.disk.contents("forward-required").unwrap_or_default();
        // A disk that invents the contents of a sector may have left other names there.
        if !String::from_utf8_lossy(&names).lines().any(|name| name == FORWARDER) {
            return Err(Failure::Other(format!("forward-required contains {names:?}")));
        }
        match chains.iter().find(|(_, chain)| chain.pruned > 0) {
            Some((chain, _)) => Err(Failure::Other(format!("chain {chain} lost what was not forwarded"))),
            None => Ok(()),
        }
    }

    fn outcome(&self) -> Outcome {
        let emissions = || self.world.producers.iter().flat_map(|producer| &producer.emissions);
        let disk = &self.world.disk;
        let mut fingerprint = disk.trace_hash();
        for (name, bytes) in disk.snapshot() {
            for byte in name.bytes().chain(bytes) {
                fingerprint = (fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        Outcome {
            emitted: emissions().count() as u64,
            acknowledged: emissions().filter(|emission| emission.receipt.is_some()).count() as u64,
            power_cuts: disk.power_cuts(),
            faults: disk.faults_hit(),
            failed_syncs: self.failed_syncs(),
            promises_nothing: self.promises_nothing,
            fingerprint,
            ..self.outcome
        }
    }
}

fn draw_settings(prng: &mut Prng) -> Settings {
    let mode = match prng.below(4) {
        0 => FlushMode::Immediate,
        1 => FlushMode::Batched { size: 5, interval: 200 * MS },
        _ => FlushMode::Hybrid { batch_size: 4, batch_interval: 500 * MS, critical_immediate: true },
    };
    let mut settings = Settings::with_mode(mode);
    // There is one thread, so it must not wait.
    settings.queue.wait_bound = Duration::ZERO;
    let mut rotation = match prng.below(10) {
        0 => Rotation::hourly(),
        1 => Rotation::daily(),
        _ => Rotation::never(),
    };
    if prng.chance(500) {
        rotation = rotation.max_bytes(800 + prng.below(6000) as u64);
    }
    settings = settings.rotation(rotation);
    if prng.chance(300) {
        let mut retention = Retention::keep_all();
        retention = match prng.below(4) {
            0 => retention.max_bytes(2000 + prng.below(8000) as u64),
            1 => retention.max_age(Duration::from_secs(3600)),
            _ => retention.max_segments(1 + u32::try_from(prng.below(3)).unwrap()),
        };
        if prng.chance(200) {
            retention = retention.min_age(Duration::from_secs(30));
        }
        settings = settings.retention(retention);
    }
    if prng.chance(200) {
        // Events are lost, and counted.
        settings.queue.bytes = 3000 + prng.below(8000) as u64;
    }
    if prng.chance(80) {
        settings = settings.exclusive();
    }
    settings
}
