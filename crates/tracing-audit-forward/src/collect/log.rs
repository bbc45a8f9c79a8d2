//! The state of one log of the fleet.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    chain::{CollectedChain, FaultKind},
    held::Held,
    table::CollectedLog,
};
use crate::{copy::Witnessed, origin::Origin};

/// Maximum number of chains of one log: as many as there are numbers. More can only be made up.
const MAX_CHAINS: usize = 1_000;

/// A log of the fleet. What one host sends changes nothing in the logs of others.
#[derive(Debug)]
pub(super) struct Log {
    /// `service/host`.
    pub(super) name: String,
    origin: Origin,
    pub(super) chains: HashMap<Arc<str>, Held>,
    /// The chain that holds a number in the directory of the log.
    numbers: HashMap<u16, Arc<str>>,
    /// When something of it last arrived in this run.
    pub(super) last_arrival: Option<Instant>,
    /// Its row in the table.
    pub(super) row: CollectedLog,
}

impl Log {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            name: origin.to_string(),
            origin,
            chains: HashMap::new(),
            numbers: HashMap::new(),
            last_arrival: None,
            row: CollectedLog::default(),
        }
    }

    /// Forgets the chains, which the table has. The time of the last arrival stays.
    pub(super) fn forget_chains(&mut self) {
        self.chains.clear();
        self.numbers.clear();
    }

    /// Takes over a chain from the table. `damage` describes how its file differs.
    pub(super) fn restore(&mut self, row: CollectedChain, damage: Option<String>) {
        let id: Arc<str> = row.chain_id.as_str().into();
        if let (Some(log), Some(chain)) = (&row.log, row.chain)
            && *log == self.name
        {
            self.numbers.insert(chain, Arc::clone(&id));
        }
        let mut held = Held::of(row);
        if let Some(damage) = damage {
            let what = format!(
                "the copy is damaged: {damage}; restore the file, and settle; nothing is added in the meantime"
            );
            held.row.note(FaultKind::Altered, held.row.seq, 0, &what);
            held.is_damaged = true;
        }
        self.chains.insert(id, held);
    }

    pub(super) fn note_arrival(&mut self, now: Instant, now_ms: u64) {
        (self.last_arrival, self.row.heard_ms) = (Some(now), Some(now_ms));
    }

    /// Returns a chain, and whether it is new; `None` if there are too many.
    pub(super) fn chain(&mut self, id: &Arc<str>) -> Option<(&mut Held, bool)> {
        let is_new = !self.chains.contains_key(id);
        if is_new {
            if self.chains.len() >= MAX_CHAINS {
                self.row.is_overfull = true;
                return None;
            }
            self.chains.insert(Arc::clone(id), Held::of(CollectedChain::new(&self.origin, id)));
        }
        Some((self.chains.get_mut(id)?, is_new))
    }

    /// Records what one chain says about another.
    pub(super) fn witness(&mut self, other: &Witnessed, place: u64, now_ms: u64) {
        if let Some((held, _)) = self.chain(&other.id.as_str().into()) {
            held.row.witness(other, place, now_ms);
        }
    }

    /// Assigns a chain to a directory. If another chain already has its number there, this one is of another
    /// log of the same name, or of a log that was begun anew.
    pub(super) fn give_directory(&mut self, id: &Arc<str>) {
        let Some(held) = self.chains.get_mut(id) else { return };
        let (None, Some(chain)) = (&held.row.log, held.row.chain) else { return };
        let owner = self.numbers.entry(chain).or_insert_with(|| Arc::clone(id));
        if owner == id {
            held.row.log = Some(self.name.clone());
            return;
        }
        let log = format!("{}~{id}", self.name);
        let what = format!(
            "the log has a chain {chain:03} of another id already: it was begun again, or two logs have one name; this one is in {log}"
        );
        held.row.note(FaultKind::Forked, held.row.seq, 0, &what);
        held.row.log = Some(log);
    }
}
