//! Records that callers were told are not confirmed.

use serde_json::Value as Json;

use super::{ChainId, RecordKind, control::detail};
use crate::{clock::Timestamp, segment_name::ChainNumber};

/// Why a caller was told that a record is not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotConfirmed {
    /// The wait bound had passed.
    Timeout,
    /// The call did not wait, because an earlier wait had reached the wait bound.
    Stalled,
    /// The call did not wait, because no segment could be written to.
    Failing,
    /// The call did not wait, because another event of the same `confirm` was lost.
    Lost,
}

impl NotConfirmed {
    /// All reasons, in the order of their declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Timeout, Self::Stalled, Self::Failing, Self::Lost];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Failing => "failing",
            Self::Lost => "lost",
        }
    }
}

/// Records that are durable although a caller was told that they are not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unconfirmed {
    pub(crate) reason: String,
    /// Ranges of sequence numbers, from the first to the last.
    pub(crate) records: Vec<(u64, u64)>,
    /// The chain of the records, if it is not the chain of this record.
    pub(crate) chain: Option<(ChainNumber, ChainId)>,
}

/// A number of ranges that always fits one line.
pub(crate) const MAX_RANGES: usize = 1000;

impl Unconfirmed {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Unconfirmed, |object| {
            object.text("reason", &self.reason);
            if let Some((chain, id)) = self.chain {
                object.text("chain", &chain.to_string());
                object.text("id", &id.to_string());
            }
            let ranges: Vec<String> =
                self.records.iter().map(|(first, last)| format!("[{first},{last}]")).collect();
            object.raw("records", &format!("[{}]", ranges.join(",")));
        })
    }
}

/// Parses the object of an `unconfirmed` record.
pub(crate) fn read_unconfirmed(detail: &[u8]) -> Option<Unconfirmed> {
    let json: Json = serde_json::from_slice(detail).ok()?;
    let records = json.get("records")?.as_array()?.iter().map(|range| {
        let (first, last) = (range.get(0)?.as_u64()?, range.get(1)?.as_u64()?);
        (range.as_array()?.len() == 2 && 1 <= first && first <= last).then_some((first, last))
    });
    let chain = match json.get("chain") {
        Some(chain) => {
            Some((ChainNumber::parse(chain.as_str()?)?, ChainId::parse(json.get("id")?.as_str()?)?))
        }
        None => None,
    };
    Some(Unconfirmed {
        reason: json.get("reason")?.as_str()?.to_owned(),
        records: records.collect::<Option<_>>()?,
        chain,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::LineParser, *};
    use crate::chain::Digest;

    #[test]
    fn a_refusal_survives_the_round_trip_and_the_longest_fits_a_line() {
        for chain in [None, Some((ChainNumber::FIRST, ChainId(7)))] {
            let records = vec![(1, 2), (u64::MAX, u64::MAX)];
            let refused = Unconfirmed { reason: "timeout".into(), records, chain };
            let mut line = Vec::new();
            super::super::seal(
                &mut line,
                1,
                &refused.payload(Timestamp::from_unix(0, 0)),
                None,
                &Digest::ZERO,
            );
            line.pop();
            assert_eq!(
                read_unconfirmed(LineParser::default().parse(&line).unwrap().detail.unwrap()),
                Some(refused)
            );
        }
        let most = vec![(u64::MAX, u64::MAX); MAX_RANGES];
        let refused = Unconfirmed { reason: "failing".into(), records: most, chain: None };
        assert!(refused.payload(Timestamp::from_unix(0, 0)).len() < super::super::MAX_PAYLOAD);
    }
}
