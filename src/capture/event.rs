//! From an event to its values: one pass, nothing allocated once the buffers have grown.

use std::{borrow::Cow, error::Error, fmt, ops::Range};

use tracing_core::{Field, field::Visit};

use super::{
    fields,
    plan::{FieldPlan, Plan, Role},
    rules::NAMED,
};
use crate::{Severity, Value, format};

/// How many fields stand under `fields` at most.
const MAX_FIELDS: usize = 64;

/// How many names of fields beyond that are listed at most.
const MAX_OMITTED: usize = 256;

/// All values of one event together, in bytes, before a single one is shortened further.
const MAX_VALUES: usize = 1 << 20;

/// How large a buffer a thread keeps from one event to the next.
pub(super) const KEPT_BYTES: usize = 256 * 1024;

/// A value of an event: where its member stands, `,"name":value`, and what happened to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    start: u32,
    /// Where the value begins.
    value: u32,
    end: u32,
    pub(super) cut: bool,
    pub(super) redacted: bool,
    pub(super) repeated: bool,
}

/// A position in a buffer that never grows to 4 GiB.
fn small(position: usize) -> u32 {
    position.try_into().unwrap_or(u32::MAX)
}

/// A value under `fields`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) piece: Piece,
}

/// What an event says, encoded, before it is put in order.
#[derive(Debug, Default)]
pub(super) struct Values {
    bytes: Vec<u8>,
    pub(super) named: [Option<Piece>; NAMED.len()],
    pub(super) message: Option<Piece>,
    pub(super) fields: Vec<Entry>,
    /// Fields that found no room.
    pub(super) omitted: Vec<&'static str>,
    pub(super) severity: Option<Severity>,
    /// Whether `severity` was given more than once.
    pub(super) severity_repeated: bool,
    /// Whether anything happened to any value that a list of names tells. Mostly nothing did.
    pub(super) is_remarkable: bool,
    log_target: Option<Range<usize>>,
    log_module: Option<Range<usize>>,
}

impl Values {
    /// Gives back what an unusually large event needed.
    pub(super) fn shrink(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.named = [None; NAMED.len()];
        self.message = None;
        self.fields.clear();
        self.omitted.clear();
        self.severity = None;
        self.severity_repeated = false;
        self.is_remarkable = false;
        self.log_target = None;
        self.log_module = None;
    }

    /// The JSON of a value.
    pub(super) fn json(&self, piece: &Piece) -> &[u8] {
        self.bytes(piece.value as usize..piece.end as usize)
    }

    /// How many bytes the value has.
    pub(super) fn length(piece: &Piece) -> usize {
        (piece.end - piece.value) as usize
    }

    /// Where the member stands: the value behind its name.
    pub(super) fn member(piece: &Piece) -> Range<usize> {
        piece.start as usize..piece.end as usize
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The target that a record of the `log` crate names.
    pub(super) fn log_target(&self) -> Option<&str> {
        self.plain(self.log_target.as_ref())
    }

    /// The module that a record of the `log` crate names.
    pub(super) fn log_module(&self) -> Option<&str> {
        self.plain(self.log_module.as_ref())
    }

    fn plain(&self, range: Option<&Range<usize>>) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(range?.clone())?).ok()
    }

    /// A value as text, if it is one.
    pub(super) fn text(&self, piece: &Piece) -> Option<Cow<'_, str>> {
        let inside = self.json(piece).strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if inside.contains(&b'\\') {
            return match format::parse_value(self.json(piece))? {
                Value::Text(text) => Some(Cow::Owned(text)),
                _ => None,
            };
        }
        std::str::from_utf8(inside).ok().map(Cow::Borrowed)
    }

    /// The value of a field by its name, wherever it stands in the record.
    pub(super) fn find(&self, name: &str) -> Option<&Piece> {
        match NAMED.iter().position(|named| *named == name) {
            Some(index) => self.named.get(index)?.as_ref(),
            None if name == "message" => self.message.as_ref(),
            None => self.fields.iter().find(|entry| entry.name == name).map(|entry| &entry.piece),
        }
    }

    /// Takes over what the nearest span around the event says, where the event itself and nearer
    /// spans say nothing. `member` is what `piece` is of in that span.
    pub(super) fn inherit(&mut self, role: Role, name: &'static str, piece: &Piece, member: &[u8]) {
        let is_known = match role {
            Role::Named(index) => self.named.get(index).is_none_or(Option::is_some),
            _ => self.fields.iter().any(|entry| entry.name == name),
        };
        if is_known {
            return;
        }
        let start = small(self.bytes.len());
        self.bytes.extend_from_slice(member);
        let value = start + (piece.value - piece.start);
        self.put(role, name, Piece { start, value, end: small(self.bytes.len()), ..*piece });
    }

    /// Puts a value that was just encoded where it belongs.
    #[inline]
    fn put(&mut self, role: Role, name: &'static str, piece: Piece) {
        let is_plain = !(piece.cut | piece.redacted | piece.repeated) && Self::length(&piece) != 2;
        match role {
            Role::Named(index) if is_plain && let Some(slot @ None) = self.named.get_mut(index) => {
                *slot = Some(piece);
            }
            _ => self.put_with_care(role, name, piece),
        }
    }

    #[inline(never)]
    fn put_with_care(&mut self, role: Role, name: &'static str, mut piece: Piece) {
        self.is_remarkable |= piece.cut | piece.redacted | piece.repeated;
        let slot = match role {
            Role::Named(index) => self.named.get_mut(index),
            Role::Message => Some(&mut self.message),
            _ => None,
        };
        if let Some(slot) = slot {
            // An empty text says nothing, and must not hide what a span says.
            if piece.end - piece.value == 2 && self.bytes.last() == Some(&b'"') {
                return;
            }
            if slot.is_some() {
                piece.repeated = true;
                self.is_remarkable = true;
            }
            *slot = Some(piece);
            return;
        }
        if let Some(entry) = self.fields.iter_mut().find(|entry| entry.name == name) {
            entry.piece = Piece { repeated: true, ..piece };
            self.is_remarkable = true;
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.push(Entry { name, piece });
        } else {
            self.omit(name);
        }
    }

    fn omit(&mut self, name: &'static str) {
        self.is_remarkable = true;
        if self.omitted.len() < MAX_OMITTED {
            self.omitted.push(name);
        }
    }
}

/// Which fields are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// All of them: it is an event.
    All,
    /// Those that events inherit: it is a span. The others are not even formatted.
    Inherited,
}

/// Encodes the values that it is shown.
pub(super) struct Visitor<'a> {
    pub(super) plan: &'a Plan,
    pub(super) take: Take,
    pub(super) values: &'a mut Values,
}

impl Visitor<'_> {
    fn value(&mut self, field: &Field, encode: impl FnOnce(&mut Vec<u8>) -> bool) {
        if let Some(plan) = self.plan.field(field.index()) {
            self.planned(plan, encode);
        }
    }

    #[inline]
    fn planned(&mut self, plan: &FieldPlan, encode: impl FnOnce(&mut Vec<u8>) -> bool) {
        if self.take == Take::Inherited && !plan.inherited {
            return;
        }
        match plan.role {
            Role::Spent | Role::LogTarget | Role::LogModule => {}
            Role::Field if self.has_no_room(plan.name) => self.values.omit(plan.name),
            Role::Severity => self.severity(plan, encode),
            role => {
                let piece = self.encode(plan, plan.redacted, encode);
                self.values.put(role, plan.name, piece);
            }
        }
    }

    fn has_no_room(&self, name: &str) -> bool {
        self.values.bytes.len() > MAX_VALUES
            || (self.values.fields.len() >= MAX_FIELDS
                && !self.values.fields.iter().any(|entry| entry.name == name))
    }

    fn encode(
        &mut self,
        plan: &FieldPlan,
        redacted: bool,
        encode: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Piece {
        let bytes = &mut self.values.bytes;
        let start = small(bytes.len());
        bytes.extend_from_slice(&plan.start);
        let value = small(bytes.len());
        let cut = if redacted { fields::text(bytes, "[redacted]") } else { encode(bytes) };
        let end = small(bytes.len());
        Piece { start, value, end, cut: cut || plan.cut, redacted, repeated: false }
    }

    /// A field `severity` that names one is used up; any other value is a field like all others.
    fn severity(&mut self, plan: &FieldPlan, encode: impl FnOnce(&mut Vec<u8>) -> bool) {
        let piece = self.encode(plan, false, encode);
        let named = self.values.text(&piece).and_then(|text| Severity::parse(&text.to_ascii_lowercase()));
        match named {
            Some(severity) => {
                self.values.bytes.truncate(piece.start as usize);
                if self.values.severity.is_some() {
                    self.values.severity_repeated = true;
                    self.values.is_remarkable = true;
                }
                self.values.severity = Some(severity);
            }
            None => self.values.put(Role::Field, plan.name, piece),
        }
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plan = self.plan;
        let Some(plan) = plan.field(field.index()) else { return };
        let origin = match plan.role {
            Role::LogTarget => &mut self.values.log_target,
            Role::LogModule => &mut self.values.log_module,
            _ => return self.planned(plan, |out| fields::text(out, value)),
        };
        let start = self.values.bytes.len();
        let value = fields::start_of(value, fields::MAX_VALUE);
        *origin = Some(start..start + value.len());
        self.values.bytes.extend_from_slice(value.as_bytes());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, |out| fields::boolean(out, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, |out| fields::integer(out, value, value.unsigned_abs()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, |out| fields::integer(out, value, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        let magnitude = value.unsigned_abs().try_into().unwrap_or(u64::MAX);
        self.value(field, |out| fields::integer(out, value, magnitude));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let magnitude = value.try_into().unwrap_or(u64::MAX);
        self.value(field, |out| fields::integer(out, value, magnitude));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, |out| fields::float(out, value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.value(field, |out| fields::bytes(out, value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.value(field, |out| fields::error(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, |out| fields::debug(out, value));
    }
}
