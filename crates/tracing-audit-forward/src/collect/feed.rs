//! Where the records of a fleet come from.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    origin::Origin,
    sink::{Gap, SinkError},
};

/// A stream that has the records of many logs in the order in which they were stored, each at a place of its own: the
/// numbers of places rise, and stay.
pub trait Feed {
    /// What the stream is now.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    fn state(&mut self) -> Result<StreamState, SinkError>;

    /// Goes on with the first message at or behind this place.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    fn start(&mut self, place: u64) -> Result<(), SinkError>;

    /// The next messages, at most as many as this. Waits until there is one, for as long as this; nothing where none came.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]. Then [`start`](Self::start) is called again.
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<Delivered>, SinkError>;

    /// Whether the last [`next`](Self::next) returned nothing because there is nothing more, and not only because none came in
    /// time.
    fn is_at_end(&self) -> bool {
        false
    }

    /// The signs of life that came since this was called last.
    fn beats(&mut self) -> Vec<Beat> {
        Vec::new()
    }
}

/// What a stream is now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamState {
    /// What tells this stream from another one of the same name, such as when it was made.
    pub identity: String,
    /// The place of the first message that it still has; the place behind the last one where it has none.
    pub first: u64,
    /// The place of the last message; 0 where there never was one.
    pub last: u64,
}

impl StreamState {
    /// A stream with messages at these places.
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
    /// What it says.
    pub what: What,
}

impl Delivered {
    /// A message.
    #[must_use]
    pub const fn new(place: u64, what: What) -> Self {
        Self { place, what }
    }
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum What {
    /// A record.
    Line {
        /// Whose log it is of.
        origin: Origin,
        /// The id of its chain, as the sender says.
        chain_id: Arc<str>,
        /// The line, without its line feed.
        line: Vec<u8>,
    },
    /// Retention removed records before they could be sent.
    Gap {
        /// Whose log they were of.
        origin: Origin,
        /// Which records.
        gap: Gap,
    },
    /// Nothing that a forwarder sends.
    Stranger,
}

/// A sign of life of a forwarder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Beat {
    /// Whose log it forwards.
    pub origin: Origin,
    /// The chains that it does not forward now, by their ids, and why.
    pub left_out: BTreeMap<Arc<str>, String>,
    /// Why it cannot send anything, while it cannot.
    pub trouble: Option<String>,
}

impl Beat {
    /// A sign of life.
    #[must_use]
    pub fn new(origin: Origin, left_out: BTreeMap<Arc<str>, String>) -> Self {
        Self { origin, left_out, trouble: None }
    }
}
