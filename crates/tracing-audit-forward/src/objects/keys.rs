//! The layout: the one place that prints and parses keys.
//!
//! A part is named by its number alone. A sender derives the number of the next part from the one before, so
//! two senders with the same view of a chain want the same key, and the store gives it to one of them. If the
//! key contained the records, both could store theirs.

use crate::{origin::Origin, sink::SinkError};

/// Top-level names that cannot be services.
const LIVE: &str = "live";
const PROBE: &str = "probe";

/// The prefix of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    /// Empty, or ends with a `/`.
    prefix: String,
}

/// An object in the directory of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Segment { number: u32, is_compressed: bool },
    Gap { first_seq: u64, last_seq: u64 },
    Manifest { segment: u32 },
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") } }
    }

    /// Checks that the origin does not use a name of the layout.
    pub(super) fn check(origin: &Origin) -> Result<(), SinkError> {
        if [LIVE, PROBE].contains(&origin.service()) {
            let reason = format!("a service in an archive cannot be called {LIVE} or {PROBE}: rename it");
            return Err(SinkError::Setup { reason });
        }
        Ok(())
    }

    /// Returns the top-level directories of what a sink of this log puts.
    pub(super) fn tops(&self, origin: &Origin) -> Vec<String> {
        let own = self.chains(origin, false);
        let service =
            own.strip_prefix(&self.prefix).and_then(|own| own.split('/').next()).unwrap_or_default();
        [LIVE, PROBE, service].map(|name| format!("{}{name}", self.prefix)).to_vec()
    }

    /// Returns the directory of services, for sealed segments or live parts.
    pub(super) fn services(&self, of_live_parts: bool) -> String {
        let Self { prefix } = self;
        if of_live_parts { format!("{prefix}{LIVE}/") } else { prefix.clone() }
    }

    pub(super) fn is_service(name: &str) -> bool {
        ![LIVE, PROBE].contains(&name)
    }

    /// Returns the directory of the chains of a log.
    pub(super) fn chains(&self, origin: &Origin, of_live_parts: bool) -> String {
        format!("{}{origin}/", self.services(of_live_parts))
    }

    /// Returns the directory of a chain, for objects that are never removed.
    pub(super) fn chain(&self, origin: &Origin, id: &str) -> String {
        format!("{}{id}/", self.chains(origin, false))
    }

    /// Returns the directory of the live parts of a chain. It is below one top-level name, so that one
    /// lifecycle rule can cover parts.
    pub(super) fn live(&self, origin: &Origin, id: &str) -> String {
        format!("{}{id}/", self.chains(origin, true))
    }

    pub(super) fn probe(&self, name: &str) -> String {
        format!("{}{PROBE}/{name}", self.prefix)
    }
}

/// Returns the name of a part below the directory of the live parts of a chain.
pub(super) fn part(segment: u32, number: u32) -> String {
    format!("{segment:08}/{number:08}.jsonl")
}

/// Returns a name that sorts after the parts of a segment, and before those of the next one.
pub(super) fn behind_parts(segment: u32) -> String {
    format!("{segment:08}/~")
}

/// Returns a name that sorts after a sealed segment, and before the next one.
pub(super) fn behind_segment(segment: u32) -> String {
    format!("{segment:08}.~")
}

/// Parses the name of a part.
pub(super) fn parse_part(name: &str) -> Option<(u32, u32)> {
    let (segment, number) = name.strip_suffix(".jsonl")?.split_once('/')?;
    let parsed = (segment.parse().ok()?, number.parse().ok()?);
    (part(parsed.0, parsed.1) == name && parsed.1 > 0).then_some(parsed)
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment { number, is_compressed: true } => write!(f, "{number:08}.jsonl.zst"),
            Self::Segment { number, is_compressed: false } => write!(f, "{number:08}.jsonl"),
            Self::Gap { first_seq, last_seq } => write!(f, "gap-{first_seq:020}-{last_seq:020}.json"),
            Self::Manifest { segment } => write!(f, "manifest-{segment:08}.json"),
        }
    }
}

impl Name {
    /// Sorts before all gaps, and before all manifests.
    pub(super) const BEFORE_GAPS: &str = "gap-";
    pub(super) const BEFORE_MANIFESTS: &str = "manifest-";

    /// Returns whether a segment of this name or key is compressed.
    pub(super) fn is_compressed(name: &str) -> bool {
        name.rsplit_once('.').is_some_and(|(_, ending)| ending == "zst")
    }

    /// Parses a name; `None` if this version would not write it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name = if let Some(rest) = text.strip_prefix(Self::BEFORE_MANIFESTS) {
            Self::Manifest { segment: rest.strip_suffix(".json")?.parse().ok()? }
        } else if let Some(rest) = text.strip_prefix(Self::BEFORE_GAPS) {
            let (first, last) = rest.strip_suffix(".json")?.split_once('-')?;
            Self::Gap { first_seq: first.parse().ok()?, last_seq: last.parse().ok()? }
        } else {
            let (number, ending) = text.split_once('.')?;
            Self::Segment { number: number.parse().ok()?, is_compressed: ending == "jsonl.zst" }
        };
        (name.to_string() == text).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_written_are_parsed() {
        for text in [
            "00000001.jsonl",
            "00000012.jsonl.zst",
            "gap-00000000000000000001-00000000000000000009.json",
            "manifest-00000003.json",
        ] {
            assert_eq!(Name::parse(text).unwrap().to_string(), text);
        }
        for text in ["1.jsonl", "00000001.json", "+0000001.jsonl", "manifest-3.json", "", "x", "gap-1-2.json"]
        {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        assert_eq!(parse_part("00000002/00000001.jsonl"), Some((2, 1)));
        for text in ["00000002/00000000.jsonl", "2/1.jsonl", "00000002.jsonl", "00000002/00000001.jsonl.zst"]
        {
            assert_eq!(parse_part(text), None, "{text}");
        }
        assert!(part(2, 99_999_999) < behind_parts(2) && behind_parts(2) < part(3, 1));
    }

    #[test]
    fn a_prefix_has_one_slash() {
        let origin = Origin::new("web shop", "n1").unwrap();
        for prefix in ["a/b", "/a/b/", "a/b/"] {
            assert_eq!(Keys::new(prefix).chain(&origin, "f"), "a/b/web%20shop/n1/f/");
        }
        assert_eq!(Keys::new("").live(&origin, "f"), "live/web%20shop/n1/f/");
        Keys::check(&Origin::new("live", "n1").unwrap()).unwrap_err();
    }
}
