//! docs/fields.md and docs/events.md are as the tables say.

#[path = "../../../xtask/src/generated.rs"]
mod generated;

#[test]
fn generated_files_are_fresh() {
    generated::check(&gyrfalcon_event::generated());
}
