//! The macros `audit!` and `audit_critical!`: `event!` with the target `audit`.

/// Emits a routine audit event: [`tracing::event!`] with the target `audit` and the level `INFO`.
///
/// Takes fields, dotted names included, and then optionally a message. `parent:` names a span explicitly. The
/// severity is decided as for any other event, so a critical action makes the event critical; see
/// [`Severity`](crate::Severity).
///
/// # Examples
///
/// ```
/// use tracing_audit::audit;
///
/// let path = "/etc/passwd";
/// audit!(action = "file.read", actor = "mia", resource = path);
/// audit!(actor.id = 5, action = "file.read", "read {path}");
/// audit!(parent: None, action = "service.start", actor = "systemd");
/// ```
#[macro_export]
macro_rules! audit {
    (parent: $parent:expr, $($arg:tt)+) => {
        $crate::__private::tracing::event!(
            target: "audit",
            parent: $parent,
            $crate::__private::tracing::Level::INFO,
            { $($arg)+ }
        )
    };
    ($($arg:tt)+) => {
        $crate::__private::tracing::event!(
            target: "audit",
            $crate::__private::tracing::Level::INFO,
            { $($arg)+ }
        )
    };
}

/// Emits a critical audit event: [`tracing::event!`] with the target `audit`, the level `WARN` and
/// the field `severity = "critical"`.
///
/// In the default flush mode the record is durable when the macro returns. Takes the same arguments
/// as [`audit!`](crate::audit!).
///
/// # Examples
///
/// ```
/// use tracing_audit::audit_critical;
///
/// audit_critical!(action = "key.export", actor = "mia", key.id = 7, "exported by hand");
/// ```
#[macro_export]
macro_rules! audit_critical {
    (parent: $parent:expr, $($arg:tt)+) => {
        $crate::__private::tracing::event!(
            target: "audit",
            parent: $parent,
            $crate::__private::tracing::Level::WARN,
            { severity = "critical", $($arg)+ }
        )
    };
    ($($arg:tt)+) => {
        $crate::__private::tracing::event!(
            target: "audit",
            $crate::__private::tracing::Level::WARN,
            { severity = "critical", $($arg)+ }
        )
    };
}
