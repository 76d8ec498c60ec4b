//! Conditions: parsed, printed, checked, compiled and judged. Inputs that crash belong into `fuzz/regressions/filter_parse`, where
//! `cargo test` tries them again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gyrfalcon_rules::testing::exercise_filter(text));
