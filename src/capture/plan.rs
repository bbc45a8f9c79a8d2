//! Plans what to do with each field of a callsite, once for each thread that reaches it.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ptr,
    rc::Rc,
};

use tracing_core::Metadata;

use super::{
    fields::{self, start_of},
    rules::{BRIDGE, NAMED, Rules, TAG},
    values::MESSAGE,
};
use crate::format::escape_into;

/// The longest name of a field, in bytes.
pub(super) const MAX_NAME: usize = 256;

/// The most plans that a thread keeps. A program with more callsites than that creates them while it runs.
const MAX_PLANS: usize = 4096;

/// The place of a field's value in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The member with this index in [`NAMED`], or the message.
    Named(usize),
    Severity,
    /// Not recorded: the tag, which has served once the event is known to be an audit event, or a span field that no event
    /// inherits.
    Spent,
    /// The target of a record of the `log` crate.
    LogTarget,
    /// The module of a record of the `log` crate.
    LogModule,
    /// Under `fields`.
    Field,
}

/// The plan for one field.
#[derive(Debug)]
pub(super) struct FieldPlan {
    pub(super) role: Role,
    pub(super) name: &'static str,
    /// The beginning of its member: `,"name":`.
    pub(super) start: Box<[u8]>,
    /// The length of the full name in bytes if the name is cut; else zero.
    pub(super) name_bytes: u32,
    pub(super) redacted: bool,
    /// For a named member whose value is not withheld.
    pub(super) opening: Option<Opening>,
}

/// The beginning of a text member: `,"name":"`. 16 bytes are enough for all named members, and copying a fixed length is
/// faster than copying a variable one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) index: usize,
    pub(super) bytes: [u8; 16],
    pub(super) length: usize,
}

impl Opening {
    fn new(index: usize, start: &[u8]) -> Option<Self> {
        let mut bytes = [b'"'; 16];
        bytes.get_mut(..start.len())?.copy_from_slice(start);
        (start.len() < bytes.len()).then_some(Self { index, bytes, length: start.len() + 1 })
    }
}

/// The plan for one callsite.
#[derive(Debug)]
pub(super) struct Plan {
    fields: Box<[FieldPlan]>,
    /// Whether it is a span of which events inherit a field.
    pub(super) has_inherited: bool,
    /// The members `target` and `module`, encoded as in a record.
    pub(super) origin: Box<[u8]>,
    /// The last action of the callsite, as JSON, and whether it is critical. Most callsites have only one action.
    judged: RefCell<(Vec<u8>, bool)>,
}

impl Plan {
    fn new(rules: &Rules, metadata: &'static Metadata<'static>) -> Self {
        let fields: Box<[FieldPlan]> = metadata
            .fields()
            .iter()
            .map(|field| FieldPlan::new(rules, field.name(), Some(metadata)))
            .collect();
        let has_inherited = metadata.is_span() && fields.iter().any(|field| field.role != Role::Spent);
        let mut origin = Vec::new();
        fields::write_origin(&mut origin, metadata.target(), metadata.module_path());
        Self { fields, has_inherited, origin: origin.into(), judged: RefCell::default() }
    }

    pub(super) fn field(&self, index: usize) -> Option<&FieldPlan> {
        self.fields.get(index)
    }

    /// Returns whether an action is critical. `judge` decides if the action differs from the last one.
    pub(super) fn is_critical(&self, action: &[u8], judge: impl FnOnce() -> bool) -> bool {
        // A long one is not cached: the cache stays small.
        if action.len() > MAX_NAME {
            return judge();
        }
        let mut judged = self.judged.borrow_mut();
        let (last, is_critical) = &mut *judged;
        if last != action {
            *is_critical = judge();
            last.clear();
            last.extend_from_slice(action);
        }
        *is_critical
    }
}

impl FieldPlan {
    /// Plans a field of a callsite; without metadata, a field that the application adds to events.
    fn new(rules: &Rules, name: &'static str, metadata: Option<&Metadata<'_>>) -> Self {
        let bridged = metadata.is_some_and(|metadata| metadata.target() == BRIDGE);
        let is_span = metadata.is_some_and(Metadata::is_span);
        // A field named like a keyword arrives with the `r#` of the source.
        let name = name.strip_prefix("r#").unwrap_or(name);
        let role = match name {
            "message" => Role::Named(MESSAGE),
            "severity" => Role::Severity,
            TAG => Role::Spent,
            "log.target" if bridged => Role::LogTarget,
            "log.module_path" if bridged => Role::LogModule,
            "log.file" | "log.line" if bridged => Role::Spent,
            _ => NAMED.iter().position(|named| *named == name).map_or(Role::Field, Role::Named),
        };
        let role = match role {
            // What no event inherits of a span is not even formatted.
            Role::Named(MESSAGE) if is_span => Role::Spent,
            Role::Named(_) | Role::Field if is_span && rules.inherits(name) => role,
            _ if is_span => Role::Spent,
            _ => role,
        };
        let short = start_of(name, MAX_NAME);
        let mut start = b",\"".to_vec();
        escape_into(&mut start, short);
        start.extend_from_slice(b"\":");
        let redacted = rules.redact.covers(name);
        let opening = match role {
            Role::Named(index) if !redacted => Opening::new(index, &start),
            _ => None,
        };
        let is_cut = short.len() < name.len();
        let name_bytes = if is_cut { name.len().try_into().unwrap_or(u32::MAX) } else { 0 };
        Self { role, name: short, start: start.into(), name_bytes, redacted, opening }
    }
}

/// The plans of one thread, for all logs.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: HashMap<(u64, usize), Rc<Plan>, BuildHasherDefault<Mixer>>,
    /// The plan used last.
    last: Option<((u64, usize), Rc<Plan>)>,
    /// The plans for fields that the application adds, by log and name.
    added: HashMap<(u64, &'static str), Rc<FieldPlan>>,
}

impl Plans {
    /// Returns the plan for a field that the application adds, under the rules of one log.
    pub(super) fn of_added(&mut self, log: u64, rules: &Rules, name: &'static str) -> Rc<FieldPlan> {
        if self.added.len() >= MAX_PLANS && !self.added.contains_key(&(log, name)) {
            self.added.clear();
        }
        let plan = self.added.entry((log, name));
        Rc::clone(plan.or_insert_with(|| Rc::new(FieldPlan::new(rules, name, None))))
    }

    /// Returns the plan for a callsite under the rules of one log.
    pub(super) fn of(&mut self, log: u64, rules: &Rules, metadata: &'static Metadata<'static>) -> Rc<Plan> {
        // The address of static metadata identifies the callsite for ever. The address of the callsite itself does
        // not: a callsite may be zero-sized, and then share its address with others.
        let key = (log, ptr::from_ref(metadata).addr());
        if let Some((_, plan)) = self.last.as_ref().filter(|(last, _)| *last == key) {
            return Rc::clone(plan);
        }
        if self.known.len() >= MAX_PLANS && !self.known.contains_key(&key) {
            // The map keeps no order of use, so all are dropped and planned again when they are needed.
            self.known.clear();
        }
        let plan = Rc::clone(self.known.entry(key).or_insert_with(|| Rc::new(Plan::new(rules, metadata))));
        self.last = Some((key, Rc::clone(&plan)));
        plan
    }
}

/// A fast hash for two small numbers that no attacker chooses.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(32) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
