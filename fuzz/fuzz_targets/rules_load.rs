//! Rules files: loaded, explained, described and judged. Inputs that crash belong into `fuzz/regressions/rules_load`, where
//! `cargo test` tries them again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gyrfalcon_rules::testing::exercise_rules(bytes));
