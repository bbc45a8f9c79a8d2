//! Signs of life: for whoever watches a fleet, not stored.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Client, connection::State};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};

/// How often a forwarder says that it is there.
const EVERY: Duration = Duration::from_secs(15);

/// The most bytes of one that is read: a forwarder names at most a few chains.
pub(super) const MAX_LEN: usize = 64 << 10;

/// The most chains that one may name.
pub(super) const MAX_CHAINS: usize = 256;

/// What a sign of life says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    /// The chains that are left out, by their ids, and why.
    pub(super) left_out: BTreeMap<String, String>,
    /// Why the forwarder cannot store anything, while it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// Says it at once, whenever it changes, and again and again.
pub(super) async fn give(client: Client, subject: String, mut said: watch::Receiver<Said>) {
    loop {
        let text = serde_json::to_string(&*said.borrow_and_update());
        // Without a connection it would be said later, and be old.
        if let (Ok(text), State::Connected) = (text, client.connection_state()) {
            drop(client.publish(subject.clone(), text.into()).await);
        }
        if let Ok(Err(_)) = time::timeout(EVERY, said.changed()).await {
            return;
        }
    }
}
