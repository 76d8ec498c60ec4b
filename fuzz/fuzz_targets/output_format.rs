//! Outputs of rules: parsed and rendered. Inputs that crash belong into `fuzz/regressions/output_format`, where
//! `cargo test` tries them again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gyrfalcon_rules::testing::exercise_output(text));
