//! Collects and encodes the values of an event in one pass, without allocating once the buffers have grown.

use std::{borrow::Cow, error::Error, fmt, ops::Range};

use tracing_core::{Field, field::Visit};

use super::{
    fields::{self, Ending, FullValue},
    plan::{FieldPlan, Opening, Plan, Role},
    rules::NAMED,
};
use crate::{
    format::{self, Value},
    severity::Severity,
};

/// The most fields under `fields`.
const MAX_FIELDS: usize = 64;

/// The most names of further fields that are listed.
const MAX_OMITTED: usize = 256;

/// The bytes of all values of one event, beyond which less is kept of each further value.
const MAX_VALUES: usize = 1 << 20;

/// The bytes kept of each further value. If every field has that much, a line is full.
const MAX_FURTHER: usize = 1024;

/// The largest buffer that a thread keeps from one event to the next, in bytes.
pub(super) const KEPT_BYTES: usize = 256 * 1024;

/// The position of a member, `,"name":value`, in a buffer, and what happened to its value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MemberSpan {
    pub(super) start: u32,
    /// The position at which the value begins.
    pub(super) value: u32,
    end: u32,
    /// The length of the full name in bytes if the name is cut; else zero.
    pub(super) name_bytes: u32,
    /// Whether a part of the value is missing. [`Values::full_of_cut`] returns what is known of the full value.
    pub(super) cut: bool,
    /// Whether the value is withheld.
    pub(super) redacted: bool,
    /// Whether the event gave the member several times. The last value counts.
    pub(super) repeated: bool,
}

/// Converts a position in a buffer that never grows to 4 GiB.
fn small(position: usize) -> u32 {
    position.try_into().unwrap_or(u32::MAX)
}

impl MemberSpan {
    /// Returns the same span after the buffer's content has moved by a number of bytes.
    pub(super) fn moved(self, by: u32) -> Self {
        Self { start: self.start + by, value: self.value + by, end: self.end + by, ..self }
    }

    /// Returns the same span for a member that begins at `place`.
    pub(super) fn placed_at(self, place: usize) -> Self {
        let start = small(place);
        Self { start, value: start + (self.value - self.start), end: start + (self.end - self.start), ..self }
    }

    /// Returns whether no list of names mentions the member.
    pub(super) fn is_unremarkable(&self) -> bool {
        !(self.cut | self.redacted | self.repeated) && self.name_bytes == 0
    }
}

/// Returns whether the value of a named member, as JSON, is an empty text. Two quotes are one too: `?` prints an empty
/// text like that.
pub(super) fn is_blank(json: &[u8]) -> bool {
    matches!(json, br#""""# | br#""\"\"""#)
}

/// The index of the message, after the members in [`NAMED`].
pub(super) const MESSAGE: usize = NAMED.len();

/// The named members of an event, and the message.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// A bit for each member that is present.
    known: u32,
    /// A bit for each member that is blank.
    empty: u32,
    members: [MemberSpan; NAMED.len() + 1],
}

impl Named {
    /// Returns a bit for each member that is present and not blank.
    pub(super) fn not_blank(&self) -> u32 {
        self.known & !self.empty
    }

    /// Returns a bit for each member that is present.
    pub(super) fn known(&self) -> u32 {
        self.known
    }

    /// Returns a bit for each of the `wanted` members that is missing, and for each member that is blank.
    pub(super) fn incomplete(&self, wanted: u32) -> u32 {
        (wanted & !self.known) | self.empty
    }

    fn has(&self, index: usize) -> bool {
        self.known & (1 << index) != 0
    }

    pub(super) fn get(&self, index: usize) -> Option<&MemberSpan> {
        self.members.get(index).filter(|_| self.known & (1 << index) != 0)
    }

    pub(super) fn set(&mut self, index: usize, member: MemberSpan) {
        if let Some(place) = self.members.get_mut(index) {
            *place = member;
            self.known |= 1 << index;
            self.empty &= !(1 << index);
        }
    }

    /// Returns the members that are present, with their index, in the order of a record.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &MemberSpan)> {
        // Visits the bits that are set, from the lowest.
        let mut left = self.known;
        std::iter::from_fn(move || {
            let index = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            Some((index, self.members.get(index)?))
        })
    }
}

/// A value under `fields`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OtherField {
    pub(super) name: &'static str,
    pub(super) member: MemberSpan,
}

/// A field that found no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Omitted {
    pub(super) name: &'static str,
    pub(super) name_bytes: u32,
    pub(super) full: FullValue,
}

/// The values of an event, encoded, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// The members, one after the other.
    bytes: Vec<u8>,
    pub(super) named: Named,
    pub(super) fields: Vec<OtherField>,
    /// Fields that found no room.
    pub(super) omitted: Vec<Omitted>,
    /// How many further fields found no room, beyond those in that list.
    pub(super) omitted_more: usize,
    /// What is known of the full values of those that are cut, by the positions at which their members begin.
    of_cut: Vec<(u32, FullValue)>,
    /// A bit for each named member that the event or the closure of `enrich` gave, not blank and not inherited.
    pub(super) own: u32,
    pub(super) severity: Option<Severity>,
    /// Whether `severity` was given more than once.
    pub(super) severity_repeated: bool,
    /// Whether its last value was not recognised.
    pub(super) severity_unclear: bool,
    /// Whether a list of names must mention any value. For most events it need not.
    pub(super) is_remarkable: bool,
    /// The position of the target that a record of the `log` crate names.
    log_target: Option<Range<usize>>,
    /// The position of the module that it names.
    log_module: Option<Range<usize>>,
}

impl Values {
    /// Frees the buffer after an unusually large event.
    pub(super) fn shrink(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.named.known = 0;
        self.named.empty = 0;
        self.fields.clear();
        self.omitted.clear();
        self.omitted_more = 0;
        self.of_cut.clear();
        self.own = 0;
        self.severity = None;
        self.severity_repeated = false;
        self.severity_unclear = false;
        self.is_remarkable = false;
        self.log_target = None;
        self.log_module = None;
    }

    /// Returns what is known of the full value, if the value was cut when it was encoded.
    pub(super) fn full_of_cut(&self, member: &MemberSpan) -> Option<FullValue> {
        self.of_cut.iter().find(|(start, _)| member.cut && *start == member.start).map(|(_, full)| *full)
    }

    /// Returns what to record about a value that is not complete in the record. `None` only if the member is not one of these
    /// values.
    pub(super) fn full_value(&self, member: &MemberSpan) -> Option<FullValue> {
        if member.redacted {
            return Some(FullValue { bytes: 0, ending: Ending::Withheld });
        }
        self.full_of_cut(member).or_else(|| self.json(member).map(FullValue::of_json))
    }

    /// Returns how many bytes of a further value are kept.
    #[inline]
    fn limit(&self) -> usize {
        if self.bytes.len() <= MAX_VALUES { fields::MAX_VALUE } else { MAX_FURTHER }
    }

    /// Returns the JSON of a value. `None` only if the member is not one of these values.
    pub(super) fn json(&self, member: &MemberSpan) -> Option<&[u8]> {
        self.bytes(member.value as usize..member.end as usize)
    }

    /// Returns the length of the value's JSON, in bytes.
    pub(super) fn length(member: &MemberSpan) -> usize {
        (member.end - member.value) as usize
    }

    /// Returns the position of the member: its name and its value.
    pub(super) fn range(member: &MemberSpan) -> Range<usize> {
        member.start as usize..member.end as usize
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        self.bytes.get(range)
    }

    /// Returns the target that a record of the `log` crate names.
    #[inline]
    pub(super) fn log_target(&self) -> Option<&str> {
        self.plain(self.log_target.as_ref())
    }

    /// Returns the module that a record of the `log` crate names.
    pub(super) fn log_module(&self) -> Option<&str> {
        self.plain(self.log_module.as_ref())
    }

    #[inline]
    fn plain(&self, range: Option<&Range<usize>>) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(range?.clone())?).ok()
    }

    /// Returns a value as text, if it is one.
    pub(super) fn text(&self, member: &MemberSpan) -> Option<Cow<'_, str>> {
        let json = self.json(member)?;
        let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if inside.contains(&b'\\') {
            return match format::parse_value(json)? {
                Value::Text(text) => Some(Cow::Owned(text)),
                _ => None,
            };
        }
        std::str::from_utf8(inside).ok().map(Cow::Borrowed)
    }

    /// Finds a named member, the message or a field by its name.
    pub(super) fn find(&self, name: &str) -> Option<&MemberSpan> {
        match NAMED.iter().position(|named| *named == name) {
            Some(index) => self.named.get(index),
            None if name == "message" => self.named.get(MESSAGE),
            None => self.fields.iter().find(|field| field.name == name).map(|field| &field.member),
        }
    }

    /// Returns whether the event has a field of this name, even if it found no room.
    pub(super) fn has_field(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
            || self.omitted.iter().any(|omitted| omitted.name == name)
    }

    /// Removes a named member that was inherited, so that it can be replaced.
    pub(super) fn forget(&mut self, index: usize) {
        self.named.known &= !(1 << index);
        self.named.empty &= !(1 << index);
    }

    /// Adds a value from a span, unless the event or a nearer span has one of that name. `bytes` is the whole member.
    pub(super) fn inherit(
        &mut self,
        role: Role,
        name: &'static str,
        member: &MemberSpan,
        bytes: &[u8],
        full: Option<Box<FullValue>>,
    ) {
        let is_known = match role {
            Role::Named(index) => self.named.has(index),
            _ => self.has_field(name),
        };
        if is_known {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.put(role, name, member.placed_at(start), full);
    }

    /// Adds all members of one or several spans at once, if the event has none of them. Returns whether it did.
    ///
    /// `known` has a bit for each of `members`. All must be named members, not blank and unremarkable.
    pub(super) fn inherit_all(&mut self, known: u32, members: &[(usize, MemberSpan)], bytes: &[u8]) -> bool {
        if self.named.known & known != 0 {
            return false;
        }
        let start = small(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.named.known |= known;
        for (index, member) in members {
            if let Some(place) = self.named.members.get_mut(*index) {
                *place = member.moved(start);
            }
        }
        true
    }

    /// Adds a text that needs neither escapes nor cutting, on a fast path. Returns whether it did.
    fn put_text(&mut self, opening: &Opening, name: &'static str, text: &str) -> bool {
        let start = self.bytes.len();
        let behind = start + opening.length;
        // Copying all 16 bytes and cutting them is faster than copying the exact length.
        self.bytes.extend_from_slice(&opening.bytes);
        self.bytes.truncate(behind);
        let limit = self.limit();
        if !fields::plain_text(&mut self.bytes, text, limit) {
            self.bytes.truncate(start);
            return false;
        }
        let end = small(self.bytes.len());
        let member =
            MemberSpan { start: small(start), value: small(behind) - 1, end, ..MemberSpan::default() };
        if self.named.has(opening.index) {
            self.put(Role::Named(opening.index), name, member, None);
        } else {
            self.named.set(opening.index, member);
        }
        true
    }

    /// Registers a value that was just encoded, by its role.
    #[inline(never)]
    fn put(&mut self, role: Role, name: &'static str, mut member: MemberSpan, full: Option<Box<FullValue>>) {
        member.cut = full.is_some();
        if let Some(full) = full {
            self.of_cut.push((member.start, *full));
        }
        self.is_remarkable |= !member.is_unremarkable();
        if let Role::Named(index) = role {
            // The last value counts. The earlier one stays in the buffer, but no member refers to it.
            let is_known = self.named.get(index).is_some();
            member.repeated |= is_known;
            self.is_remarkable |= is_known;
            self.named.set(index, member);
            // No blank value has more than 6 bytes, so most texts need no comparison.
            if Self::length(&member) <= 6 && self.json(&member).is_some_and(is_blank) {
                self.named.empty |= 1 << index;
            }
            return;
        }
        if let Some(field) = self.fields.iter_mut().find(|field| field.name == name) {
            field.member = MemberSpan { repeated: true, ..member };
            self.is_remarkable = true;
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.push(OtherField { name, member });
        } else {
            self.omit(name, &member);
        }
    }

    /// Removes the value that was encoded last, and keeps only what is known of it.
    fn omit(&mut self, name: &'static str, member: &MemberSpan) {
        self.is_remarkable = true;
        // Read before the value is removed.
        let Some(full) = self.full_value(member) else { return };
        self.bytes.truncate(member.start as usize);
        self.of_cut.retain(|(start, _)| *start < member.start);
        if let Some(known) = self.omitted.iter_mut().find(|omitted| omitted.name == name) {
            known.full = full;
        } else if self.omitted.len() < MAX_OMITTED {
            self.omitted.push(Omitted { name, name_bytes: member.name_bytes, full });
        } else {
            self.omitted_more += 1;
        }
    }
}

/// A visitor that encodes the fields of an event or span.
pub(super) struct Visitor<'a> {
    pub(super) plan: &'a Plan,
    pub(super) values: &'a mut Values,
}

impl Visitor<'_> {
    /// Encodes a number or a boolean, which is never cut.
    fn plain(&mut self, field: &Field, encode: impl FnOnce(&mut Vec<u8>)) {
        self.value(field, |out, _| {
            encode(out);
            None
        });
    }

    fn value(&mut self, field: &Field, encode: impl FnOnce(&mut Vec<u8>, usize) -> Option<Box<FullValue>>) {
        if let Some(plan) = self.plan.field(field.index()) {
            self.planned(plan, encode);
        }
    }

    /// Encodes a value by the plan for its field.
    #[inline]
    pub(super) fn planned(
        &mut self,
        plan: &FieldPlan,
        encode: impl FnOnce(&mut Vec<u8>, usize) -> Option<Box<FullValue>>,
    ) {
        match plan.role {
            Role::Spent | Role::LogTarget | Role::LogModule => {}
            Role::Severity => self.severity(plan, encode),
            role => {
                let (member, full) = self.encode(plan, plan.redacted, encode);
                self.values.put(role, plan.name, member, full);
            }
        }
    }

    fn encode(
        &mut self,
        plan: &FieldPlan,
        redacted: bool,
        encode: impl FnOnce(&mut Vec<u8>, usize) -> Option<Box<FullValue>>,
    ) -> (MemberSpan, Option<Box<FullValue>>) {
        let limit = self.values.limit();
        let bytes = &mut self.values.bytes;
        let start = small(bytes.len());
        bytes.extend_from_slice(&plan.start);
        let value = bytes.len();
        let full = if redacted { fields::text(bytes, "[redacted]", limit) } else { encode(bytes, limit) };
        // Each named member has one type in all records, so a number is written as a text.
        if matches!(plan.role, Role::Named(_)) && bytes.get(value) != Some(&b'"') {
            bytes.insert(value, b'"');
            bytes.push(b'"');
        }
        let (value, end, name_bytes) = (small(value), small(bytes.len()), plan.name_bytes);
        (MemberSpan { start, value, end, name_bytes, cut: false, redacted, repeated: false }, full)
    }

    /// Encodes the field `severity`. If its value is exactly the name of a severity, the record's own `severity` says the
    /// same, and the field is dropped. Any other value, another word for a severity included, is also kept as a field.
    ///
    /// The value is formatted even if it must be withheld, because it may name a severity.
    fn severity(
        &mut self,
        plan: &FieldPlan,
        encode: impl FnOnce(&mut Vec<u8>, usize) -> Option<Box<FullValue>>,
    ) {
        let (member, full) = self.encode(plan, false, encode);
        let said = self.values.text(&member).and_then(|said| Severity::understand(&said));
        let (named, is_used_up) = said.map_or((None, false), |(severity, is_name)| (Some(severity), is_name));
        if self.values.severity.is_some() {
            self.values.severity_repeated = true;
            self.values.is_remarkable = true;
        }
        self.values.severity = named.or(self.values.severity);
        self.values.severity_unclear = named.is_none();
        if is_used_up {
            self.values.bytes.truncate(member.start as usize);
        } else if plan.redacted {
            self.values.bytes.truncate(member.start as usize);
            let (member, full) = self.encode(plan, true, |_, _| None);
            self.values.put(Role::Field, plan.name, member, full);
        } else {
            self.values.put(Role::Field, plan.name, member, full);
        }
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plan = self.plan;
        let Some(plan) = plan.field(field.index()) else { return };
        if let Some(opening) = &plan.opening
            && self.values.put_text(opening, plan.name, value)
        {
            return;
        }
        let origin = match plan.role {
            Role::LogTarget => &mut self.values.log_target,
            Role::LogModule => &mut self.values.log_module,
            _ => return self.planned(plan, |out, limit| fields::text(out, value, limit)),
        };
        let start = self.values.bytes.len();
        let value = fields::start_of(value, fields::MAX_VALUE);
        *origin = Some(start..start + value.len());
        self.values.bytes.extend_from_slice(value.as_bytes());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, |out| fields::boolean(out, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, |out| fields::integer(out, value, value.unsigned_abs()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, |out| fields::integer(out, value, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        let magnitude = value.unsigned_abs().try_into().unwrap_or(u64::MAX);
        self.plain(field, |out| fields::integer(out, value, magnitude));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let magnitude = value.try_into().unwrap_or(u64::MAX);
        self.plain(field, |out| fields::integer(out, value, magnitude));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field, |out| fields::float(out, value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.value(field, |out, limit| fields::bytes(out, value, limit));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.value(field, |out, limit| fields::error(out, value, limit));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, |out, limit| fields::debug(out, value, limit));
    }
}
