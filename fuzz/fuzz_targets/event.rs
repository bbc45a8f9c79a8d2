//! Arbitrary bytes as the fields of an event: one event, one line.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tracing_audit::simulation::fuzz::event(bytes));
