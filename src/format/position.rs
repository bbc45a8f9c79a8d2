//! What the store of a forwarder has: the file `control/forward-<name>`, as `tracing-audit-forward` writes it.

use std::collections::BTreeMap;

use super::{ChainId, Value, parse_object};
use crate::chain::Head;

/// The version of the file.
const FORMAT: u64 = 1;

/// Up to which record of each chain a store has everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    chains: BTreeMap<String, u64>,
}

impl Position {
    /// Reads the file; `None` where it is no position, or one of another format. Unknown members are accepted.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let file = parse_object(bytes)?;
        if file.get("format")?.as_u64()? != FORMAT {
            return None;
        }
        let Value::Object(chains) = file.get("chains")? else { return None };
        let chains = chains.iter().map(|(id, chain)| Some((id.clone(), complete_through(chain)?)));
        Some(Self { chains: chains.collect::<Option<_>>()? })
    }

    /// Up to which record the store has all of a chain; 0: not even the first.
    pub(crate) fn through(&self, id: ChainId) -> u64 {
        self.chains.get(&id.to_string()).copied().unwrap_or_default()
    }
}

/// What is written of one chain: `chain`, `seq` and `hash` name the last record that was acknowledged, `asked` up to which
/// record the store said itself that it has it, where it can be asked, and `refused` the first record that it did not take.
/// `None` where the forwarder would not understand it either.
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

    /// What `tracing-audit-forward` wrote, byte for byte. Its own tests read what it writes; where its format changes,
    /// this must too.
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
    fn what_a_forwarder_wrote_is_read() {
        let position = Position::parse(WRITTEN.as_bytes()).unwrap();
        assert_eq!(position.through(FIRST), 8, "the record before the one that was refused");
        assert_eq!(position.through(SECOND), 5);
        assert_eq!(position.through(ChainId(1)), 0);
    }

    #[test]
    fn a_refused_record_behind_the_last_one_limits_nothing() {
        let position = Position::parse(WRITTEN.replace("\"refused\": 9", "\"refused\": 43").as_bytes());
        assert_eq!(position.unwrap().through(FIRST), 42);
        let position = Position::parse(WRITTEN.replace("\"refused\": 9", "\"refused\": 0").as_bytes());
        assert_eq!(position.unwrap().through(FIRST), 0);
    }

    #[test]
    fn what_the_store_did_not_say_itself_is_not_believed() {
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
    fn what_a_forwarder_would_not_understand_is_no_position() {
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
