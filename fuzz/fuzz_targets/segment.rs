//! Arbitrary bytes as the files of a log: verified and read.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tracing_audit::simulation::fuzz::segment(bytes));
