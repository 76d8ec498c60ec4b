//! Events of the audit log: parsed, and every field read. Inputs that crash belong into `fuzz/regressions/audit_event`, where
//! `cargo test` tries them again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| gyrfalcon_event::testing::exercise_audit(text));
