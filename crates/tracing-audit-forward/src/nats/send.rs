//! Publishes records: each once, and each after the one before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_nats::HeaderMap;
use futures_util::future::join_all;
use tracing_audit::Digest;

use super::{
    failure::{Failure, unavailable},
    session::{Ack, Session},
    wire::{
        AFTER, BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE, CHAIN, EXPECTED, GAP, Last, MAX_BATCH, MESSAGE_ID,
        Prefix, message_id,
    },
};
use crate::{
    origin::Origin,
    sink::{Entry, Gap, Position, SinkError},
};

/// How many chains are queried at once.
const ASKED_AT_ONCE: usize = 64;

/// The subject of each chain.
pub(super) type Subjects = BTreeMap<Arc<str>, String>;

/// What is known of the chains in the stream.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// As reported by the stream, or acknowledged since. Chains whose state is in doubt are absent.
    known: HashMap<Arc<str>, Last>,
}

impl Work {
    pub(super) fn subjects<'a>(
        &self,
        prefix: &Prefix,
        origin: &Origin,
        chain_ids: impl Iterator<Item = &'a Arc<str>>,
    ) -> Subjects {
        let _: &Self = self;
        let ids: BTreeSet<&Arc<str>> = chain_ids.collect();
        ids.into_iter().map(|id| (Arc::clone(id), prefix.subject(origin, id))).collect()
    }

    /// Queries the last record of each chain.
    pub(super) async fn positions(
        &mut self,
        session: &Session,
        subjects: &Subjects,
    ) -> Result<Vec<Position>, SinkError> {
        self.known.clear();
        // A chain that is left out of the answer is reported when more of it is offered.
        self.ask(session, subjects.iter()).await?;
        let position = |id: &Arc<str>| {
            let (seq, hash) = self.known.get(id)?.record?;
            Some(Position { chain_id: Arc::clone(id), seq, hash })
        };
        Ok(subjects.keys().filter_map(position).collect())
    }

    /// Queries chains. Returns those after which somebody else published, with the reasons: one of them must
    /// not stop the others.
    async fn ask<'a>(
        &mut self,
        session: &Session,
        chains: impl Iterator<Item = (&'a Arc<str>, &'a String)>,
    ) -> Result<BTreeMap<Arc<str>, String>, SinkError> {
        let chains: Vec<_> = chains.collect();
        let mut blocked = BTreeMap::new();
        for chains in chains.chunks(ASKED_AT_ONCE) {
            let lasts = join_all(chains.iter().map(|(_, subject)| session.last(subject))).await;
            for ((id, _), last) in chains.iter().zip(lasts) {
                match last {
                    Ok(last) => drop(self.known.insert(Arc::clone(id), last)),
                    Err(SinkError::Chain { reason, .. }) => {
                        self.known.remove(*id);
                        blocked.insert(Arc::clone(id), reason);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(blocked)
    }

    /// Queries the chains of a batch. The error is that of the first chain in it that cannot be continued.
    async fn ask_for<'a>(
        &mut self,
        session: &Session,
        chains: impl Iterator<Item = (&'a Arc<str>, &'a String)>,
        batch: &[Entry],
    ) -> Result<(), SinkError> {
        match self.ask(session, chains).await?.pop_first() {
            None => Ok(()),
            Some((id, reason)) => {
                let index = batch.iter().position(|entry| entry.chain_id == id).unwrap_or_default();
                Err(SinkError::Chain { index, reason })
            }
        }
    }

    pub(super) async fn offer(
        &mut self,
        session: &Session,
        subjects: &Subjects,
        batch: &[Entry],
    ) -> Result<(), SinkError> {
        let unasked: Vec<_> = subjects.iter().filter(|(id, _)| !self.known.contains_key(*id)).collect();
        self.ask_for(session, unasked.iter().copied(), batch).await?;
        let new = self.not_stored(session, subjects, batch).await?;
        for (id, _) in unasked {
            if let Err(error) = self.follows(id, &new) {
                self.known.remove(id);
                return Err(error);
            }
        }
        // Within a batch, the server drops messages that are too long, and reports only that something is
        // missing.
        if let Some((_, long)) =
            new.iter().find(|(_, entry)| entry.record.as_json().len() as u64 > session.max_line)
        {
            let reason = format!(
                "record {} has more than {} bytes, the longest line that fits into a message",
                long.record.head(),
                session.max_line
            );
            return Err(SinkError::Refused { reason });
        }
        for part in new.chunks(MAX_BATCH) {
            let sent = if session.is_atomic {
                self.send_together(session, subjects, part).await
            } else {
                self.send_in_turn(session, subjects, part).await
            };
            let Err((failure, doubtful)) = sent else { continue };
            for id in &doubtful {
                self.known.remove(id);
            }
            let reason = match failure {
                Failure::Answer(answer) if answer.is_about_size() => {
                    return Err(SinkError::Refused {
                        reason: format!("cannot publish records: {}", answer.text()),
                    });
                }
                Failure::Answer(answer) if answer.is_in_doubt() => answer.text(),
                Failure::Nobody => {
                    return Err(unavailable(format!(
                        "cannot publish records: nothing takes the subject {}",
                        subjects.values().next().map_or("", String::as_str)
                    )));
                }
                other => return Err(other.into_sink("publish records")),
            };
            // Another sender was there, or this one before its connection broke.
            let doubtful_ones = subjects.iter().filter(|(id, _)| doubtful.contains(*id));
            self.ask_for(session, doubtful_ones, batch).await?;
            let left = self.not_stored(session, subjects, batch).await?;
            let is_left = part.iter().any(|(at, _)| left.iter().any(|(other, _)| other == at));
            if is_left {
                // The stream is asked what it has before the rest is offered.
                for id in &doubtful {
                    self.known.remove(id);
                }
                return Err(unavailable(format!(
                    "cannot publish records: {reason}; the stream is asked what it has"
                )));
            }
        }
        Ok(())
    }

    /// Returns the records of a batch that are not in the stream. The others are, with the same hash.
    async fn not_stored<'a>(
        &self,
        session: &Session,
        subjects: &Subjects,
        batch: &'a [Entry],
    ) -> Result<Vec<(usize, &'a Entry)>, SinkError> {
        let mut newest_stored: BTreeMap<&Arc<str>, (usize, &Entry)> = BTreeMap::new();
        let mut newest: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        let mut new = Vec::with_capacity(batch.len());
        for (index, entry) in batch.iter().enumerate() {
            let seq = entry.record.seq();
            if seq <= self.known.get(&entry.chain_id).map_or(0, Last::seq) {
                let kept = newest_stored.entry(&entry.chain_id).or_insert((index, entry));
                if seq > kept.1.record.seq() {
                    *kept = (index, entry);
                }
                continue;
            }
            let upto = newest.entry(&entry.chain_id).or_default();
            if seq > *upto {
                *upto = seq;
                new.push((index, entry));
            } else {
                // The same record twice in one batch.
                let is_it = |(_, other): &&(usize, &Entry)| {
                    other.chain_id == entry.chain_id && other.record.seq() == seq
                };
                match new.iter().find(is_it).map(|(_, other)| other.record.hash()) {
                    Some(hash) if hash == entry.record.hash() => {}
                    Some(stored) => return Err(SinkError::Conflict { index, stored }),
                    None => return Err(out_of_order(entry)),
                }
            }
        }
        // The hash of the newest one covers all before it.
        for (index, entry) in newest_stored.into_values() {
            let seq = entry.record.seq();
            let last = self.known.get(&entry.chain_id).cloned().unwrap_or_default();
            let subject = subjects.get(&entry.chain_id).map_or("", String::as_str);
            let stored = if last.seq() == seq {
                last.record.map(|(_, hash)| hash)
            } else {
                let found = find(session, subject, last.place, seq).await;
                found.map_err(|error| match error {
                    SinkError::Chain { reason, .. } => SinkError::Chain { index, reason },
                    other => other,
                })?
            };
            match stored {
                Some(stored) if stored == entry.record.hash() => {}
                Some(stored) => return Err(SinkError::Conflict { index, stored }),
                None => return Err(out_of_order(entry)),
            }
        }
        Ok(new)
    }

    /// Checks that nothing is missing between what the stream has of a chain and what is offered. The
    /// forwarder may assume that the stream has more, if it has not asked since the stream lost something.
    fn follows(&self, id: &Arc<str>, new: &[(usize, &Entry)]) -> Result<(), SinkError> {
        let Some((_, first)) = new.iter().find(|(_, entry)| entry.chain_id == *id) else { return Ok(()) };
        let last = self.known.get(id).cloned().unwrap_or_default();
        let upto = last.gap.map_or(0, |(_, through)| through).max(last.seq());
        if first.record.seq() <= upto + 1 {
            return Ok(());
        }
        Err(unavailable(format!(
            "the stream has chain {id} up to record {upto}, and record {} is offered: it is asked again what it has",
            first.record.seq()
        )))
    }

    /// Sends a batch atomically. On failure, returns why, and the chains whose state is now unknown.
    async fn send_together(
        &mut self,
        session: &Session,
        subjects: &Subjects,
        part: &[(usize, &Entry)],
    ) -> Result<(), (Failure, BTreeSet<Arc<str>>)> {
        let doubtful = || part.iter().map(|(_, entry)| Arc::clone(&entry.chain_id)).collect();
        let ack =
            self.publish_batch(session, subjects, part).await.map_err(|failure| (failure, doubtful()))?;
        let Some(before) = ack.seq.checked_sub(part.len() as u64).filter(|_| ack.count == part.len() as u64)
        else {
            let reason =
                format!("cannot publish records: {} of a batch of {} were stored", ack.count, part.len());
            return Err((unavailable(reason).into(), doubtful()));
        };
        for (place, (_, entry)) in (before + 1..).zip(part) {
            self.acknowledged(entry, place);
        }
        Ok(())
    }

    async fn publish_batch(
        &self,
        session: &Session,
        subjects: &Subjects,
        part: &[(usize, &Entry)],
    ) -> Result<Ack, Failure> {
        let id = session.batch_id();
        let mut begun: BTreeSet<&Arc<str>> = BTreeSet::new();
        let messages = (1_usize..).zip(part).map(|(number, (_, entry))| {
            let mut headers = HeaderMap::new();
            headers.insert(BATCH_ID, id.as_str());
            headers.insert(BATCH_SEQUENCE, number.to_string());
            let subject = subjects.get(&entry.chain_id).map_or("", String::as_str);
            headers.insert(MESSAGE_ID, message_id(entry, subject));
            // Only on the first message of each chain: an atomic batch keeps the others in order.
            if begun.insert(&entry.chain_id) {
                headers.insert(EXPECTED, self.place(&entry.chain_id).to_string());
            }
            let subject = subjects.get(&entry.chain_id).cloned().unwrap_or_default();
            (subject, headers, entry.record.as_json().as_bytes().to_vec())
        });
        let mut messages: Vec<_> = messages.collect();
        let Some((subject, mut headers, line)) = messages.pop() else { return Err(Failure::Nobody) };
        // Only the last message asks for an answer, which covers the whole batch.
        session.publish(messages).await?;
        headers.insert(BATCH_COMMIT, "1");
        session.acknowledged(subject, headers, line).await
    }

    /// Sends the messages of each chain one after another; the chains are sent in parallel.
    async fn send_in_turn(
        &mut self,
        session: &Session,
        subjects: &Subjects,
        part: &[(usize, &Entry)],
    ) -> Result<(), (Failure, BTreeSet<Arc<str>>)> {
        let mut chains: BTreeMap<&Arc<str>, Vec<&Entry>> = BTreeMap::new();
        for (_, entry) in part {
            chains.entry(&entry.chain_id).or_default().push(entry);
        }
        let sent = join_all(chains.iter().map(|(id, entries)| {
            let subject = subjects.get(*id).map_or("", String::as_str);
            publish_chain(session, subject, self.place(id), entries)
        }));
        let mut failed = None;
        let mut doubtful = BTreeSet::new();
        for ((id, entries), (places, outcome)) in chains.iter().zip(sent.await) {
            for (entry, place) in entries.iter().zip(places) {
                self.acknowledged(entry, place);
            }
            if let Err(failure) = outcome {
                doubtful.insert(Arc::clone(id));
                // A failure that somebody has to act on counts before one that will pass.
                let is_doubt = matches!(&failure, Failure::Answer(answer) if answer.is_in_doubt());
                if failed.is_none() || !is_doubt {
                    failed = Some(failure);
                }
            }
        }
        failed.map_or(Ok(()), |failure| Err((failure, doubtful)))
    }

    /// Publishes a gap, unless the stream has it already.
    pub(super) async fn gap(&mut self, session: &Session, subject: &str, gap: &Gap) -> Result<(), SinkError> {
        let last = match self.known.get(&gap.chain_id) {
            Some(last) => last.clone(),
            None => session.last(subject).await?,
        };
        let range = (gap.first_seq, gap.last_seq);
        if last.gap == Some(range) || last.seq() >= gap.last_seq {
            self.known.insert(Arc::clone(&gap.chain_id), last);
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, last.place.to_string());
        headers.insert(GAP, format!("{}-{}", range.0, range.1));
        headers.insert(CHAIN, format!("{:03}", gap.chain));
        if let Some((seq, hash)) = last.record {
            headers.insert(AFTER, format!("{seq}:{hash}"));
        }
        // Unknown until the answer has arrived, which may never happen.
        self.known.remove(&gap.chain_id);
        match session.acknowledged(subject.to_owned(), headers, Vec::new()).await {
            Ok(ack) => {
                let now = Last { place: ack.seq, gap: Some(range), ..last };
                self.known.insert(Arc::clone(&gap.chain_id), now);
                Ok(())
            }
            Err(failure) => Err(failure.into_sink("publish a gap")),
        }
    }

    fn place(&self, id: &Arc<str>) -> u64 {
        self.known.get(id).map_or(0, |last| last.place)
    }

    fn acknowledged(&mut self, entry: &Entry, place: u64) {
        let record = Some((entry.record.seq(), entry.record.hash()));
        self.known.insert(Arc::clone(&entry.chain_id), Last { place, record, gap: None });
    }
}

/// Publishes records of one chain, each once the previous one is stored. Returns their places, as far as it
/// came.
async fn publish_chain(
    session: &Session,
    subject: &str,
    mut place: u64,
    entries: &[&Entry],
) -> (Vec<u64>, Result<(), Failure>) {
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, message_id(entry, subject));
        headers.insert(EXPECTED, place.to_string());
        let line = entry.record.as_json().as_bytes().to_vec();
        match session.acknowledged(subject.to_owned(), headers, line).await {
            Ok(ack) if !ack.duplicate && ack.seq > place => {
                place = ack.seq;
                places.push(place);
            }
            Ok(_) => {
                let reason = "cannot publish records: the stream had one already, and is asked what it has";
                return (places, Err(unavailable(reason.to_owned()).into()));
            }
            Err(failure) => return (places, Err(failure)),
        }
    }
    (places, Ok(()))
}

/// Returns the hash of a record before the last one. Messages of a subject are in the order of their records,
/// so this is a binary search.
async fn find(session: &Session, subject: &str, last: u64, seq: u64) -> Result<Option<Digest>, SinkError> {
    let (mut low, mut high) = (1, last);
    while low <= high {
        let middle = low + (high - low) / 2;
        let Some(found) = session.next(subject, middle).await?.filter(|found| found.place <= high) else {
            high = middle - 1;
            continue;
        };
        match (found.record, found.gap) {
            (Some((at, hash)), None) if at == seq => return Ok(Some(hash)),
            (Some((at, _)), None) if at < seq => low = found.place + 1,
            (_, Some((_, through))) if through < seq => low = found.place + 1,
            (None, None) => {
                let reason = format!("message {} of {subject} is neither a record nor a gap", found.place);
                return Err(SinkError::Chain { index: 0, reason });
            }
            _ => high = middle - 1,
        }
    }
    Ok(None)
}

/// Returns the error for a record before the last one of its chain: nothing can be inserted there.
fn out_of_order(entry: &Entry) -> SinkError {
    let reason = format!(
        "the stream has later records of the chain, and not {}: a stream takes records in their order only",
        entry.record.head()
    );
    SinkError::Refused { reason }
}
