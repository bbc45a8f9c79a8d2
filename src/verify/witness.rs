//! Claims about a chain from elsewhere: heads that other chains witnessed, heads noted in lock files, and heads
//! that were kept outside the log.

use std::collections::BTreeMap;

use crate::{
    chain::{Digest, Head},
    chain_reader::{Slots, chains_with_a_lock, read_noted},
    format::{ChainId, Witness},
    segment_name::ChainNumber,
    storage::Storage,
};

use super::track::Track;

/// The source of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimSource {
    /// The caller of the verification.
    Kept,
    /// The lock file of the chain itself.
    Lock,
    /// Another chain of the log.
    Chain(ChainNumber),
}

/// A claim that a chain had this durable record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) source: ClaimSource,
    pub(super) seq: u64,
    pub(super) hash: Digest,
    /// The id of the chain, where it is known in addition to its number.
    pub(super) id: Option<ChainId>,
}

impl Claim {
    /// Returns the source of the claim, for messages.
    pub(super) fn who(&self) -> String {
        match self.source {
            ClaimSource::Kept => "a head that was kept elsewhere".to_owned(),
            ClaimSource::Lock => "the noted head in its lock file".to_owned(),
            ClaimSource::Chain(chain) => format!("chain {chain}"),
        }
    }
}

/// All claims, by the chain they are about.
pub(super) type Claims = BTreeMap<ChainNumber, Vec<Claim>>;

/// The noted heads in the lock files of a log.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) heads: Vec<(ChainNumber, Witness)>,
    /// Chains whose lock file exists but could not be read, or belongs to another copy of the log.
    pub(super) unknown: Vec<(ChainNumber, &'static str)>,
    /// Whether the lock files could not be listed.
    pub(super) are_out_of_reach: bool,
}

/// Reads the noted heads of all chains.
pub(super) fn read_all_noted(storage: &dyn Storage) -> Noted {
    let mut noted = Noted::default();
    // Without lock files nothing is noted: a copy of a log may have none.
    let chains = chains_with_a_lock(storage);
    noted.are_out_of_reach = chains.is_err();
    for chain in chains.unwrap_or_default() {
        match read_noted(storage, chain) {
            Ok(Some(Slots { noted: Some(slot), .. })) => {
                noted.heads.extend(slot.head().map(|head| (chain, head)));
            }
            Ok(Some(slots)) if slots.is_of_another_file => {
                noted.unknown.push((chain, "since its lock file is a copy, or was restored"));
            }
            Ok(_) => {}
            Err(_) => noted.unknown.push((chain, "since its lock file could not be read")),
        }
    }
    noted
}

/// Gathers all claims: the kept heads, the noted ones, and what the chains witness of each other as far as they were
/// read.
pub(super) fn gather(kept: &[Head], noted: &Noted, tracks: &BTreeMap<ChainNumber, Track>) -> Claims {
    let mut claims = Claims::new();
    for head in kept {
        let claim = Claim { source: ClaimSource::Kept, seq: head.seq, hash: head.hash, id: None };
        claims.entry(head.chain).or_default().push(claim);
    }
    for (chain, head) in &noted.heads {
        let claim = Claim { source: ClaimSource::Lock, seq: head.seq, hash: head.hash, id: Some(head.id) };
        claims.entry(*chain).or_default().push(claim);
    }
    for (by, track) in tracks {
        for ((about, _), witness) in &track.follow.control.witnessed {
            let claim = Claim {
                source: ClaimSource::Chain(*by),
                seq: witness.seq,
                hash: witness.hash,
                id: Some(witness.id),
            };
            // Sequence number 0 claims only that the chain existed.
            claims.entry(*about).or_default().push(claim);
        }
    }
    claims
}
