//! Compares the definitions and their reference with the files in the checkout; `cargo xtask codegen` writes them.

#[path = "../../../xtask/src/generated.rs"]
mod generated;

#[test]
fn generated_files_are_fresh() {
    generated::check(&gyrfalcon_api::generated());
}
