//! Heartbeats, for whoever monitors a fleet. They are not stored.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Client, connection::State};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};

/// How often a forwarder sends a heartbeat.
const EVERY: Duration = Duration::from_secs(15);

/// The largest heartbeat that is read, in bytes: a forwarder names at most a few chains.
pub(super) const MAX_LEN: usize = 64 << 10;

/// Maximum number of chains that a heartbeat may name.
pub(super) const MAX_CHAINS: usize = 256;

/// The content of a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BeatContent {
    /// The chains that are left out, by id, with the reasons.
    pub(super) left_out: BTreeMap<String, String>,
    /// Why the forwarder cannot store anything, while it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// Publishes the heartbeat periodically, and at once whenever it changes.
pub(super) async fn publish(client: Client, subject: String, mut content: watch::Receiver<BeatContent>) {
    loop {
        let text = serde_json::to_string(&*content.borrow_and_update());
        // Without a connection, the client would send it later, when it is outdated.
        if let (Ok(text), State::Connected) = (text, client.connection_state()) {
            drop(client.publish(subject.clone(), text.into()).await);
        }
        if let Ok(Err(_)) = time::timeout(EVERY, content.changed()).await {
            return;
        }
    }
}
