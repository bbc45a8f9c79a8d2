//! Reads chains. Recovery, verification and reading all take from this module what a line is and what may follow it.
//! So a log is judged the same before and after it is opened.
//!
//! `directory` lists the files. `layout` determines how many bytes of each count, from what each `first_line` states.
//! `chain_bytes` returns these bytes in order, and `lines` cuts them at line ends. `follow` goes through them line by
//! line: what does not fit becomes an `anomaly`, and good lines update the `control_state`. `chunk_summary` is the
//! fast path for a chunk without fault. `damage` decides what is damaged and what is only torn.
//!
//! `tail` reads from the end, with `lines_backward`. `seek` finds a position in the middle. `noted` is what the writer
//! noted in a lock file. `times` reads the times of records.

mod anomaly;
mod chain_bytes;
mod chunk_summary;
mod control_state;
mod damage;
mod directory;
mod first_line;
mod follow;
mod layout;
mod lines;
mod lines_backward;
mod noted;
mod seek;
mod tail;
mod times;

pub(crate) use anomaly::{Anomaly, Fault, Good, Last, LinePosition};
pub(crate) use chain_bytes::{ChainBytes, Part, ReadPosition};
pub(crate) use chunk_summary::{Summary, summarize};
pub(crate) use damage::{Durable, GoOn, durable_by_itself, go_on, is_all_torn};
pub(crate) use directory::{Directory, chains_with_a_lock, log_path};
pub(crate) use first_line::{Beginning, FirstLine, SegmentStart, open_segment};
pub(crate) use follow::{FileCount, Follow, ResumePoint, missing_records};
pub(crate) use layout::{Absent, Layout, LayoutFromEnd, SegmentFile};
#[cfg(test)]
pub(crate) use lines::Chunks;
pub(crate) use lines::{Chunk, split};
pub(crate) use lines_backward::LinesBackward;
pub(crate) use noted::{
    BLOCK, Identity, MACHINE_DIGITS, MAX_CHAINS, Noted, NotedState, Point, SLOTS, Slots, read_noted,
};
pub(crate) use seek::{lines_between, seek_line};
pub(crate) use tail::{durable_head, kind_at, last_mark, said_of};
pub(crate) use times::times_backward;
