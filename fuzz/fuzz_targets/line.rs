//! Arbitrary bytes as one line: accepted by this parser, accepted by others, and read alike.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tracing_audit::simulation::fuzz::line(bytes));
