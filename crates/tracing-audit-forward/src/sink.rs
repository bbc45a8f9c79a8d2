//! What a store is to a forwarder: one small trait.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use tracing_audit::{Digest, Record};

/// A store that gets a copy of a log.
///
/// All calls come from one thread, one at a time. A call may block for as long as its own timeouts allow: it holds up
/// this sink and nothing else. Each call that fails is repeated later, so a sink connects again by itself. A panic ends the
/// forwarder for good ([`State::Closed`](crate::State::Closed)).
///
/// A sink emits no audit events into the log that it is given: each would be offered to it.
pub trait Sink: Send {
    /// What the store has: for each of these chains of which it has anything, its last record. `None` where it cannot
    /// be asked; then the forwarder has to believe its own position.
    ///
    /// Asked when forwarding begins, after each call that failed, when a program drains, and once a minute or as often as
    /// [`pace`](Self::pace) says; every 5 seconds while a chain is left out.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]. A chain of which the store has something that it cannot go on with
    /// is left out of the answer: [`offer`](Self::offer) says [`SinkError::Chain`] then.
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError>;

    /// Takes records, in the order of each chain. Returning `Ok` acknowledges all of them: from then on the store must
    /// have them, whatever happens to it. What the store has already is acknowledged again, if it is the same.
    ///
    /// # Errors
    ///
    /// [`SinkError`] says which records were not taken, and what will help.
    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError>;

    /// Is told that retention removed records before they could be offered. What the store keeps of that is its own
    /// matter; the verification of the copy has to accept it and report it.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]: it is told again. After another error forwarding goes on without
    /// it, with a notice.
    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let _: &Gap = gap;
        Ok(())
    }

    /// Is told which chains are not forwarded now, by their ids, or by their numbers (`001`) where no id can be read, and why:
    /// each time that this changes. A store that others watch can say it there.
    fn left_out(&mut self, chains: &BTreeMap<Arc<str>, String>) {
        let _: &BTreeMap<Arc<str>, String> = chains;
    }

    /// Is told that the store has everything again, after a call had failed.
    fn healed(&mut self) {}

    /// How much the sink wants at once, and how often. Asked when forwarding begins.
    fn pace(&self) -> Pace {
        Pace::default()
    }

    /// Ends the connection. Nothing is offered after this.
    fn close(&mut self) {}
}

/// How much a sink wants at once, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The most records of one [`offer`](Sink::offer). 1,000 by default, 1 at least.
    pub batch_records: usize,
    /// After how many bytes of lines nothing more is added to an offer. 1 MiB by default.
    pub batch_bytes: usize,
    /// How long a record may wait for others that are offered with it. Zero by default: what is there is offered at once.
    /// A drain ends the wait.
    pub linger: Duration,
    /// How often the store is asked what it has while all is well. 1 minute by default. Retention that waits for this
    /// store waits for the answer.
    pub ask_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch_records: 1_000,
            batch_bytes: 1 << 20,
            linger: Duration::ZERO,
            ask_every: Duration::from_secs(60),
        }
    }
}

/// A record on its way to a store. Its key there is the chain's id and the sequence number.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The id of the chain: 32 hexadecimal digits.
    pub chain_id: Arc<str>,
    /// The record. [`Record::as_json`] is the line, byte for byte, without its line feed.
    pub record: Record,
}

impl Entry {
    /// A record of this chain.
    #[must_use]
    pub fn new(chain_id: Arc<str>, record: Record) -> Self {
        Self { chain_id, record }
    }
}

/// Records that retention removed before they could be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The id of the chain.
    pub chain_id: Arc<str>,
    /// The number of the chain.
    pub chain: u16,
    /// The first record that is missing.
    pub first_seq: u64,
    /// The last record that is missing.
    pub last_seq: u64,
}

impl Gap {
    /// These records of a chain are missing.
    #[must_use]
    pub fn new(chain_id: Arc<str>, chain: u16, seqs: RangeInclusive<u64>) -> Self {
        let (first_seq, last_seq) = seqs.into_inner();
        Self { chain_id, chain, first_seq, last_seq }
    }
}

/// The last record of a chain that a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The id of the chain.
    pub chain_id: Arc<str>,
    /// Its sequence number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

/// Why a store did not take records, and what will help. Texts say what failed, and hold neither credentials nor the
/// content of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The store cannot be reached, is full, or asks for patience: the same is offered again later.
    #[error("{reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// How long the store asks to be left alone, if it says so.
        retry_after: Option<Duration>,
    },

    /// Somebody has to change something: credentials, a schema, a certificate. Tried again, seldom.
    #[error("{reason}")]
    Setup {
        /// What is wrong, and what to do.
        reason: String,
    },

    /// The store refuses the batch for what is in it, and took none of it. The forwarder divides the batch until it knows
    /// for which record's sake.
    #[error("{reason}")]
    Refused {
        /// What the store said.
        reason: String,
    },

    /// The store took all but these. Only for a store that cannot be asked. From one that can, it counts as
    /// [`Refused`](Self::Refused): what lies before the last record that it names must not be missing there.
    #[error("{} records were refused", refused.len())]
    Partly {
        /// Which records of the batch, counted from 0 in ascending order, and what the store said of each.
        refused: Vec<(usize, String)>,
    },

    /// The store has another record under the key of one: a log or a store was restored or cloned. It took nothing of this
    /// chain from that record on, and nothing more of it is offered; it may have taken records of others.
    #[error("the store has another record in the place of one that is offered: {stored}")]
    Conflict {
        /// Which record of the batch, counted from 0.
        index: usize,
        /// The hash of the record that is there.
        stored: Digest,
    },

    /// What the store has of the chain of one record is damaged, or not what this sink put there, so that it cannot go on with
    /// it. It took nothing more of this chain, and nothing more of it is offered; it may have taken records of others.
    #[error("{reason}")]
    Chain {
        /// Which record of the batch, counted from 0.
        index: usize,
        /// What is wrong, and where.
        reason: String,
    },
}
