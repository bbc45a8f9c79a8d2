//! Arbitrary bytes as the files of a log: opened, written, closed, verified.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tracing_audit::simulation::fuzz::recovery(bytes));
