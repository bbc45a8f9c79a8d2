//! Tracks which `confirm` an event on this thread counts for.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    sync::Arc,
};

use super::{Capture, pending};
use crate::queue::Scope;

thread_local! {
    /// How many scopes are open. For most events this is zero, and the list is not touched.
    static OPEN: Cell<usize> = const { Cell::new(0) };
    /// The open scopes, innermost last, each with the log that it belongs to. Borrowed only to copy, add or
    /// remove one.
    static SCOPES: RefCell<Vec<(u64, Arc<Scope>)>> = const { RefCell::new(Vec::new()) };
}

/// An open scope of one log on the calling thread. Dropping the guard closes it.
#[derive(Debug)]
#[must_use]
pub(crate) struct ScopeGuard {
    scope: Arc<Scope>,
    /// How many events were pending when it began.
    pending: usize,
    /// Not `Send`: it must be dropped on the thread that opened it.
    _thread: PhantomData<*const ()>,
}

/// Opens a scope. Until the guard is dropped, events that this log captures on this thread count for it. They count for
/// every scope of the log that is open around it, too.
pub(crate) fn confirm_scope(capture: &Capture) -> ScopeGuard {
    open(capture.id, Scope::new(innermost(capture.id)))
}

/// Opens a scope again, for one more poll of its future. The scope around it can differ from poll to poll.
pub(crate) fn resume_scope(capture: &Capture, scope: &mut Arc<Scope>) -> ScopeGuard {
    *scope = scope.inside(innermost(capture.id));
    open(capture.id, Arc::clone(scope))
}

fn open(log: u64, scope: Arc<Scope>) -> ScopeGuard {
    let entry = (log, Arc::clone(&scope));
    // In the destructors of a thread the list is gone. The scope then stays empty, which `confirm` reports.
    if SCOPES.try_with(|scopes| scopes.borrow_mut().push(entry)).is_ok() {
        OPEN.set(OPEN.get() + 1);
    }
    ScopeGuard { scope, pending: pending::depth(), _thread: PhantomData }
}

/// Returns the innermost open scope of a log on the calling thread.
#[inline]
pub(super) fn innermost(log: u64) -> Option<Arc<Scope>> {
    if OPEN.get() == 0 { None } else { find_innermost(log) }
}

fn find_innermost(log: u64) -> Option<Arc<Scope>> {
    let find = |scopes: &RefCell<Vec<(u64, Arc<Scope>)>>| {
        scopes.borrow().iter().rev().find(|(owner, _)| *owner == log).map(|(_, scope)| Arc::clone(scope))
    };
    SCOPES.try_with(find).ok().flatten()
}

impl ScopeGuard {
    /// Settles the scope after its closure or poll has returned. Events that were announced since and did not come were
    /// vetoed, and count as lost in this scope.
    pub(crate) fn settle(&self, capture: &Capture) {
        capture.count_vetoed(pending::settle(self.pending));
    }

    /// Returns the scope, with the events captured so far.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        let remove = |scopes: &RefCell<Vec<(u64, Arc<Scope>)>>| {
            let mut scopes = scopes.borrow_mut();
            // Not always the last one: guards can be dropped in any order.
            let at = scopes.iter().rposition(|(_, scope)| Arc::ptr_eq(scope, &self.scope))?;
            Some(scopes.remove(at))
        };
        if let Ok(Some(removed)) = SCOPES.try_with(remove) {
            OPEN.set(OPEN.get().saturating_sub(1));
            // Dropped outside of the borrow of the list.
            drop(removed);
        }
    }
}
