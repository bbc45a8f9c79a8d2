//! Hosts that send records in turn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tracing_audit_forward::{Delivered, Feed, Origin, SinkError, StreamState, What};

/// The records of all chains, each created on demand.
pub(crate) struct Hosts {
    count: u32,
    chains: u32,
    records: u64,
    ids: Vec<Arc<str>>,
    /// The last hash of each chain.
    last: Vec<String>,
    next: u64,
    /// How long creating them took.
    pub(crate) making: Duration,
    pub(crate) bytes: u64,
}

impl Hosts {
    pub(crate) fn new(hosts: u32, chains: u32, records: u32) -> Self {
        Self {
            count: hosts,
            chains,
            records: u64::from(records),
            ids: (0..hosts * chains).map(|chain| format!("{chain:032x}").into()).collect(),
            last: vec!["0".repeat(64); usize::try_from(hosts * chains).unwrap()],
            next: 0,
            making: Duration::ZERO,
            bytes: 0,
        }
    }

    pub(crate) fn origin(&self, host: u32) -> Origin {
        Origin::new("shop", format!("n{}.example", host % self.count)).unwrap()
    }

    fn make(&mut self, at: u64) -> Delivered {
        let count = u64::from(self.count * self.chains);
        let chain = usize::try_from(at % count).unwrap();
        let seq = at / count + 1;
        let (host, number) = (at % count / u64::from(self.chains), at % u64::from(self.chains));
        let ts = "2026-11-21T08:00:00.000000001Z";
        let id = Arc::clone(self.ids.get(chain).unwrap());
        let what = if seq == 1 {
            format!(
                r#""kind":"segment","segment":{{"format":1,"id":"{id}","chain":"{number:03}","segment":1,"after":[],"chains":{{}}}},"durable":0"#
            )
        } else {
            format!(
                r#""kind":"event","severity":"routine","level":"INFO","action":"order.place","actor":"user-{at}","resource":"order/{at}","outcome":"success","session_id":"5f1c2a9be07d4c33","message":"placed","target":"audit::shop","module":"shop::orders","fields":{{"items":3,"total":1999}}"#
            )
        };
        let last = self.last.get_mut(chain).unwrap();
        let body = format!(r#"{{"seq":{seq},"ts":"{ts}",{what},"_prev_hash":"{last}""#);
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(body.as_bytes());
        hasher.update(b"}");
        last.clear();
        for byte in hasher.finalize() {
            last.extend([byte >> 4, byte & 15].map(|nibble| char::from_digit(nibble.into(), 16).unwrap()));
        }
        let line = format!(r#"{body},"_hash":"{last}"}}"#);
        self.bytes += line.len() as u64 + 1;
        let origin = self.origin(u32::try_from(host).unwrap());
        Delivered::new(at + 1, What::Line { origin, chain_id: id, line: line.into_bytes() })
    }

    fn all(&self) -> u64 {
        u64::from(self.count * self.chains) * self.records
    }
}

impl Feed for Hosts {
    fn state(&mut self) -> Result<StreamState, SinkError> {
        Ok(StreamState::new("fleet", 1, self.all()))
    }

    fn start(&mut self, place: u64) -> Result<(), SinkError> {
        self.next = place - 1;
        Ok(())
    }

    fn next(&mut self, limit: usize, _: Duration) -> Result<Vec<Delivered>, SinkError> {
        let begun = Instant::now();
        let end = self.all().min(self.next + limit as u64);
        let made = (self.next..end).map(|at| self.make(at)).collect();
        self.next = end;
        self.making += begun.elapsed();
        Ok(made)
    }
}
