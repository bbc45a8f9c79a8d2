//! The progress of a forwarder's store: the file `control/forward-<name>`, as `tracing-audit-forward` writes it.

use std::collections::BTreeMap;

use super::{ChainId, Value, parse_object};
use crate::chain::Head;

/// The version of the file format.
const FORMAT: u64 = 1;

/// The last record of each chain up to which a store has everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    chains: BTreeMap<String, u64>,
}

impl Position {
    /// Parses the file. Returns `None` if it is not a position file, or is of another format. Unknown members are
    /// ignored.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let file = parse_object(bytes)?;
        if file.get("format")?.as_u64()? != FORMAT {
            return None;
        }
        let Value::Object(chains) = file.get("chains")? else { return None };
        let chains = chains.iter().map(|(id, chain)| Some((id.clone(), complete_through(chain)?)));
        Some(Self { chains: chains.collect::<Option<_>>()? })
    }

    /// Returns the last record of a chain up to which the store has everything; 0 if it does not even have the first.
    pub(crate) fn through(&self, id: ChainId) -> u64 {
        self.chains.get(&id.to_string()).copied().unwrap_or_default()
    }
}

/// Returns up to which record the store has everything of one chain. `chain`, `seq` and `hash` name the last record
/// that was acknowledged. `asked` is the last record that the store itself reported to have, if it can be asked.
/// `refused` is the first record that it did not accept. Returns `None` where the forwarder would not parse it either.
fn complete_through(chain: &Value) -> Option<u64> {
    let Value::Object(members) = chain else { return None };
    let text = |name: &str| members.get(name)?.as_str();
    let seq = members.get("seq")?.as_u64()?;
    let last = format!("{}/{seq}:{}", text("chain")?, text("hash")?);
    last.parse::<Head>().ok()?;
    let number = |name: &str| match members.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(number) => number.as_u64().map(Some),
    };
    let refused = number("refused")?.map_or(u64::MAX, |refused| refused.saturating_sub(1));
    Some(seq.min(refused).min(number("asked")?.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ChainId = ChainId(0xAAAA_AAAA_AAAA_AAAA_AAAA_AAAA_AAAA_AAAA);
    const SECOND: ChainId = ChainId(0xBBBB_BBBB_BBBB_BBBB_BBBB_BBBB_BBBB_BBBB);

    /// A file that `tracing-audit-forward` wrote, byte for byte. Its own tests read what it writes; if its format
    /// changes, this must change too.
    const WRITTEN: &str = r#"{
  "format": 1,
  "chains": {
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": {
      "chain": "000",
      "seq": 42,
      "hash": "abababababababababababababababababababababababababababababababab",
      "from": "000/7:abababababababababababababababababababababababababababababababab",
      "refused": 9
    },
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb": {
      "chain": "001",
      "seq": 5,
      "hash": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
    }
  }
}
"#;

    #[test]
    fn a_file_of_a_forwarder_is_parsed() {
        let position = Position::parse(WRITTEN.as_bytes()).unwrap();
        assert_eq!(position.through(FIRST), 8, "the record before the one that was refused");
        assert_eq!(position.through(SECOND), 5);
        assert_eq!(position.through(ChainId(1)), 0);
    }

    #[test]
    fn a_refused_record_behind_the_last_one_has_no_effect() {
        let position = Position::parse(WRITTEN.replace("\"refused\": 9", "\"refused\": 43").as_bytes());
        assert_eq!(position.unwrap().through(FIRST), 42);
        let position = Position::parse(WRITTEN.replace("\"refused\": 9", "\"refused\": 0").as_bytes());
        assert_eq!(position.unwrap().through(FIRST), 0);
    }

    #[test]
    fn an_acknowledgement_counts_only_once_the_store_reports_it() {
        for (asked, through) in [("4", 4), ("0", 0), ("5", 5), ("9", 5), ("null", 5)] {
            let with = format!("\"seq\": 5, \"asked\": {asked}");
            let position = Position::parse(WRITTEN.replace("\"seq\": 5", &with).as_bytes());
            assert_eq!(position.unwrap().through(SECOND), through, "{asked}");
        }
        let with = "\"refused\": 9, \"asked\": 7";
        let position = Position::parse(WRITTEN.replace("\"refused\": 9", with).as_bytes());
        assert_eq!(position.unwrap().through(FIRST), 7);
    }

    #[test]
    fn a_file_that_a_forwarder_would_not_parse_is_not_a_position() {
        for (from, to) in [
            ("\"format\": 1", "\"format\": 2"),
            ("\"format\": 1,", ""),
            ("\"chains\"", "\"other\""),
            ("\"seq\": 5", "\"seq\": -5"),
            ("\"seq\": 5", "\"seq\": \"5\""),
            ("\"seq\": 5,", ""),
            ("cd", "c"),
            ("\"001\"", "\"1\""),
            ("\"refused\": 9", "\"refused\": \"9\""),
            ("\"refused\": 9", "\"asked\": \"9\""),
            ("\"refused\": 9", "\"asked\": -1"),
            ("}\n}\n", "}\n"),
        ] {
            assert_eq!(Position::parse(WRITTEN.replace(from, to).as_bytes()), None, "{from} {to}");
        }
        for bytes in ["", "[]", "null", "{}"] {
            assert_eq!(Position::parse(bytes.as_bytes()), None, "{bytes}");
        }
        assert_eq!(Position::parse(&[0; 100]), None);
    }
}
