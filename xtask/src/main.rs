//! Every developer command of Gyrfalcon, in one program: `cargo xtask` lists them.
//!
//! Commands are Rust so that they can be tested and read like the rest, and so that a checkout needs nothing but
//! cargo to begin with. What a command needs beyond that is announced, then installed by the package manager or below
//! the user's cache folder, never anywhere else. The rows are in [`commands`]; each command has its module.

mod apt;
mod bench;
mod binaries;
mod chart;
mod checkout;
mod codegen;
mod commands;
mod demo;
mod deny;
mod e2e_test;
mod ebpf;
#[expect(dead_code, reason = "its function is for the tests of other crates, which take the module by its path")]
mod generated;
mod image;
mod kernel_test;
mod kubernetes;
mod process;
mod rooted;
mod run;
mod setup;
mod suite;
mod tally;
mod tidy;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
