//! Sources of the records of a fleet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    origin::Origin,
    sink::{Gap, SinkError},
};

/// A stream with the records of many logs, in the order in which they were stored. Each message has its own
/// place: places rise, and never change.
pub trait Feed {
    /// Returns the current state of the stream.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    fn state(&mut self) -> Result<StreamState, SinkError>;

    /// Starts with the first message at or after this place.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    fn start(&mut self, place: u64) -> Result<(), SinkError>;

    /// Returns the next messages, at most `limit`. Waits up to `wait` for the first one; empty if none
    /// arrived.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]. Then [`start`](Self::start) is called again.
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<Delivered>, SinkError>;

    /// Returns whether the last [`next`](Self::next) was empty because there is nothing more, and not only
    /// because nothing arrived in time.
    fn is_at_end(&self) -> bool {
        false
    }

    /// Returns the heartbeats that arrived since the last call.
    fn beats(&mut self) -> Vec<Beat> {
        Vec::new()
    }
}

/// The state of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamState {
    /// What distinguishes this stream from another one of the same name, such as its creation time.
    pub identity: String,
    /// The place of the first message that it still has; the place after the last one if it has none.
    pub first: u64,
    /// The place of the last message; 0 if there never was one.
    pub last: u64,
}

impl StreamState {
    /// Creates the state of a stream with messages at these places.
    #[must_use]
    pub fn new(identity: impl Into<String>, first: u64, last: u64) -> Self {
        Self { identity: identity.into(), first, last }
    }
}

/// A message of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivered {
    /// Its place in the stream.
    pub place: u64,
    /// Its content.
    pub what: What,
}

impl Delivered {
    /// Creates a message.
    #[must_use]
    pub const fn new(place: u64, what: What) -> Self {
        Self { place, what }
    }
}

/// The content of a message.
#[derive(Debug, Clone)]
pub enum What {
    /// A record.
    Line {
        /// The origin of its log.
        origin: Origin,
        /// The id of its chain, according to the sender.
        chain_id: Arc<str>,
        /// The line, without its line feed.
        line: Vec<u8>,
    },
    /// Retention removed records before they could be sent.
    Gap {
        /// The origin of their log.
        origin: Origin,
        /// The records.
        gap: Gap,
    },
    /// Something that no forwarder sends.
    Stranger,
}

/// A heartbeat of a forwarder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Beat {
    /// The origin of the log that it forwards.
    pub origin: Origin,
    /// The chains that are not being forwarded, by id, with the reasons.
    pub left_out: BTreeMap<Arc<str>, String>,
    /// Why it cannot send anything, while it cannot.
    pub trouble: Option<String>,
}

impl Beat {
    /// Creates a heartbeat.
    #[must_use]
    pub fn new(origin: Origin, left_out: BTreeMap<Arc<str>, String>) -> Self {
        Self { origin, left_out, trouble: None }
    }
}
