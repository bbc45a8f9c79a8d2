//! Signs of life: for whoever watches a fleet, not stored.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{Client, connection::State};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};

/// How often a forwarder says that it is there.
const EVERY: Duration = Duration::from_secs(15);

/// The chains that are left out, by their ids, and why.
pub(super) type LeftOut = BTreeMap<Arc<str>, String>;

/// What a sign of life says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) left_out: BTreeMap<String, String>,
}

impl Said {
    pub(super) fn of(left_out: &LeftOut) -> Self {
        Self { left_out: left_out.iter().map(|(id, why)| (id.to_string(), why.clone())).collect() }
    }
}

/// Says it at once, whenever it changes, and again and again.
pub(super) async fn give(client: Client, subject: String, mut left_out: watch::Receiver<LeftOut>) {
    loop {
        let text = serde_json::to_string(&Said::of(&left_out.borrow_and_update()));
        // Without a connection it would be said later, and be old.
        if let (Ok(text), State::Connected) = (text, client.connection_state()) {
            drop(client.publish(subject.clone(), text.into()).await);
        }
        if let Ok(Err(_)) = time::timeout(EVERY, left_out.changed()).await {
            return;
        }
    }
}
