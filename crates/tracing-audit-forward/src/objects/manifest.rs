//! Manifests: which segments of a chain are sealed, and their checksums.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing_audit::Digest;

use super::keys::Name;
use crate::sink::Gap;

/// The version of a manifest.
const FORMAT: u32 = 1;

/// The sealed segments of a chain. The manifest of the newest segment lists all of them. Checksums are
/// SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) chain_id: String,
    /// The number of the chain in its log.
    pub(super) chain: u16,
    pub(super) segments: Vec<Sealed>,
    pub(super) gaps: Vec<Missing>,
}

/// A sealed segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) segment: u32,
    /// The name below the directory of the chain.
    pub(super) name: String,
    /// The object as it is stored.
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// The lines, decompressed.
    pub(super) line_bytes: u64,
    pub(super) line_sha256: String,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// Hash of the last record.
    pub(super) last_hash: String,
    pub(super) first_ts: Option<String>,
    pub(super) last_ts: Option<String>,
}

/// Records that retention removed before they could be stored: a gap, and the content of its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missing {
    pub(super) chain: u16,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

impl Missing {
    pub(super) fn of(gap: &Gap) -> Self {
        Self { chain: gap.chain, first_seq: gap.first_seq, last_seq: gap.last_seq }
    }

    pub(super) fn gap(&self, chain_id: &str) -> Gap {
        Gap::new(Arc::from(chain_id), self.chain, self.first_seq..=self.last_seq)
    }

    pub(super) fn print(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl Manifest {
    pub(super) fn new(chain_id: &str, chain: u16) -> Self {
        Self { format: FORMAT, chain_id: chain_id.to_owned(), chain, segments: Vec::new(), gaps: Vec::new() }
    }

    pub(super) fn print(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Parses a manifest of this chain.
    pub(super) fn parse(bytes: &[u8], chain_id: &str) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not a manifest: {error}"))?;
        if manifest.format != FORMAT {
            return Err(format!("its format is {}, and this version knows {FORMAT}", manifest.format));
        }
        if manifest.chain_id != chain_id {
            return Err("it is of another chain".to_owned());
        }
        let ascends = manifest.segments.is_sorted_by(|one, next| one.segment < next.segment);
        if !ascends || manifest.last().is_none() {
            return Err("its segments are not in their order".to_owned());
        }
        let is_own = |sealed: &Sealed| matches!(Name::parse(&sealed.name), Some(Name::Segment { number, .. }) if number == sealed.segment);
        if !manifest.segments.iter().all(is_own) {
            return Err("it names an object that is not the one of the segment".to_owned());
        }
        Ok(manifest)
    }

    /// Returns the last record that is sealed.
    pub(super) fn last(&self) -> Option<(u64, Digest)> {
        let last = self.segments.last()?;
        Some((last.last_seq, last.last_hash.parse().ok()?))
    }
}
