//! Puts the values of an event in the order in which they stand in a record, and sees that they fit.

use tracing_core::Level;

use super::{
    event::{Entry, Piece, Values},
    fields::{MAX_VALUE, whole_length},
    rules::{ACTION, ACTOR, NAMED},
};
use crate::{
    clock::Timestamp,
    format::{Beginning, MAX_PAYLOAD, Payload, escape_into},
    severity::Severity,
};

/// The longest list of names, in bytes as it stands in the line.
const MAX_LIST: usize = 4096;

/// Values are not shortened below this before whole fields go.
const MIN_VALUE: usize = 64;

/// What is known of an event beside its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) at: Timestamp,
    pub(super) severity: Severity,
    pub(super) level: Level,
    /// The members `target` and `module`.
    pub(super) origin: &'a [u8],
    /// Whether spans far out were not looked at.
    pub(super) spans_omitted: bool,
}

/// Writes the payload of an event, never longer than what fits a line. `None` only if a piece is not of
/// `values`: the event is lost then, which is told, rather than recorded in part, which nobody would see.
pub(super) fn write(
    out: &mut Vec<u8>,
    beginning: &mut Beginning,
    facts: &Facts<'_>,
    values: &Values,
) -> Option<()> {
    let mut limits = Limits { value: MAX_VALUE, fields: values.fields.len() };
    loop {
        out.clear();
        let may_cut = values.total() > limits.value;
        Writer { values, limits, may_cut, facts }.write(out, beginning)?;
        if out.len() <= MAX_PAYLOAD {
            return Some(());
        }
        // Long values give way first, all alike; short ones stay whole.
        if limits.value > MIN_VALUE {
            limits.value /= 2;
        } else {
            limits.fields /= 2;
        }
    }
}

/// The members `severity` and `level`.
fn head(severity: Severity, level: Level) -> &'static str {
    macro_rules! of {
        ($severity:literal) => {
            match level {
                Level::ERROR => concat!(",\"severity\":\"", $severity, "\",\"level\":\"ERROR\""),
                Level::WARN => concat!(",\"severity\":\"", $severity, "\",\"level\":\"WARN\""),
                Level::INFO => concat!(",\"severity\":\"", $severity, "\",\"level\":\"INFO\""),
                Level::DEBUG => concat!(",\"severity\":\"", $severity, "\",\"level\":\"DEBUG\""),
                Level::TRACE => concat!(",\"severity\":\"", $severity, "\",\"level\":\"TRACE\""),
            }
        };
    }
    match severity {
        Severity::Critical => of!("critical"),
        Severity::Routine => of!("routine"),
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    value: usize,
    fields: usize,
}

struct Writer<'a> {
    values: &'a Values,
    limits: Limits,
    /// Whether any value can be too long.
    may_cut: bool,
    facts: &'a Facts<'a>,
}

impl Writer<'_> {
    fn write(&self, out: &mut Vec<u8>, beginning: &mut Beginning) -> Option<()> {
        let members = head(self.facts.severity, self.facts.level);
        let mut payload = beginning.write(out, self.facts.at, members);
        self.copy(payload.members(b""), self.values.named.iter().map(|(_, piece)| piece))?;
        payload.members(self.facts.origin);
        let fields = self.fields();
        if fields.len() > 0 {
            let out = payload.members(b",\"fields\":");
            let start = out.len();
            self.copy(out, fields.map(|entry| &entry.piece))?;
            // The comma in front of the first becomes the brace.
            if let Some(first) = out.get_mut(start) {
                *first = b'{';
            }
            out.push(b'}');
        }
        self.lists(&mut payload);
        Some(())
    }

    /// The named members and the message, those that there are.
    fn members(&self) -> impl Iterator<Item = (&'static str, &Piece)> {
        self.values.named.iter().map(|(index, piece)| (*NAMED.get(index).unwrap_or(&"message"), piece))
    }

    fn fields(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.values.fields.iter().take(self.limits.fields)
    }

    /// Appends members. What stands in this order already is copied in one piece.
    fn copy<'p>(&self, out: &mut Vec<u8>, pieces: impl Iterator<Item = &'p Piece>) -> Option<()> {
        let mut run = 0..0;
        for piece in pieces {
            let member = Values::member(piece);
            if self.is_too_long(piece) {
                out.extend_from_slice(self.values.bytes(run)?);
                run = 0..0;
                self.cut(out, piece)?;
            } else if member.start == run.end {
                run.end = member.end;
            } else {
                out.extend_from_slice(self.values.bytes(run)?);
                run = member;
            }
        }
        out.extend_from_slice(self.values.bytes(run)?);
        Some(())
    }

    /// Appends a member whose value is too long. Only texts are that long.
    fn cut(&self, out: &mut Vec<u8>, piece: &Piece) -> Option<()> {
        let member = self.values.bytes(Values::member(piece))?;
        let (start, inside) = member.split_at_checked(member.len() - Values::length(piece) + 1)?;
        out.extend_from_slice(start);
        out.extend_from_slice(inside.get(..whole_length(inside, self.limits.value))?);
        out.push(b'"');
        Some(())
    }

    fn is_too_long(&self, piece: &Piece) -> bool {
        self.may_cut && Values::length(piece) > self.limits.value + 2
    }

    fn lists(&self, payload: &mut Payload<'_>) {
        let is_missing = |index: &usize| self.values.named.get(*index).is_none();
        let missing = [ACTION, ACTOR].into_iter().filter(is_missing);
        let missing = missing.filter_map(|index| NAMED.get(index).copied());
        let unclear = self.values.severity_unclear.then_some("severity");
        list(payload, "incomplete", missing.chain(unclear));

        let is_shortened = self.limits.value < MAX_VALUE || self.limits.fields < self.values.fields.len();
        if !self.values.is_remarkable && !is_shortened && !self.facts.spans_omitted {
            return;
        }
        let is_cut = |piece: &Piece| piece.cut || self.is_too_long(piece);
        let cut = self.all().filter(|(_, piece)| is_cut(piece)).map(|(name, _)| name);
        let unwritten = self.values.fields.iter().skip(self.limits.fields).map(|entry| entry.name);
        let unwritten = unwritten.chain(self.values.omitted.iter().copied());
        let spans = self.facts.spans_omitted.then_some("spans");
        list(payload, "truncated", cut.chain(unwritten).chain(spans));

        list(payload, "redacted", self.all().filter(|(_, piece)| piece.redacted).map(|(name, _)| name));

        // What it was called may stand under `fields` as well.
        let severity = self.values.severity_repeated.then_some("severity");
        let is_repeated = |(name, piece): &(&str, &Piece)| piece.repeated && severity != Some(*name);
        let repeated = self.all().filter(is_repeated).map(|(name, _)| name);
        list(payload, "repeated", repeated.chain(severity));
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &Piece)> {
        self.members().chain(self.fields().map(|entry| (entry.name, &entry.piece)))
    }
}

/// Adds a member that lists names. It is not there when there are none.
fn list<'n>(payload: &mut Payload<'_>, member: &str, names: impl Iterator<Item = &'n str>) {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return;
    }
    let out = payload.name(member);
    let start = out.len();
    for name in names {
        out.push(if out.len() == start { b'[' } else { b',' });
        // The names that find no room are one ellipsis.
        let is_full = out.len() - start > MAX_LIST;
        out.push(b'"');
        escape_into(out, if is_full { "…" } else { name });
        out.push(b'"');
        if is_full {
            break;
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_and_level_stand_in_one_piece() {
        for severity in [Severity::Critical, Severity::Routine] {
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                let expected = format!(",\"severity\":\"{severity}\",\"level\":\"{level}\"");
                assert_eq!(head(severity, level), expected);
            }
        }
    }
}
