//! A sink that asks for larger batches, and is told which chains are left out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tracing_audit_forward::{Entry, Forwarder, Pace, Position, Sink, SinkError};

use super::app::*;

type LeftOut = Arc<Mutex<Vec<BTreeMap<Arc<str>, String>>>>;

struct Paced {
    healed: Arc<Mutex<u32>>,
    inner: StoreSink,
    pace: Pace,
    left_out: LeftOut,
}

impl Sink for Paced {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        self.inner.positions(chain_ids)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        self.inner.offer(batch)
    }

    fn left_out(&mut self, chains: &BTreeMap<Arc<str>, String>) {
        self.left_out.lock().unwrap().push(chains.clone());
    }

    fn healed(&mut self) {
        *self.healed.lock().unwrap() += 1;
    }

    fn pace(&self) -> Pace {
        self.pace
    }
}

/// Returns a store, the size of each of its batches, and a forwarder to it.
fn paced(app: &App, set: impl FnOnce(&mut Pace)) -> (Store, Arc<Mutex<Vec<usize>>>, Forwarder, LeftOut) {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let store = Store::with(move |batch| {
        seen.lock().unwrap().push(batch.len());
        None
    });
    let mut pace = Pace::default();
    set(&mut pace);
    let left_out = LeftOut::default();
    let sink = Paced { healed: Arc::default(), inner: store.sink(), pace, left_out: Arc::clone(&left_out) };
    let forwarder = Forwarder::builder("store").start(&app.log, sink).unwrap();
    (store, batches, forwarder, left_out)
}

#[test]
fn records_linger_as_long_as_the_sink_asks() {
    let app = App::new();
    let linger = Duration::from_secs(2);
    let (store, batches, forwarder, _) = paced(&app, |pace| pace.linger = linger);
    let begun = Instant::now();
    for _ in 0..10 {
        app.emit(10);
        std::thread::sleep(Duration::from_millis(50));
    }
    until("they arrive", || store.seqs().len() >= 100);
    assert!(begun.elapsed() >= linger);
    let offered = batches.lock().unwrap().len();
    assert!(offered <= 2, "{offered} offers of records that came within half a second");
    // A drain does not wait for the interval.
    app.emit(10);
    let begun = Instant::now();
    forwarder.drain(LONG).unwrap();
    assert!(begun.elapsed() < linger);
    assert!(store.lines() == lines(&app.path()));
}

#[test]
fn a_batch_has_as_many_records_and_bytes_as_the_sink_says() {
    for (records, bytes) in [(7, 1 << 20), (1_000_000, 4_000)] {
        let app = App::new();
        app.emit(100);
        let (store, batches, forwarder, _) = paced(&app, |pace| {
            (pace.batch_records, pace.batch_bytes) = (records, bytes);
        });
        forwarder.drain(LONG).unwrap();
        let most = batches.lock().unwrap().iter().copied().max().unwrap();
        assert!(most <= 7.max(bytes / 250).min(records), "{most}");
        assert!(most > 1);
        assert!(store.lines() == lines(&app.path()));
    }
}

#[test]
fn a_sink_is_told_which_chains_are_left_out_and_why() {
    let app = App::new();
    app.emit(3);
    let (store, _, forwarder, left_out) = paced(&app, |_| {});
    forwarder.drain(LONG).unwrap();
    assert!(left_out.lock().unwrap().is_empty());
    // Another record is in the place of the next one.
    let (id, seq) = store.0.lock().unwrap().rows.keys().next_back().cloned().unwrap();
    let other = store.0.lock().unwrap().rows.values().next().cloned().unwrap();
    for next in 1..10 {
        store.0.lock().unwrap().rows.insert((id.clone(), seq + next), other.clone());
    }
    app.emit(1);
    until("it hears", || !left_out.lock().unwrap().is_empty());
    let heard = left_out.lock().unwrap()[0].clone();
    assert_eq!(heard.keys().map(ToString::to_string).collect::<Vec<_>>(), [id]);
    assert!(heard.values().all(|why| why.contains("another record")), "{heard:?}");
}

/// The store accepted a batch, its answer was lost, and there is nothing more to offer.
#[test]
fn a_sink_is_told_that_it_healed_although_nothing_is_offered() {
    let app = App::new();
    app.emit(3);
    let mut calls = 0;
    let store = Store::with(move |_| {
        calls += 1;
        (calls == 1).then(unavailable)
    });
    store.0.lock().unwrap().fails_late = true;
    let healed = Arc::default();
    let sink = Paced {
        healed: Arc::clone(&healed),
        inner: store.sink(),
        pace: Pace::default(),
        left_out: LeftOut::default(),
    };
    let forwarder = Forwarder::builder("store").start(&app.log, sink).unwrap();
    until("it hears", || *healed.lock().unwrap() == 1);
    drop(forwarder);
}
