//! Compares the reference of sinks with the file in the checkout; `cargo xtask codegen` writes it.

#[path = "../../../xtask/src/generated.rs"]
mod generated;

#[test]
fn generated_files_are_fresh() {
    generated::check(&gyrfalcon_sinks::generated());
}
