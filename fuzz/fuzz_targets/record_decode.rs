//! Bytes of the ring: decoded, applied to state, and every field read. Inputs that crash belong into
//! `fuzz/regressions/record_decode`, where `cargo test` tries them again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gyrfalcon_event::testing::exercise(bytes));
