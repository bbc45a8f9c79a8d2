//! Recomputes every link of a log.
//!
//! Chunks of files are checked in parallel (`pool`), joined in order, and followed line by line where something does
//! not fit. A chain is read to its very end (`track`) before it is judged by how far it was durable (`judge`).
//! `chain_reader` defines what a line is and what may follow it.

mod finding;
mod index;
mod judge;
mod notes;
mod pool;
mod progress;
mod report;
#[cfg(test)]
#[path = "../../testing/verify/mod.rs"]
pub(crate) mod tests;
mod track;
mod witness;
mod writer_probe;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    num::NonZero,
    path::{Path, PathBuf},
};

use crate::{
    chain::Head,
    chain_reader::Directory,
    error::Error,
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Disk, Storage},
};

pub use finding::{Finding, FindingKind, NotChecked, NotCheckedKind, Note, NoteKind};
pub use report::{ChainReport, ChainState, Report};

use judge::{Evidence, Holder, Judge};
use progress::{Callback, Progress};
use report::Findings;
use track::{Context, Track};
use witness::Claims;
use writer_probe::Probe;

/// How many foreign files are listed in the notes.
const MAX_FOREIGN: usize = 100;

/// Verifies the log in a directory: every hash, every link, every chain.
///
/// Needs no key and no writer, changes nothing, and works on a log that is being written and on a
/// copy of one. What it cannot detect without further input is listed in [`Report::not_checked`]. A
/// head kept elsewhere helps most, see [`Verifier::expect_head`].
///
/// # Errors
///
/// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read. Damage to the
/// log is not an error: the [`Report`] lists it as findings.
#[doc(alias = "hash chain")]
#[doc(alias = "tamper-evident")]
#[doc(alias = "integrity")]
pub fn verify(dir: impl AsRef<Path>) -> Result<Report, Error> {
    Verifier::new(dir).run()
}

/// A verification with settings, and with evidence from outside the log.
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// use tracing_audit::{Head, Verifier};
/// let kept: Head = std::env::var("LAST_AUDIT_HEAD").unwrap_or_default().parse()?;
/// let report = Verifier::new("audit-log").expect_head(kept).run()?;
/// report.ensure_intact()
/// # }
/// ```
#[must_use = "nothing is verified before `run`"]
pub struct Verifier {
    dir: PathBuf,
    kept: Vec<Head>,
    trusted: Vec<Head>,
    threads: usize,
    progress: Option<Callback>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("dir", &self.dir)
            .field("kept", &self.kept)
            .field("trusted", &self.trusted)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Creates a verification of the log in this directory.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            kept: Vec::new(),
            trusted: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            progress: None,
        }
    }

    /// Requires that the log still has this record. Call it once for each head that was kept.
    ///
    /// With a head stored where the log's owner cannot write, a log that was truncated, rewritten or replaced by an
    /// older copy is detected, for all records up to this one. Default: none.
    pub fn expect_head(mut self, head: impl Into<Head>) -> Self {
        self.kept.push(head.into());
        self
    }

    /// Trusts everything up to this record and begins there: segments that end before it are not
    /// read. The rest must link to it. Useful for a log that is verified often, with the head that
    /// the last verification reported. Default: every chain from its beginning.
    pub fn start_after(mut self, head: impl Into<Head>) -> Self {
        let head = head.into();
        self.trusted.retain(|known| known.chain != head.chain);
        self.trusted.push(head);
        self
    }

    /// Sets how many threads compute hashes, at least 1. Default: the available parallelism of the machine.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets a callback that is called from time to time, on the calling thread, with the number of
    /// bytes checked so far and the total. The total grows when the log does. Default: no calls.
    pub fn progress(mut self, callback: impl Fn(u64, u64) + Send + 'static) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Runs the verification.
    ///
    /// # Errors
    ///
    /// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read.
    pub fn run(self) -> Result<Report, Error> {
        let disk = match Disk::open_existing(&self.dir) {
            Ok(disk) => disk,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoLog { path: self.dir });
            }
            Err(error) => return Err(Error::io("open", &self.dir)(error)),
        };
        self.run_on(&disk)
    }

    /// Verifies a log in any storage.
    pub(crate) fn run_on(self, storage: &dyn Storage) -> Result<Report, Error> {
        let directory = Directory::list(storage)?;
        if directory.chains.is_empty() {
            return Err(Error::NoLog { path: self.dir });
        }
        let progress = Progress::new(self.progress);
        let bytes = bytes_of(storage, &directory)?;
        progress.expect(bytes.values().fold(0, |total, bytes| total.saturating_add(*bytes)));
        let trusted = |chain| self.trusted.iter().find(|head| head.chain == chain).copied();
        let mut tracks = first_look(storage, self.threads, &bytes, &progress, trusted)?;
        // From here on no new claims about other chains are accepted. Whatever the lines read so far witness was
        // durable before, so the second look at each chain must find it.
        let kept: Vec<Head> = self.kept.iter().chain(&self.trusted).copied().collect();
        let noted = witness::read_all_noted(storage);
        let claims = witness::gather(&kept, &noted, &tracks);
        for chain in Directory::list(storage)?.chains.into_keys() {
            tracks.entry(chain).or_insert_with(|| Track::new(chain, trusted(chain)));
        }
        let mut report = Report {
            path: self.dir,
            chains: Vec::new(),
            heads: Vec::new(),
            findings: Findings::default(),
            notes: foreign(&directory.foreign),
            more_notes: directory.foreign.len().saturating_sub(MAX_FOREIGN) as u64,
            not_checked: Vec::new(),
        };
        let there: BTreeSet<ChainNumber> = tracks.keys().copied().collect();
        // Chains are judged in parallel; a single chain uses all threads itself.
        let inside = if tracks.len() > 1 { 1 } else { self.threads };
        let mut jobs = tracks.into_values();
        pool::run(
            self.threads.min(there.len()),
            || (),
            || Ok(jobs.next()),
            |(), mut track| {
                let claims = claims.get(&track.chain).map_or(&[][..], Vec::as_slice);
                let trusted = trusted(track.chain);
                on_its_own(storage, inside, |context| last_look(&mut track, context, claims, trusted))
            },
            |judged| {
                let (judged, bytes) = judged?;
                progress.add(bytes);
                report.add(judged);
                Ok(())
            },
        )?;
        report.missing_chains(&claims, &there);
        if noted.are_out_of_reach {
            let message = "the noted heads of the chains, since `control` cannot be read";
            report.not_checked.push(NotChecked::of(NotCheckedKind::NotedHead, None, message));
        }
        report.not_checked.extend(noted.unknown.iter().map(|(chain, why)| {
            NotChecked::of(NotCheckedKind::NotedHead, Some(*chain), format!("its noted head, {why}"))
        }));
        report.limits(&self.kept);
        Ok(report)
    }
}

/// Reads every chain for the first time: large ones one after the other with all threads, then small ones in parallel.
fn first_look(
    storage: &dyn Storage,
    threads: usize,
    bytes: &BTreeMap<ChainNumber, u64>,
    progress: &Progress,
    trusted: impl Fn(ChainNumber) -> Option<Head> + Sync,
) -> Result<BTreeMap<ChainNumber, Track>, Error> {
    let mut tracks = BTreeMap::new();
    let is_large = |bytes: u64| bytes >= track::WORTH_THREADS || threads == 1;
    let context = Context { storage, threads, progress };
    for (chain, _) in bytes.iter().filter(|(_, bytes)| is_large(**bytes)) {
        let mut track = Track::new(*chain, trusted(*chain));
        track.advance(&context)?;
        tracks.insert(*chain, track);
    }
    let mut jobs = bytes.iter().filter(|(_, bytes)| !is_large(**bytes));
    pool::run(
        threads,
        || (),
        || Ok(jobs.next().map(|(chain, _)| *chain)),
        |(), chain| {
            let mut track = Track::new(chain, trusted(chain));
            on_its_own(storage, 1, |context| track.advance(context).map(|()| track))
        },
        |looked_at| {
            let (track, bytes) = looked_at?;
            progress.add(bytes);
            tracks.insert(track.chain, track);
            Ok(())
        },
    )?;
    Ok(tracks)
}

/// Works on one chain in parallel with others. The bytes read are returned, so that the thread that joins the results
/// reports them as progress.
fn on_its_own<T>(
    storage: &dyn Storage,
    threads: usize,
    work: impl FnOnce(&Context<'_>) -> Result<T, Error>,
) -> Result<(T, u64), Error> {
    let silent = Progress::default();
    let done = work(&Context { storage, threads, progress: &silent })?;
    Ok((done, silent.done()))
}

/// The result of judging one chain.
struct Judged {
    chain: ChainReport,
    notes: Vec<Note>,
    more_notes: u64,
    findings: Findings,
    not_checked: Vec<NotChecked>,
}

/// Reads one chain to its very end and judges it.
fn last_look(
    track: &mut Track,
    context: &Context<'_>,
    claims: &[witness::Claim],
    trusted: Option<Head>,
) -> Result<Judged, Error> {
    let (mut findings, mut not_checked) = (Findings::default(), Vec::new());
    track.advance(context)?;
    let probe = writer_probe::probe(context.storage, track.chain);
    // A writer that took the lock just before the probe may have recovered what the first look saw, so the chain is
    // read once more. The probe's lock keeps writers out only briefly, because nearly everything was read before.
    track.advance(context)?;
    let holder = match probe {
        Probe::Held => Holder::Writer,
        Probe::Free(guard) => {
            // The chain was read to its end while no writer could change it.
            drop(guard);
            Holder::Nobody
        }
        Probe::Unknown(why) => {
            let message = format!("whether a writer holds it, since its lock could not be read{why}");
            not_checked.push(NotChecked::of(NotCheckedKind::Lock, Some(track.chain), message));
            Holder::Unknown
        }
    };
    track.notes.note_files(track.chain, &track.follow.files);
    let evidence = Evidence { claims, trusted, holder };
    let judge = Judge::new(track, &evidence, context.storage, &mut findings, &mut not_checked)?;
    let (chain, notes) = judge.run();
    Ok(Judged { chain, notes, more_notes: track.notes.more, findings, not_checked })
}

impl Report {
    fn add(&mut self, judged: Judged) {
        let Judged { chain, mut notes, more_notes, findings, not_checked } = judged;
        self.findings.append(findings);
        self.not_checked.extend(not_checked);
        self.notes.append(&mut notes);
        self.more_notes += more_notes;
        self.heads.extend(chain.head);
        self.chains.push(chain);
    }

    /// Adds a finding for each claim about a chain that does not exist.
    fn missing_chains(&mut self, claims: &Claims, there: &BTreeSet<ChainNumber>) {
        for (chain, claims) in claims.iter().filter(|(chain, _)| !there.contains(chain)) {
            for claim in claims {
                self.findings.push(Finding {
                    kind: FindingKind::MissingChain,
                    chain: *chain,
                    position: None,
                    seq: Some(claim.seq),
                    message: format!("{} names record {}, but the chain is missing", claim.who(), claim.seq),
                });
            }
        }
    }

    /// Lists what no verification of this kind can detect.
    fn limits(&mut self, kept: &[Head]) {
        for chain in &self.chains {
            let number = chain.chain;
            let highest = kept.iter().filter(|head| head.chain == number).map(|head| head.seq).max();
            let message = match highest {
                Some(seq) => {
                    format!("whether records after {seq} were cut off or rewritten (no later head was given)")
                }
                None => {
                    "whether its end was cut off at a line, an older copy was put back, or all of it was \
                         rewritten (no head kept elsewhere was given)"
                        .to_owned()
                }
            };
            self.not_checked.push(NotChecked::of(NotCheckedKind::End, Some(number), message));
        }
        self.not_checked.extend([
            NotChecked::of(
                NotCheckedKind::Chains,
                None,
                "whether a chain was removed that no other chain witnessed and of which no head was given",
            ),
            NotChecked::of(
                NotCheckedKind::Author,
                None,
                "who wrote the lines: well-formed lines appended by somebody else, a forged `prune` among them, \
                 look like the log's own (only signatures would show the difference)",
            ),
        ]);
    }
}

/// Returns how many bytes each chain has.
fn bytes_of(storage: &dyn Storage, directory: &Directory) -> Result<BTreeMap<ChainNumber, u64>, Error> {
    let mut bytes = BTreeMap::new();
    for (chain, numbers) in &directory.chains {
        let total: &mut u64 = bytes.entry(*chain).or_default();
        for segment in numbers {
            let name = SegmentName { chain: *chain, segment: *segment }.to_string();
            let path = storage.path(Dir::Log, &name);
            let stat = storage.stat(Dir::Log, &name).map_err(Error::io("look at", path))?;
            *total = total.saturating_add(stat.map_or(0, |stat| stat.bytes));
        }
    }
    Ok(bytes)
}

fn foreign(names: &[String]) -> Vec<Note> {
    let note = |name: &String| Note {
        kind: NoteKind::Foreign,
        chain: None,
        message: format!("{name:?} is not part of the log"),
    };
    names.iter().take(MAX_FOREIGN).map(note).collect()
}
