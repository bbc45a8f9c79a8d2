//! One line of a copy, according to docs/format.md.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tracing_audit::Digest;

use super::report::CopyFindingKind;

/// The longest line, with its line feed.
const MAX_LINE: usize = 60 * 1024;

/// The highest sequence number that is accepted. No chain reaches it, and sums of such numbers do not
/// overflow.
pub(crate) const MAX_SEQ: u64 = i64::MAX.cast_unsigned();

const BODY_START: &str = "{\"seq\":";
const PREVIOUS_START: &str = ",\"_prev_hash\":\"";
const HASH_START: &str = ",\"_hash\":\"";
const HEX_LEN: usize = 64;

/// A line whose layout and hash are right.
#[derive(Debug)]
pub(crate) struct CopiedLine<'a> {
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
    pub(crate) previous: Digest,
    /// All members, as written in the line.
    pub(crate) members: BTreeMap<String, &'a RawValue>,
}

/// What a `segment` line says of its chain.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) chain: u16,
    /// The number of the segment that the line begins.
    pub(crate) segment: u32,
}

/// A record of another chain, as a line names it.
#[derive(Debug)]
pub(crate) struct Witnessed {
    pub(crate) chain: u16,
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
}

impl<'a> CopiedLine<'a> {
    /// Parses a line, given without its line feed.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, CopyFindingKind> {
        let not_a_line = |what| CopyFindingKind::NotALine { what };
        if line.len() >= MAX_LINE {
            return Err(not_a_line("it is longer than 60 KiB"));
        }
        let text = std::str::from_utf8(line).map_err(|_| not_a_line("it is not UTF-8"))?;
        let layout = not_a_line("it does not have the layout of a record");
        let (body, hash) = split(text, HASH_START, "\"}").ok_or_else(|| layout.clone())?;
        let (start, previous) = split(body, PREVIOUS_START, "\"").ok_or_else(|| layout.clone())?;
        if !start.starts_with(BODY_START) {
            return Err(layout);
        }
        if hash_of(body) != *hash.as_bytes() {
            return Err(CopyFindingKind::Altered);
        }
        let not_json = not_a_line("it is not JSON");
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|_| not_json)?;
        let seq = members
            .get("seq")
            .and_then(|seq| seq.get().parse().ok())
            .filter(|seq| (1..=MAX_SEQ).contains(seq));
        let seq =
            seq.ok_or_else(|| not_a_line("its sequence number is not a whole number from 1 to 2^63 - 1"))?;
        Ok(Self { seq, hash, previous, members })
    }

    /// Returns a member that is a string.
    #[cfg(any(feature = "objects", feature = "postgres"))]
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.members.get(name)?.get()).ok()
    }

    /// Returns what a `segment` line says of its chain; `None` for every other line.
    pub(crate) fn identity(&self) -> Option<Identity> {
        #[derive(Deserialize)]
        struct Segment<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
            #[serde(borrow)]
            chain: Cow<'a, str>,
            #[serde(rename = "segment")]
            number: u32,
        }
        let segment: Segment<'_> = self.detail("segment")?;
        let (id, chain) = (segment.id.into_owned(), segment.chain.parse().ok()?);
        Some(Identity { id, chain, segment: segment.number })
    }

    /// Returns the last record that retention had removed when the line was written, and its hash.
    pub(crate) fn prune(&self) -> Option<(u64, Option<Digest>)> {
        #[derive(Deserialize)]
        struct Pruned<'a> {
            through: u64,
            #[serde(borrow)]
            hash: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        struct Segment<'a> {
            #[serde(borrow)]
            pruned: Option<Pruned<'a>>,
        }
        let pruned = match self.detail::<Segment<'_>>("segment") {
            Some(segment) => segment.pruned?,
            None => self.detail::<Pruned<'_>>("prune")?,
        };
        Some((pruned.through, pruned.hash.and_then(|hash| hash.parse().ok())))
    }

    /// Returns the kind, as written between its quotes.
    pub(crate) fn kind(&self) -> Option<&str> {
        Some(self.members.get("kind")?.get().trim_matches('"'))
    }

    /// Returns the records of other chains that the line names as durable.
    pub(crate) fn witnessed(&self) -> Vec<Witnessed> {
        #[derive(Deserialize)]
        struct Durable<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
            seq: u64,
            #[serde(borrow)]
            hash: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Detail<'a> {
            #[serde(borrow, default)]
            chains: BTreeMap<Cow<'a, str>, Durable<'a>>,
        }
        let Some(kind @ ("segment" | "open" | "mark" | "close")) = self.kind() else { return Vec::new() };
        let chains = self.detail::<Detail<'_>>(kind).map(|detail| detail.chains).unwrap_or_default();
        let witnessed = chains.into_iter().filter_map(|(chain, durable)| {
            let (id, hash) = (durable.id.into_owned(), durable.hash.parse().ok()?);
            Some(Witnessed { chain: chain.parse().ok()?, id, seq: durable.seq, hash })
        });
        witnessed.filter(|witnessed| is_chain_id(&witnessed.id) && witnessed.seq <= MAX_SEQ).collect()
    }

    /// Returns the object named after the kind, if the line is of this kind.
    fn detail<'b, T: Deserialize<'b>>(&'b self, kind: &str) -> Option<T> {
        if self.kind()? != kind {
            return None;
        }
        serde_json::from_str(self.members.get(kind)?.get()).ok()
    }
}

/// Returns whether a text is the id of a chain: 32 lower-case hexadecimal digits.
pub(crate) fn is_chain_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits a text that ends with `start`, 64 digits and `end` into the part before and the digits.
fn split<'a>(text: &'a str, start: &str, end: &str) -> Option<(&'a str, Digest)> {
    let at = text.len().checked_sub(start.len() + HEX_LEN + end.len())?;
    let (before, tail) = text.split_at_checked(at)?;
    let hex = tail.strip_prefix(start)?.strip_suffix(end)?;
    Some((before, hex.parse().ok()?))
}

/// Returns the hash of a record, whose body is `body` and `}`.
fn hash_of(body: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(body.as_bytes());
    hasher.update(b"}");
    hasher.finalize().into()
}

/// Returns the hash at the end of a line, whatever the rest is.
pub(super) fn claimed_hash(line: &[u8]) -> Option<Digest> {
    split(std::str::from_utf8(line).ok()?, HASH_START, "\"}").map(|(_, hash)| hash)
}

/// Returns the digest of these bytes; `None` if there are not exactly 32.
pub(crate) fn digest_of(bytes: &[u8]) -> Option<Digest> {
    let mut hex = String::with_capacity(HEX_LEN);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(nibble.into(), 16)?);
        }
    }
    hex.parse().ok()
}
