//! Buffers that carry drafts from the queue to the writer, and are reused when they are empty.

use std::{collections::VecDeque, sync::Arc};

use super::Scope;
use crate::severity::Severity;

/// The payload capacity of one buffer, in bytes. A few of the longest lines fit.
const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
thread_local! {
    /// How many buffers this thread allocated, for tests that they are reused.
    pub(crate) static MADE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Payloads in one allocation, one after the other, with the metadata of each.
#[derive(Debug, Default)]
pub(crate) struct DraftBuffer {
    bytes: Vec<u8>,
    drafts: Vec<QueuedDraft>,
}

/// The metadata of one draft in a buffer.
#[derive(Debug, Clone)]
pub(crate) struct QueuedDraft {
    length: usize,
    /// `None` for a gap, which is no event.
    pub(crate) severity: Option<Severity>,
    /// The scope that waits for a receipt of this event.
    pub(crate) scope: Option<Arc<Scope>>,
}

impl DraftBuffer {
    pub(crate) fn len(&self) -> usize {
        self.drafts.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn drafts(&self) -> &[QueuedDraft] {
        &self.drafts
    }

    /// Returns the drafts in their order, each with its payload.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&QueuedDraft, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.drafts.iter().map(move |draft| {
            // Each payload was pushed with its metadata. After a bug here, a panic must stop the writer, which
            // would otherwise seal other bytes than were emitted.
            let (payload, tail) = rest.split_at(draft.length);
            rest = tail;
            (draft, payload)
        })
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() + length <= BUFFER_BYTES
    }

    fn push(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        // Allocated at the first use, so that an idle log holds no buffer.
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BUFFER_BYTES);
            #[cfg(test)]
            MADE.set(MADE.get() + 1);
        }
        self.bytes.extend_from_slice(payload);
        self.drafts.push(QueuedDraft { length: payload.len(), severity, scope });
    }

    /// Keeps the oldest `count` drafts and returns the others.
    fn split_off(&mut self, count: usize) -> Self {
        let drafts = self.drafts.split_off(count.min(self.drafts.len()));
        let kept: usize = self.drafts.iter().map(|draft| draft.length).sum();
        let mut rest = Self { bytes: Vec::with_capacity(BUFFER_BYTES), drafts };
        rest.bytes.extend(self.bytes.drain(kept.min(self.bytes.len())..));
        rest
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.drafts.clear();
    }
}

/// Buffers in order, and empty ones for reuse.
#[derive(Debug, Default)]
pub(crate) struct DraftBuffers {
    full: VecDeque<DraftBuffer>,
    spare: Vec<DraftBuffer>,
}

/// The most empty buffers kept for reuse: 1 MiB together.
const MAX_SPARE: usize = 4;

impl DraftBuffers {
    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &DraftBuffer> {
        self.full.iter()
    }

    pub(crate) fn drafts(&self) -> u64 {
        self.full.iter().map(|buffer| buffer.len() as u64).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.full.iter().map(DraftBuffer::bytes).sum()
    }

    /// Adds a draft behind the others. A payload never spans two buffers.
    pub(crate) fn push(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        if let Some(buffer) = self.full.back_mut().filter(|buffer| buffer.has_room(payload.len())) {
            buffer.push(payload, severity, scope);
        } else {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.push(payload, severity, scope);
            self.full.push_back(buffer);
        }
    }

    /// Returns the payload length of the oldest draft, in bytes.
    pub(crate) fn first_bytes(&self) -> Option<u64> {
        self.full.front()?.drafts.first().map(|draft| draft.length as u64)
    }

    /// Removes and returns the oldest drafts: as many as fit `room` bytes, but at least one. Each needs `envelope` bytes
    /// more than its payload.
    pub(crate) fn take_fitting(&mut self, room: u64, envelope: u64) -> Self {
        let needs = |bytes: u64, drafts: u64| bytes.saturating_add(drafts.saturating_mul(envelope));
        if needs(self.bytes(), self.drafts()) <= room {
            return Self { full: std::mem::take(&mut self.full), spare: Vec::new() };
        }
        let mut taken = Self::default();
        let mut left = room;
        while let Some(buffer) = self.full.pop_front() {
            let needed = needs(buffer.bytes(), buffer.len() as u64);
            if needed <= left {
                left -= needed;
                taken.full.push_back(buffer);
                continue;
            }
            // This buffer is the first that does not fit as a whole.
            let lengths = buffer.drafts.iter().map(|draft| draft.length as u64 + envelope);
            let count = lengths
                .scan(0_u64, |sum, needed| {
                    *sum += needed;
                    Some(*sum)
                })
                .take_while(|sum| *sum <= left)
                .count();
            let mut fitting = buffer;
            let rest = fitting.split_off(if taken.is_empty() { count.max(1) } else { count });
            if rest.len() > 0 {
                self.full.push_front(rest);
            }
            if fitting.len() > 0 {
                taken.full.push_back(fitting);
            }
            break;
        }
        taken
    }

    /// Removes and returns the oldest buffer.
    pub(crate) fn pop(&mut self) -> Option<DraftBuffer> {
        self.full.pop_front()
    }

    /// Adds a buffer behind the others. If it fits the last one, it is copied there, so that many small batches do not
    /// hold many large buffers.
    pub(crate) fn append(&mut self, mut buffer: DraftBuffer) {
        match self.full.back_mut().filter(|last| last.has_room(buffer.bytes.len())) {
            Some(last) => {
                last.bytes.extend_from_slice(&buffer.bytes);
                last.drafts.append(&mut buffer.drafts);
                self.recycle(buffer);
            }
            None => self.full.push_back(buffer),
        }
    }

    /// Empties a buffer and keeps it for reuse.
    pub(crate) fn recycle(&mut self, mut buffer: DraftBuffer) {
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Moves empty buffers to `other`, where they are filled next, and frees those that find no room there.
    pub(crate) fn give_spare_to(&mut self, other: &mut Self) {
        while other.spare.len() < MAX_SPARE {
            match self.spare.pop() {
                Some(buffer) => other.spare.push(buffer),
                None => return,
            }
        }
        self.spare.clear();
    }

    /// Moves all drafts behind those of `other`, without copying.
    pub(crate) fn move_to(&mut self, other: &mut Self) {
        other.full.append(&mut self.full);
    }

    /// Removes the oldest drafts; what remains of a buffer moves to another one.
    pub(crate) fn remove_first(&mut self, mut drafts: usize) {
        while drafts > 0 {
            let Some(buffer) = self.full.pop_front() else { return };
            if buffer.len() <= drafts {
                drafts -= buffer.len();
                self.recycle(buffer);
                continue;
            }
            // A `Vec` cannot drop its front without moving the rest, so the rest is copied to a spare buffer.
            let mut rest = self.spare.pop().unwrap_or_default();
            for (draft, payload) in buffer.iter().skip(drafts) {
                rest.push(payload, draft.severity, draft.scope.clone());
            }
            self.recycle(buffer);
            self.full.push_front(rest);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(buffers: &DraftBuffers) -> Vec<String> {
        buffers
            .iter()
            .flat_map(super::DraftBuffer::iter)
            .map(|(_, payload)| String::from_utf8(payload.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn drafts_come_out_in_the_order_they_went_in() {
        let mut buffers = DraftBuffers::default();
        for number in 0..10 {
            buffers.push(number.to_string().as_bytes(), Some(Severity::Routine), None);
        }
        let mut retained = DraftBuffers::default();
        while let Some(buffer) = buffers.pop() {
            retained.append(buffer);
        }
        buffers.push(b"10", None, None);
        retained.append(buffers.pop().unwrap());
        assert_eq!(texts(&retained).join(" "), "0 1 2 3 4 5 6 7 8 9 10");
        retained.remove_first(4);
        assert_eq!(texts(&retained).join(" "), "4 5 6 7 8 9 10");
        assert_eq!(retained.drafts(), 7);
        retained.remove_first(7);
        assert!(retained.is_empty());
    }

    #[test]
    fn what_fits_is_taken_and_at_least_one() {
        let mut buffers = DraftBuffers::default();
        for number in 0..10 {
            buffers.push(number.to_string().as_bytes(), Some(Severity::Routine), None);
        }
        assert_eq!(buffers.first_bytes(), Some(1));
        assert_eq!(texts(&buffers.take_fitting(0, 9)), ["0"]);
        assert_eq!(texts(&buffers.take_fitting(39, 9)), ["1", "2", "3"]);
        assert_eq!(texts(&buffers.take_fitting(40, 9)), ["4", "5", "6", "7"]);
        assert_eq!(texts(&buffers.take_fitting(u64::MAX, 9)), ["8", "9"]);
        assert!(buffers.is_empty() && buffers.first_bytes().is_none());
    }

    #[test]
    fn a_full_buffer_is_followed_by_another() {
        let mut buffers = DraftBuffers::default();
        let payload = vec![b'x'; 60_000];
        for _ in 0..10 {
            buffers.push(&payload, Some(Severity::Critical), None);
        }
        assert_eq!(buffers.full.len(), 3);
        assert_eq!(buffers.bytes(), 600_000);
    }
}
