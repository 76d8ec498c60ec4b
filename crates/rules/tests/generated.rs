//! docs/diagnostics.md is as the table of codes says.

#[path = "../../../xtask/src/generated.rs"]
mod generated;

#[test]
fn generated_files_are_fresh() {
    generated::check(&gyrfalcon_rules::generated());
}
