//! What stands elsewhere about a chain: heads that other chains witnessed, and heads that were kept
//! outside of the log.

use std::collections::BTreeMap;

use crate::{
    chain::{Digest, Head},
    format::ChainId,
    segment_name::ChainNumber,
};

use super::track::Track;

/// Who says that a chain had a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// Whoever asked for the verification.
    Kept,
    /// Another chain of the log.
    Chain(ChainNumber),
}

/// Somebody says: this chain had this durable record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) source: Source,
    pub(super) seq: u64,
    pub(super) hash: Digest,
    /// Which chain is meant, where that is known beyond its number.
    pub(super) id: Option<ChainId>,
}

impl Claim {
    /// Who says so, for messages.
    pub(super) fn who(&self) -> String {
        match self.source {
            Source::Kept => "a head that was kept elsewhere".to_owned(),
            Source::Chain(chain) => format!("chain {chain}"),
        }
    }
}

/// All claims, by the chain that they are about.
pub(super) type Claims = BTreeMap<ChainNumber, Vec<Claim>>;

/// Gathers the kept heads and what the chains, as far as they were read, say of each other.
pub(super) fn gather(kept: &[Head], tracks: &BTreeMap<ChainNumber, Track>) -> Claims {
    let mut claims = Claims::new();
    for head in kept {
        let claim = Claim { source: Source::Kept, seq: head.seq, hash: head.hash, id: None };
        claims.entry(head.chain).or_default().push(claim);
    }
    for (by, track) in tracks {
        for ((about, _), witness) in &track.follow.facts.witnessed {
            let claim = Claim {
                source: Source::Chain(*by),
                seq: witness.seq,
                hash: witness.hash,
                id: Some(witness.id),
            };
            // Sequence 0 says only that the chain was there.
            claims.entry(*about).or_default().push(claim);
        }
    }
    claims
}
