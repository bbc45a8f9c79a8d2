//! Verifies the stream: each chain, from its lines.

use std::time::Duration;

use super::{
    feed::{Read, Reader},
    session::Bounds,
    url::Target,
    wire::Prefix,
};
use crate::{
    copy::{CopyChecker, CopyReport},
    sink::SinkError,
};

/// How many messages are taken at once.
const AT_ONCE: usize = 1_000;

pub(super) fn verify(
    target: &Target,
    prefix: &Prefix,
    bounds: Bounds,
    mut checker: CopyChecker,
) -> Result<CopyReport, SinkError> {
    let mut reader = Reader::new(target.clone(), prefix.clone(), bounds, true);
    let last = reader.state()?.last;
    let mut left = reader.start(1)?;
    while left > 0 {
        let messages = reader.next(AT_ONCE, Duration::from_secs(1))?;
        // The rest was deleted in the meantime.
        if messages.is_empty() && reader.is_at_end() {
            break;
        }
        for message in messages {
            left = message.left;
            if message.place > last {
                left = 0;
                break;
            }
            match message.what {
                Read::Line { chain_id, line, .. } => checker.line(&chain_id, &line),
                Read::Gap { gap, .. } => checker.gap(&gap),
                // Only forwarders should publish under the prefix.
                Read::Stranger { subject, payload } => checker.line(&subject, &payload),
            }
        }
    }
    Ok(checker.finish())
}
