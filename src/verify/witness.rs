//! What stands elsewhere about a chain: heads that other chains witnessed, and heads that were kept
//! outside of the log.

use std::collections::BTreeMap;

use crate::{
    chain::{Digest, Head},
    chain_reader::{Slots, chains_with_a_lock, read_noted},
    format::{ChainId, Witness},
    segment_name::ChainNumber,
    storage::Storage,
};

use super::track::Track;

/// Who says that a chain had a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimSource {
    /// Whoever asked for the verification.
    Kept,
    /// The lock file of the chain itself.
    Lock,
    /// Another chain of the log.
    Chain(ChainNumber),
}

/// Somebody says: this chain had this durable record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) source: ClaimSource,
    pub(super) seq: u64,
    pub(super) hash: Digest,
    /// Which chain is meant, where that is known beyond its number.
    pub(super) id: Option<ChainId>,
}

impl Claim {
    /// Who says so, for messages.
    pub(super) fn who(&self) -> String {
        match self.source {
            ClaimSource::Kept => "a head that was kept elsewhere".to_owned(),
            ClaimSource::Lock => "the noted head in its lock file".to_owned(),
            ClaimSource::Chain(chain) => format!("chain {chain}"),
        }
    }
}

/// All claims, by the chain that they are about.
pub(super) type Claims = BTreeMap<ChainNumber, Vec<Claim>>;

/// What the lock files of a log say of its chains.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) heads: Vec<(ChainNumber, Witness)>,
    /// Chains of which a lock file is there and could not be read, or says nothing of this very log.
    pub(super) unknown: Vec<(ChainNumber, &'static str)>,
    /// Whether it could not be seen which lock files there are.
    pub(super) are_out_of_reach: bool,
}

/// Reads the noted heads of all chains.
pub(super) fn read_all_noted(storage: &dyn Storage) -> Noted {
    let mut noted = Noted::default();
    // Where there are no locks nothing is noted: a copy need not have them.
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

/// Gathers the kept heads, the noted ones, and what the chains, as far as they were read, say of each other.
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
        for ((about, _), witness) in &track.follow.facts.witnessed {
            let claim = Claim {
                source: ClaimSource::Chain(*by),
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
