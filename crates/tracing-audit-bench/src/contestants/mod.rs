//! The contestants: their table, and the trait that each implements.

mod chained;
mod floors;
mod loggers;
mod ours;
mod plain;
mod sealed;
mod stores;

use std::{any::Any, path::Path};

pub(crate) use sealed::HASHES;

use crate::{Result, measure::Measure, workload::Event};

/// A log or store that is set up and takes events from any thread.
pub(crate) trait Subject: Send + Sync {
    /// Returns what a thread keeps while it emits, usually the span.
    fn enter(&self) -> Box<dyn Any> {
        Box::new(())
    }

    fn emit(&self, event: Event<'_>);

    /// Returns when everything emitted is written: to the kernel, or to the disk if the contestant
    /// syncs.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// One line of the tables.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// A description for readers of the tables.
    pub(crate) about: &'static str,
    pub(crate) measures: &'static [Measure],
    pub(crate) set_up: fn(&Path) -> Result<Box<dyn Subject>>,
    /// Verifies what was written, with that many threads (0 for all cores). Returns the number of bytes.
    pub(crate) verify: Option<fn(&Path, usize) -> Result<u64>>,
    /// Whether its events are critical.
    pub(crate) is_critical: bool,
}

impl std::fmt::Debug for Contestant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const COSTS: &[Measure] = &[Measure::Cost, Measure::Sustained];
const DURABLE: &[Measure] = &[Measure::Durable];

const fn new(
    name: &'static str,
    about: &'static str,
    measures: &'static [Measure],
    set_up: fn(&Path) -> Result<Box<dyn Subject>>,
) -> Contestant {
    Contestant { name, about, measures, set_up, verify: None, is_critical: false }
}

/// All contestants, in the order in which they run. Those that are compared are near each other,
/// because the speed of a disk drifts.
pub(crate) const ALL: &[Contestant] = &[
    new("floor-format", "floor: format the event in a tracing layer, nothing else", COSTS, floors::format),
    new("floor-queue", "floor: format, queue, and a thread that discards", COSTS, floors::queue),
    new("floor-chain", "floor: format, queue and hash chain, written but never synced", COSTS, floors::chain),
    new(
        "floor-chain-synced",
        "floor: the same, synced like our Hybrid mode",
        &[Measure::Sustained],
        floors::chain_synced,
    ),
    Contestant {
        verify: Some(ours::verify),
        ..new("ours", "tracing-audit, Hybrid (the default), routine events", ALL_BUT_DURABLE, ours::hybrid)
    },
    new("ours-batched", "tracing-audit, Batched", COSTS, ours::batched),
    new("fmt", "tracing_subscriber::fmt().json() to a file", COSTS, plain::fmt),
    new("fmt-lossless", "the same through tracing_appender::non_blocking, lossless", COSTS, plain::lossless),
    new("ftlog", "ftlog, text records", COSTS, loggers::ftlog),
    new("inqjet", "inqjet, text records formatted on its own thread", COSTS, loggers::inqjet),
    Contestant {
        verify: Some(floors::sha256),
        ..new("floor-sha256", "floor: SHA-256 over the lines of ours", &[Measure::Verify], ours::hybrid)
    },
    new("raw", "floor: write and fdatasync, one line at a time", DURABLE, sealed::raw),
    new("ideal", "floor: an ideal group commit, without a chain", DURABLE, sealed::group_commit),
    new("ours-immediate", "tracing-audit, Immediate", DURABLE, ours::immediate),
    Contestant {
        is_critical: true,
        ..new("ours-critical", "tracing-audit, Hybrid, critical events", DURABLE, ours::hybrid)
    },
    new("okaywal", "okaywal, a commit for each event", DURABLE, stores::okaywal),
    new("sqlite", "SQLite, WAL, synchronous=FULL, an insert for each event", DURABLE, stores::sqlite),
    new("fjall", "fjall, an insert and a persist for each event", DURABLE, stores::fjall),
    Contestant {
        verify: Some(chained::verify_audit_trail),
        ..new("audit-trail", "audit-trail, FileSink, synced for each event", CHAINED, chained::audit_trail)
    },
];

const ALL_BUT_DURABLE: &[Measure] = &[
    Measure::Cost,
    Measure::Sustained,
    Measure::Verify,
    Measure::Mixed,
    Measure::Processes,
    Measure::Memory,
    Measure::MemoryStalled,
    Measure::Large,
    Measure::GrowthEvents,
    Measure::GrowthThreads,
    Measure::GrowthSizes,
    Measure::GrowthSegments,
];
const CHAINED: &[Measure] = &[Measure::Durable, Measure::Verify];

/// Contestants that were left out, and why.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[];

pub(crate) fn find(name: &str) -> Option<&'static Contestant> {
    ALL.iter().find(|contestant| contestant.name == name)
}
