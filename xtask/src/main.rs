//! Every developer command of Gyrfalcon, in one program: `cargo xtask` lists them.
//!
//! Commands are Rust so that they can be tested and read like the rest, and so that a checkout needs nothing but
//! cargo to begin with. What a command needs beyond that is announced, then installed by the package manager or below
//! the user's cache folder, never anywhere else. The rows are in [`commands`]; each command has its module.

mod apt;
mod binaries;
mod checkout;
mod commands;
mod ebpf;
mod process;

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
