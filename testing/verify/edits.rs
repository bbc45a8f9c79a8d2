//! Changes that somebody could make to the files of a log, one at a time, drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    log::{Log, name},
    model::{Effect, Honest, Row, Shape, Written},
};
use crate::{
    chain::Digest,
    clock::Timestamp,
    format::{CloseInfo, Payload, PruneInfo, RecordKind, Witnesses, seal},
    storage::sim::Prng,
};

/// A log after a change, and the meaning of the change.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) what: String,
    pub(super) log: Log,
    pub(super) effects: Vec<Effect>,
}

/// Draws random parts of a log.
pub(super) struct Editor<'a> {
    pub(super) honest: &'a Honest,
    /// Another log, to splice with.
    pub(super) other: &'a Honest,
    pub(super) random: &'a mut Prng,
}

type Change = fn(&mut Editor<'_>, u16) -> Option<Edited>;

/// Every kind of change, by name.
pub(super) const CHANGES: [(&str, Change); 23] = [
    ("delete a line", |editor, chain| editor.delete(chain)),
    ("double a line", |editor, chain| editor.double(chain)),
    ("swap two lines", |editor, chain| editor.swap(chain)),
    ("move a line", |editor, chain| editor.shift(chain)),
    ("change a byte", |editor, chain| editor.change_byte(chain)),
    ("change a line and its hash", |editor, chain| editor.rehash(chain)),
    ("insert garbage", |editor, chain| editor.insert_garbage(chain)),
    ("append garbage", |editor, chain| editor.append_garbage(chain)),
    ("cut behind a line", |editor, chain| editor.cut(chain)),
    ("cut inside a line", |editor, chain| editor.cut_inside(chain)),
    ("empty a file", |editor, chain| editor.empty(chain)),
    ("append lines", |editor, chain| editor.append(chain)),
    ("append a line to a file that is finished", |editor, chain| editor.append_to_finished(chain)),
    ("remove a file", |editor, chain| editor.remove(chain)),
    ("rename a file", |editor, chain| editor.rename(chain)),
    ("double a file", |editor, chain| editor.double_file(chain)),
    ("swap two files", |editor, chain| editor.swap_files(chain)),
    ("put a file in the place of another", |editor, chain| editor.replace(chain)),
    ("put a file of another log in the place of one", |editor, chain| editor.splice(chain)),
    ("remove a chain", |editor, chain| editor.remove_chain(chain)),
    ("put an older copy back", |editor, chain| editor.older_copy(chain)),
    ("forge a prune", |editor, chain| editor.forge_prune(chain)),
    ("rewrite with new hashes", |editor, chain| editor.rewrite(chain)),
];

fn seqs<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeSet<u64> {
    rows.into_iter().map(|row| row.seq).collect()
}

/// Returns a line with different hashes, of the same length.
fn resealed(line: &[u8], previous: &str) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    let members = text.split_once(",\"_prev_hash\":").unwrap().0;
    let body = format!("{members},\"_prev_hash\":\"{previous}\"}}");
    let hash = Digest::of_body(body.as_bytes());
    format!("{members},\"_prev_hash\":\"{previous}\",\"_hash\":\"{hash}\"}}\n").into_bytes()
}

fn hash_of(line: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(line).unwrap();
    json["_hash"].as_str().unwrap().to_owned()
}

/// Returns a line with a different time of the same length.
fn at_another_time(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    let at = memchr::memmem::find(&line, b"\"ts\":\"").unwrap() + 6 + 28;
    line[at] = if line[at] == b'3' { b'4' } else { b'3' };
    line
}

impl Editor<'_> {
    fn chain(&self, chain: u16) -> &Written {
        &self.honest.chains[&chain]
    }

    fn row(&mut self, chain: u16) -> Row {
        let rows = &self.honest.chains[&chain].rows;
        rows[self.random.below(rows.len())].clone()
    }

    fn file(&mut self, chain: u16) -> u32 {
        let files = self.chain(chain).live_files();
        files[self.random.below(files.len())]
    }

    fn is_last(&self, chain: u16, row: &Row) -> bool {
        self.chain(chain).last().seq == row.seq
    }

    /// Returns the records of a file whose place depends on its first line, if the given record is that line.
    fn under(&self, chain: u16, row: &Row) -> BTreeSet<u64> {
        let written = self.chain(chain);
        if row.line == 0 && written.voids(row.segment) {
            return seqs(written.rows_of(row.segment));
        }
        BTreeSet::new()
    }

    fn edit(&self, chain: u16, segment: u32, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Log {
        let mut log = self.honest.log.clone();
        log.edit(chain, segment, change);
        log
    }

    fn visible(chain: u16, first: u64, touched: BTreeSet<u64>, is_exact: bool) -> Effect {
        let shape = if is_exact { Shape::Visible } else { Shape::AtLeast };
        Effect { chain, first, touched, shape }
    }

    #[expect(clippy::unnecessary_wraps, reason = "ends every change the same way")]
    fn one(what: String, log: Log, effect: Effect) -> Option<Edited> {
        Some(Edited { what, log, effects: vec![effect] })
    }

    fn delete(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let log = self.edit(chain, row.segment, |lines| drop(lines.remove(row.line)));
        let is_cut = self.is_last(chain, &row) && !self.chain(chain).has_torn_end;
        let mut touched = self.under(chain, &row);
        let is_exact = touched.is_empty();
        touched.insert(row.seq);
        let mut effect = Self::visible(chain, row.seq, touched, is_exact);
        if is_cut {
            let is_alone = self.chain(chain).rows_of(row.segment).count() == 1;
            let shape = if is_alone { Shape::Emptied } else { Shape::Cut };
            effect.shape = if is_exact { shape } else { Shape::AtLeast };
        }
        Self::one(format!("record {}", row.seq), log, effect)
    }

    fn double(&mut self, chain: u16) -> Option<Edited> {
        let (row, before) = (self.row(chain), self.row(chain));
        let log = self.edit(chain, before.segment, |lines| lines.insert(before.line, row.bytes.clone()));
        // If it is doubled in front of itself, the first of the two is the record.
        let first = before.seq + u64::from(before.seq == row.seq);
        let touched = self.under(chain, &before);
        // The first line of a file may look like one in its new place too.
        let is_exact = touched.is_empty() && row.kind != "segment";
        let mut effect = Self::visible(chain, first, touched, is_exact);
        if before.seq == row.seq && self.ends_a_finished_file(chain, &row) {
            effect.shape = Shape::Void;
        }
        Self::one(format!("record {} before record {}", row.seq, before.seq), log, effect)
    }

    /// Returns whether the bytes behind a record in its file do not count.
    fn ends_a_finished_file(&self, chain: u16, row: &Row) -> bool {
        let written = self.chain(chain);
        let last = written.rows_of(row.segment).last();
        row.segment != written.last_file() && last.is_some_and(|last| last.seq == row.seq)
    }

    fn swap(&mut self, chain: u16) -> Option<Edited> {
        let (one, two) = (self.row(chain), self.row(chain));
        if one.seq >= two.seq {
            return None;
        }
        let mut log = self.edit(chain, one.segment, |lines| lines[one.line].clone_from(&two.bytes));
        log.edit(chain, two.segment, |lines| lines[two.line].clone_from(&one.bytes));
        let mut touched = self.under(chain, &one);
        touched.extend(self.under(chain, &two));
        let effect = Self::visible(chain, one.seq, touched, false);
        Self::one(format!("records {} and {}", one.seq, two.seq), log, effect)
    }

    fn shift(&mut self, chain: u16) -> Option<Edited> {
        let (row, before) = (self.row(chain), self.row(chain));
        if before.seq == row.seq || before.seq == row.seq + 1 {
            return None;
        }
        let mut log = self.honest.log.clone();
        let take = |log: &mut Log| log.edit(chain, row.segment, |lines| drop(lines.remove(row.line)));
        let put = |log: &mut Log| {
            log.edit(chain, before.segment, |lines| lines.insert(before.line, row.bytes.clone()));
        };
        if row.seq > before.seq {
            take(&mut log);
            put(&mut log);
        } else {
            put(&mut log);
            take(&mut log);
        }
        let mut touched = self.under(chain, &row);
        touched.extend(self.under(chain, &before));
        let effect = Self::visible(chain, row.seq.min(before.seq), touched, false);
        Self::one(format!("record {} before record {}", row.seq, before.seq), log, effect)
    }

    fn change_byte(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let at = self.random.below(row.bytes.len());
        let to = u8::try_from(self.random.below(256)).unwrap();
        if row.bytes[at] == to {
            return None;
        }
        let log = self.edit(chain, row.segment, |lines| lines[row.line][at] = to);
        let mut touched = self.under(chain, &row);
        let is_exact = touched.is_empty();
        touched.insert(row.seq);
        if at + 1 == row.bytes.len() {
            touched.insert(row.seq + 1);
        }
        let effect = Self::visible(chain, row.seq, touched, is_exact);
        Self::one(format!("byte {at} of record {} to {to}", row.seq), log, effect)
    }

    fn rehash(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let previous: serde_json::Value = serde_json::from_slice(&row.bytes).unwrap();
        let forged = resealed(&at_another_time(&row.bytes), previous["_prev_hash"].as_str().unwrap());
        let log = self.edit(chain, row.segment, |lines| lines[row.line] = forged);
        let mut effect = Self::visible(chain, row.seq, BTreeSet::new(), true);
        if self.is_last(chain, &row) {
            effect.shape = Shape::Rewritten;
        }
        Self::one(format!("record {}", row.seq), log, effect)
    }

    fn garbage(&mut self) -> Vec<u8> {
        match self.random.below(4) {
            0 => b"no record\n".to_vec(),
            1 => b"{\"seq\":1}\n".to_vec(),
            2 => [vec![b'x'; 70_000], vec![b'\n']].concat(),
            _ => {
                let mut bytes = vec![0; 1 + self.random.below(300)];
                self.random.fill(&mut bytes);
                bytes.push(b'\n');
                bytes
            }
        }
    }

    fn insert_garbage(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let mut garbage = self.garbage();
        let mut touched = self.under(chain, &row);
        let is_exact = touched.is_empty();
        if self.random.below(3) == 0 {
            // Without a line feed, it spoils the next line too.
            garbage.pop();
            touched.insert(row.seq);
        }
        let bytes = garbage.len();
        let log = self.edit(chain, row.segment, |lines| lines.insert(row.line, garbage));
        let effect = Self::visible(chain, row.seq, touched, is_exact);
        Self::one(format!("{bytes} bytes before record {}", row.seq), log, effect)
    }

    fn append_garbage(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let garbage = self.garbage();
        let mut log = self.honest.log.clone();
        log.file(chain, segment).extend_from_slice(&garbage[..=self.random.below(garbage.len())]);
        let written = self.chain(chain);
        let mut effect = Self::visible(chain, written.last().seq + 1, BTreeSet::new(), true);
        if segment != written.last_file() {
            effect.shape = Shape::Void;
        }
        Self::one(format!("to file {segment}"), log, effect)
    }

    /// Keeps the records up to this one, and nothing behind it.
    fn cut_behind(&self, log: &mut Log, chain: u16, row: &Row) {
        log.edit(chain, row.segment, |lines| lines.truncate(row.line + 1));
        for segment in self.chain(chain).files.keys().filter(|segment| **segment > row.segment) {
            log.files.remove(&name(chain, *segment));
        }
    }

    fn cut(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let mut log = self.honest.log.clone();
        self.cut_behind(&mut log, chain, &row);
        let effect = Effect { shape: Shape::Cut, ..Self::visible(chain, row.seq + 1, BTreeSet::new(), true) };
        Self::one(format!("behind record {}", row.seq), log, effect)
    }

    fn cut_inside(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let left = 1 + self.random.below(row.bytes.len() - 1);
        let mut touched = self.under(chain, &row);
        let is_exact = touched.is_empty();
        touched.extend(seqs(self.chain(chain).rows_of(row.segment).filter(|other| other.seq >= row.seq)));
        let log = self.edit(chain, row.segment, |lines| {
            lines.truncate(row.line + 1);
            lines[row.line].truncate(left);
        });
        let effect = Self::visible(chain, row.seq, touched, is_exact);
        Self::one(format!("{left} bytes into record {}", row.seq), log, effect)
    }

    fn empty(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let log = self.edit(chain, segment, Vec::clear);
        let mut edited = self.without(chain, segment, log)?;
        for effect in edited.effects.iter_mut().filter(|effect| effect.shape == Shape::Cut) {
            effect.shape = Shape::Emptied;
        }
        Some(edited)
    }

    fn remove(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let mut log = self.honest.log.clone();
        log.files.remove(&name(chain, segment));
        (!log.files.is_empty()).then_some(())?;
        self.without(chain, segment, log)
    }

    /// Returns a log in which nothing is left of a file.
    fn without(&self, chain: u16, segment: u32, log: Log) -> Option<Edited> {
        let written = self.chain(chain);
        let files = written.live_files();
        if files.len() == 1 {
            return None;
        }
        let first = written.rows_of(segment).next()?.seq;
        let is_exact = !written.voids(segment);
        let mut effect = Self::visible(chain, first, seqs(written.rows_of(segment)), is_exact);
        if segment == written.last_file() && is_exact {
            effect.shape = Shape::Cut;
        }
        Self::one(format!("file {segment}"), log, effect)
    }

    /// Returns the lines that a writer would append behind a record.
    fn continued(from: &Row, events: u64, close: bool) -> Vec<u8> {
        let mut lines = Vec::new();
        let at = Timestamp::from_unix(1_800_000_000, 0);
        let mut hash = Digest::from_hex(from.hash.as_bytes()).unwrap();
        for number in 1..=events {
            let mut payload = Vec::new();
            Payload::begin(&mut payload, at, RecordKind::Event).text("action", "never.happened");
            hash = seal(&mut lines, from.seq + number, &payload, Some(from.seq + number - 1), &hash);
        }
        if close {
            let payload = CloseInfo { events: 1, chains: &Witnesses::new() }.payload(at);
            seal(&mut lines, from.seq + events + 1, &payload, Some(from.seq + events), &hash);
        }
        lines
    }

    fn append(&mut self, chain: u16) -> Option<Edited> {
        let written = self.chain(chain);
        if written.has_torn_end {
            return None;
        }
        let (last, first) = (written.last().clone(), written.last().seq + 1);
        let (events, closed) = (self.random.below(3) as u64, self.random.below(2) == 0);
        if events == 0 && !closed {
            return None;
        }
        let mut log = self.honest.log.clone();
        log.file(chain, last.segment).extend(Self::continued(&last, events, closed));
        let shape = Shape::Appended { closed };
        let effect = Effect { shape, ..Self::visible(chain, first, BTreeSet::new(), true) };
        Self::one(format!("{events} events, close: {closed}"), log, effect)
    }

    fn append_to_finished(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let written = self.chain(chain);
        if segment == written.last_file() {
            return None;
        }
        let last = written.rows_of(segment).last()?;
        let mut log = self.honest.log.clone();
        log.file(chain, segment).extend(Self::continued(last, 1, false));
        let first = written.last().seq + 1;
        let effect = Effect { shape: Shape::Void, ..Self::visible(chain, first, BTreeSet::new(), true) };
        Self::one(format!("to file {segment}"), log, effect)
    }

    fn rename(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let to = 1 + u32::try_from(self.random.below(9)).unwrap();
        let mut log = self.honest.log.clone();
        if log.files.contains_key(&name(chain, to)) {
            return None;
        }
        let bytes = log.files.remove(&name(chain, segment)).unwrap();
        log.files.insert(name(chain, to), bytes);
        let written = self.chain(chain);
        let first = written.rows_of(segment).next()?;
        // In the file it was renamed to, all of its records may be out of place.
        let next_to =
            (segment.min(to) + 1..segment.max(to)).any(|number| written.files.contains_key(&number));
        let touched = if next_to || written.voids(segment) {
            seqs(written.rows_of(segment))
        } else {
            BTreeSet::from([first.seq])
        };
        let effect = Self::visible(chain, first.seq, touched, false);
        Self::one(format!("file {segment} to {to}"), log, effect)
    }

    fn double_file(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let written = self.chain(chain);
        let to = written.files.keys().next_back().unwrap() + 1;
        let mut log = self.honest.log.clone();
        let bytes = log.files[&name(chain, segment)].clone();
        log.files.insert(name(chain, to), bytes);
        let effect = Self::visible(chain, written.last().seq + 1, BTreeSet::new(), false);
        Self::one(format!("file {segment} as {to}"), log, effect)
    }

    fn swap_files(&mut self, chain: u16) -> Option<Edited> {
        let (one, two) = (self.file(chain), self.file(chain));
        if one >= two {
            return None;
        }
        let mut log = self.honest.log.clone();
        let bytes = [log.files[&name(chain, one)].clone(), log.files[&name(chain, two)].clone()];
        let [first, second] = bytes;
        log.files.insert(name(chain, one), second);
        log.files.insert(name(chain, two), first);
        let written = self.chain(chain);
        let mut touched = seqs(written.rows_of(one));
        touched.extend(seqs(written.rows_of(two)));
        let first = written.rows_of(one).next()?.seq;
        Self::one(format!("files {one} and {two}"), log, Self::visible(chain, first, touched, false))
    }

    fn replace(&mut self, chain: u16) -> Option<Edited> {
        let (one, by) = (self.file(chain), self.file(chain));
        if one == by {
            return None;
        }
        let bytes = self.honest.log.files[&name(chain, by)].clone();
        self.put_for(chain, one, bytes, &format!("file {by} as {one}"))
    }

    fn splice(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let number = *self.other.chains.keys().nth(self.random.below(self.other.chains.len()))?;
        let other = &self.other.chains[&number];
        let from = other.live_files()[self.random.below(other.live_files().len())];
        let bytes = other.files[&from].bytes.clone();
        // Logs made by hand have the same beginning: then nothing that counts differs.
        let own = &self.chain(chain).files[&segment];
        if bytes.starts_with(&own.bytes[..own.counted]) {
            return None;
        }
        let what = format!("file {from} of chain {number} of {:?} as {segment}", self.other.name);
        self.put_for(chain, segment, bytes, &what)
    }

    fn put_for(&self, chain: u16, segment: u32, bytes: Vec<u8>, what: &str) -> Option<Edited> {
        let mut log = self.honest.log.clone();
        log.files.insert(name(chain, segment), bytes);
        let written = self.chain(chain);
        let first = written.rows_of(segment).next()?.seq;
        let effect = Self::visible(chain, first, seqs(written.rows_of(segment)), false);
        Self::one(what.to_owned(), log, effect)
    }

    fn remove_chain(&mut self, chain: u16) -> Option<Edited> {
        if self.honest.chains.len() < 2 {
            return None;
        }
        let mut log = self.honest.log.clone();
        for segment in self.chain(chain).files.keys() {
            log.files.remove(&name(chain, *segment));
        }
        let effect = Effect { shape: Shape::Gone, ..Self::visible(chain, 1, BTreeSet::new(), true) };
        Self::one(String::new(), log, effect)
    }

    /// Replaces all chains with their state at an earlier time, which is consistent in itself.
    fn older_copy(&mut self, chain: u16) -> Option<Edited> {
        let at = self.row(chain).ts;
        let mut log = self.honest.log.clone();
        let mut effects = Vec::new();
        for (number, written) in &self.honest.chains {
            let row = written.rows.iter().rfind(|row| row.ts <= at)?;
            self.cut_behind(&mut log, *number, row);
            effects.push(Effect {
                shape: Shape::Cut,
                ..Self::visible(*number, row.seq + 1, BTreeSet::new(), true)
            });
        }
        Some(Edited { what: format!("of {at}"), log, effects })
    }

    fn forge_prune(&mut self, chain: u16) -> Option<Edited> {
        let segment = self.file(chain);
        let written = self.chain(chain);
        if segment == written.last_file() || written.has_torn_end {
            return None;
        }
        let through = written.rows_of(segment).last()?;
        let last = written.last();
        let at = Timestamp::from_unix(1_800_000_000, 0);
        let hash = Digest::from_hex(through.hash.as_bytes()).unwrap();
        let prune = PruneInfo { through: through.seq, hash, files: (1, segment), reason: "max_age".into() };
        let mut line = Vec::new();
        let previous = Digest::from_hex(last.hash.as_bytes()).unwrap();
        let hash = seal(&mut line, last.seq + 1, &prune.payload(at), Some(last.seq), &previous);
        let mut behind = last.clone();
        (behind.seq, behind.hash) = (last.seq + 1, hash.to_string());
        line.extend(Self::continued(&behind, 0, true));
        let mut log = self.honest.log.clone();
        log.file(chain, last.segment).extend(line);
        for number in written.files.keys().filter(|number| **number <= segment) {
            log.files.remove(&name(chain, *number));
        }
        let shape = Shape::Appended { closed: true };
        let effect = Effect { shape, ..Self::visible(chain, last.seq + 1, BTreeSet::new(), true) };
        Self::one(format!("through record {}", through.seq), log, effect)
    }

    /// Rewrites everything from a record on, as somebody with the source code of the writer could.
    fn rewrite(&mut self, chain: u16) -> Option<Edited> {
        let row = self.row(chain);
        let written = self.chain(chain);
        let mut previous = match written.rows.iter().find(|other| other.seq + 1 == row.seq) {
            Some(before) => before.hash.clone(),
            None if row.seq == 1 => "0".repeat(64),
            None => return None,
        };
        let mut files: BTreeMap<u32, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for other in written.rows.iter().filter(|other| other.seq >= row.seq) {
            let bytes =
                if other.seq == row.seq { at_another_time(&other.bytes) } else { other.bytes.clone() };
            let line = resealed(&bytes, &previous);
            previous = hash_of(&line);
            files.entry(other.segment).or_default().push((other.line, line));
        }
        let mut log = self.honest.log.clone();
        for (segment, lines) in files {
            log.edit(chain, segment, |all| lines.into_iter().for_each(|(at, line)| all[at] = line));
        }
        let effect =
            Effect { shape: Shape::Rewritten, ..Self::visible(chain, row.seq, BTreeSet::new(), true) };
        Self::one(format!("from record {} on", row.seq), log, effect)
    }
}
