//! Buffers that carry drafts from the queue to the disk and come back empty.

use std::{collections::VecDeque, sync::Arc};

use super::Scope;
use crate::severity::Severity;

/// Room for the payloads of one chunk, in bytes. A few of the longest lines fit.
const CHUNK_BYTES: usize = 256 * 1024;

#[cfg(test)]
thread_local! {
    /// Buffers that this thread made, for tests that they are used again.
    pub(crate) static MADE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Payloads one behind the other, and what is known of each.
#[derive(Debug, Default)]
pub(crate) struct DraftBuffer {
    bytes: Vec<u8>,
    drafts: Vec<QueuedDraft>,
}

/// One draft of a chunk.
#[derive(Debug, Clone)]
pub(crate) struct QueuedDraft {
    length: usize,
    /// `None` for what is no event: a gap.
    pub(crate) severity: Option<Severity>,
    /// Who waits for a receipt.
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

    /// The drafts in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&QueuedDraft, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.drafts.iter().map(move |entry| {
            // Each payload was pushed with its entry. A bug here must stop the writer: it would seal
            // something else than what was emitted.
            let (payload, tail) = rest.split_at(entry.length);
            rest = tail;
            (entry, payload)
        })
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() + length <= CHUNK_BYTES
    }

    fn push(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(CHUNK_BYTES);
            #[cfg(test)]
            MADE.set(MADE.get() + 1);
        }
        self.bytes.extend_from_slice(payload);
        self.drafts.push(QueuedDraft { length: payload.len(), severity, scope });
    }

    /// Keeps the oldest `count` drafts and returns the others.
    fn split_off(&mut self, count: usize) -> Self {
        let drafts = self.drafts.split_off(count.min(self.drafts.len()));
        let kept: usize = self.drafts.iter().map(|entry| entry.length).sum();
        let mut rest = Self { bytes: Vec::with_capacity(CHUNK_BYTES), drafts };
        rest.bytes.extend(self.bytes.drain(kept.min(self.bytes.len())..));
        rest
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.drafts.clear();
    }
}

/// DraftBuffers in order, and empty ones to use again.
#[derive(Debug, Default)]
pub(crate) struct DraftBuffers {
    full: VecDeque<DraftBuffer>,
    spare: Vec<DraftBuffer>,
}

/// Empty chunks kept for reuse at most: 1 MiB.
const MAX_SPARE: usize = 4;

impl DraftBuffers {
    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &DraftBuffer> {
        self.full.iter()
    }

    pub(crate) fn drafts(&self) -> u64 {
        self.full.iter().map(|chunk| chunk.len() as u64).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.full.iter().map(DraftBuffer::bytes).sum()
    }

    pub(crate) fn push(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        if let Some(chunk) = self.full.back_mut().filter(|chunk| chunk.has_room(payload.len())) {
            chunk.push(payload, severity, scope);
        } else {
            let mut chunk = self.spare.pop().unwrap_or_default();
            chunk.push(payload, severity, scope);
            self.full.push_back(chunk);
        }
    }

    /// How many bytes the oldest draft has.
    pub(crate) fn first_bytes(&self) -> Option<u64> {
        self.full.front()?.drafts.first().map(|entry| entry.length as u64)
    }

    /// Takes the oldest drafts out: as many as fit `room`, where each needs `envelope` bytes more
    /// than its payload, but at least one.
    pub(crate) fn take_fitting(&mut self, room: u64, envelope: u64) -> Self {
        let needs = |bytes: u64, drafts: u64| bytes.saturating_add(drafts.saturating_mul(envelope));
        if needs(self.bytes(), self.drafts()) <= room {
            return Self { full: std::mem::take(&mut self.full), spare: Vec::new() };
        }
        let mut taken = Self::default();
        let mut left = room;
        while let Some(chunk) = self.full.pop_front() {
            let needed = needs(chunk.bytes(), chunk.len() as u64);
            if needed <= left {
                left -= needed;
                taken.full.push_back(chunk);
                continue;
            }
            let lengths = chunk.drafts.iter().map(|entry| entry.length as u64 + envelope);
            let count = lengths
                .scan(0_u64, |sum, needed| {
                    *sum += needed;
                    Some(*sum)
                })
                .take_while(|sum| *sum <= left)
                .count();
            let mut fitting = chunk;
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

    /// Takes the oldest chunk out.
    pub(crate) fn pop(&mut self) -> Option<DraftBuffer> {
        self.full.pop_front()
    }

    /// Adds a chunk behind the others; a small one is copied into the last, so that many small
    /// batches do not hold many large buffers.
    pub(crate) fn append(&mut self, mut chunk: DraftBuffer) {
        match self.full.back_mut().filter(|last| last.has_room(chunk.bytes.len())) {
            Some(last) => {
                last.bytes.extend_from_slice(&chunk.bytes);
                last.drafts.append(&mut chunk.drafts);
                self.recycle(chunk);
            }
            None => self.full.push_back(chunk),
        }
    }

    /// Gives an emptied chunk back for reuse.
    pub(crate) fn recycle(&mut self, mut chunk: DraftBuffer) {
        if self.spare.len() < MAX_SPARE {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    /// Hands spare chunks over to where they are filled.
    pub(crate) fn give_spare_to(&mut self, other: &mut Self) {
        while other.spare.len() < MAX_SPARE {
            match self.spare.pop() {
                Some(chunk) => other.spare.push(chunk),
                None => return,
            }
        }
        self.spare.clear();
    }

    /// Moves everything that is full over, behind what the other has, without copying.
    pub(crate) fn move_to(&mut self, other: &mut Self) {
        other.full.append(&mut self.full);
    }

    /// Empties the oldest `drafts` drafts; what remains of a chunk moves to a new one.
    pub(crate) fn remove_first(&mut self, mut drafts: usize) {
        while drafts > 0 {
            let Some(chunk) = self.full.pop_front() else { return };
            if chunk.len() <= drafts {
                drafts -= chunk.len();
                self.recycle(chunk);
                continue;
            }
            let mut rest = self.spare.pop().unwrap_or_default();
            for (entry, payload) in chunk.iter().skip(drafts) {
                rest.push(payload, entry.severity, entry.scope.clone());
            }
            self.recycle(chunk);
            self.full.push_front(rest);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(chunks: &DraftBuffers) -> Vec<String> {
        chunks
            .iter()
            .flat_map(super::DraftBuffer::iter)
            .map(|(_, payload)| String::from_utf8(payload.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn drafts_come_out_in_the_order_they_went_in() {
        let mut chunks = DraftBuffers::default();
        for number in 0..10 {
            chunks.push(number.to_string().as_bytes(), Some(Severity::Routine), None);
        }
        let mut retained = DraftBuffers::default();
        while let Some(chunk) = chunks.pop() {
            retained.append(chunk);
        }
        chunks.push(b"10", None, None);
        retained.append(chunks.pop().unwrap());
        assert_eq!(texts(&retained).join(" "), "0 1 2 3 4 5 6 7 8 9 10");
        retained.remove_first(4);
        assert_eq!(texts(&retained).join(" "), "4 5 6 7 8 9 10");
        assert_eq!(retained.drafts(), 7);
        retained.remove_first(7);
        assert!(retained.is_empty());
    }

    #[test]
    fn what_fits_is_taken_and_at_least_one() {
        let mut chunks = DraftBuffers::default();
        for number in 0..10 {
            chunks.push(number.to_string().as_bytes(), Some(Severity::Routine), None);
        }
        assert_eq!(chunks.first_bytes(), Some(1));
        assert_eq!(texts(&chunks.take_fitting(0, 9)), ["0"]);
        assert_eq!(texts(&chunks.take_fitting(39, 9)), ["1", "2", "3"]);
        assert_eq!(texts(&chunks.take_fitting(40, 9)), ["4", "5", "6", "7"]);
        assert_eq!(texts(&chunks.take_fitting(u64::MAX, 9)), ["8", "9"]);
        assert!(chunks.is_empty() && chunks.first_bytes().is_none());
    }

    #[test]
    fn a_full_chunk_is_followed_by_another() {
        let mut chunks = DraftBuffers::default();
        let payload = vec![b'x'; 60_000];
        for _ in 0..10 {
            chunks.push(&payload, Some(Severity::Critical), None);
        }
        assert_eq!(chunks.full.len(), 3);
        assert_eq!(chunks.bytes(), 600_000);
    }
}
