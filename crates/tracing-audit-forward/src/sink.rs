//! The interface of a store: one small trait.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use tracing_audit::{Digest, Record};

/// A store that receives a copy of a log.
///
/// All calls come from one thread, one at a time. A call may block for as long as its own timeouts allow; it
/// delays this sink only. A call that fails with [`SinkError::Unavailable`] or [`SinkError::Setup`] is
/// repeated later, so a sink reconnects by itself. A panic ends the forwarder for good
/// ([`State::Closed`](crate::State::Closed)).
///
/// A sink must not emit audit events into the log that it receives: each would be offered to it.
pub trait Sink: Send {
    /// Returns the last record that the store has of each of these chains; chains of which it has nothing are
    /// omitted. `None` if the store cannot be asked: then the forwarder has to rely on its own position.
    ///
    /// Called when forwarding begins, after a call failed with `Unavailable` or `Setup`, when a program drains,
    /// and once a minute or as often as [`pace`](Self::pace) says. While a chain is left out: every 5 seconds,
    /// or, if other chains are forwarded, after [`Pace::linger`] if that is longer.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]. If the store has something of a chain that it
    /// cannot continue, the chain is omitted from the answer, and [`offer`](Self::offer) returns
    /// [`SinkError::Chain`].
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError>;

    /// Stores records, in the order of each chain. Returning `Ok` acknowledges all of them: from then on the
    /// store must have them, whatever happens to it. A record that the store already has is acknowledged
    /// again, if it is the same.
    ///
    /// # Errors
    ///
    /// [`SinkError`] states which records were not stored, and how the forwarder continues.
    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError>;

    /// Called when retention removed records before they could be offered. What the store keeps of that is up
    /// to the sink, but the verification of the copy has to accept the gap and report it.
    ///
    /// # Errors
    ///
    /// After [`SinkError::Unavailable`] and [`SinkError::Setup`], the call is repeated. After any other error
    /// forwarding continues without it, with a notice.
    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let _: &Gap = gap;
        Ok(())
    }

    /// Called whenever the set of chains that are not being forwarded changes, with the reasons. The keys are
    /// chain ids, or chain numbers (`001`) where no id can be read. A store that others watch can publish it.
    fn left_out(&mut self, chains: &BTreeMap<Arc<str>, String>) {
        let _: &BTreeMap<Arc<str>, String> = chains;
    }

    /// Called after a failure, once the store acknowledges records again or is found to have all durable ones.
    fn healed(&mut self) {}

    /// Returns how much the sink wants at once, and how often. Called when forwarding begins.
    fn pace(&self) -> Pace {
        Pace::default()
    }

    /// Ends the connection. Nothing is offered after this call.
    fn close(&mut self) {}
}

/// How much a sink wants at once, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// Maximum number of records in one [`offer`](Sink::offer). Default: 1,000. Minimum: 1.
    pub batch_records: usize,
    /// Bytes of lines after which nothing more is added to an offer. Default: 1 MiB.
    pub batch_bytes: usize,
    /// How long a record may wait for others so that they are offered together. Default: zero, which offers
    /// at once what is there. A drain ends the wait.
    pub linger: Duration,
    /// How often the store is asked what it has while all is well. Default: 1 minute. Retention that waits
    /// for this store waits for the answer.
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
    /// Creates the entry of a record of this chain.
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
    /// The first missing record.
    pub first_seq: u64,
    /// The last missing record.
    pub last_seq: u64,
}

impl Gap {
    /// Creates the gap of these records of a chain.
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

/// Why a store did not accept records, and how the forwarder continues. The texts say what failed, and
/// contain neither credentials nor the content of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The store cannot be reached, is full, or asks to be tried later. The same records are offered again
    /// later.
    #[error("{reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// How long the store asks to be left alone, if it does.
        retry_after: Option<Duration>,
    },

    /// Somebody has to change something: credentials, a schema, a certificate. Retried less often.
    #[error("{reason}")]
    Setup {
        /// What is wrong, and what to do.
        reason: String,
    },

    /// The store refuses at least one record of the batch because of its content. The forwarder divides the batch
    /// until it finds the record, and offers the others again, including those that the store has stored already.
    #[error("{reason}")]
    Refused {
        /// The reason that the store gave.
        reason: String,
    },

    /// The store accepted all except these. Only for a store that cannot be asked. For one that can, it
    /// counts as [`Refused`](Self::Refused), because there no record may be missing before the last one that
    /// the store reports.
    #[error("{} records were refused", refused.len())]
    Partly {
        /// Index of each refused record in the batch, counted from 0, in ascending order, and the reason that the store
        /// gave.
        refused: Vec<(usize, String)>,
    },

    /// The store has another record under the key of one of these: a log or a store was restored or cloned.
    ///
    /// It stored nothing of this chain from that record on, and nothing more of it is offered. It may have
    /// stored records of other chains.
    #[error("the store has another record in the place of one that is offered: {stored}")]
    Conflict {
        /// Index of the record in the batch, counted from 0.
        index: usize,
        /// The hash of the record that the store has.
        stored: Digest,
    },

    /// What the store has of the chain of one record is damaged, or was not put there by this sink, so the
    /// sink cannot continue it.
    ///
    /// It stored nothing more of this chain, and nothing more of it is offered. It may have stored records of
    /// other chains.
    #[error("{reason}")]
    Chain {
        /// Index of the record in the batch, counted from 0.
        index: usize,
        /// What is wrong, and where.
        reason: String,
    },
}
