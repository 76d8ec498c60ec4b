//! `gyrfalcon doctor`: what this kernel permits, what would be used, and why.

use crate::{
    chain::chain,
    driver::{self, Driver, Host, Rows},
    exit::Exit,
    procfs::Reader,
};

/// Probes and prints. Loading is tried for real where we may.
pub fn doctor() -> Exit {
    let host = match Host::probe() {
        Ok(host) => host,
        Err(error) => {
            println!("no   BTF: {}", chain(&error));
            return Exit::System;
        }
    };
    for feature in host.features() {
        println!("{:4} {}: {}", if feature.present { "yes" } else { "no" }, feature.name, feature.note);
    }
    println!("     processes in /proc: {}", Reader::new(host.cgroups).all().len());
    match try_all(&host) {
        Ok(rows) => {
            println!("yes  kernel programs: exec, fork, exit and {rows} system calls load and attach");
            println!(
                "     hook in use: tp_btf sys_exit with a tail call per system call; an untraced call costs an empty slot"
            );
            Exit::Fine
        }
        Err(error) => {
            println!("no   kernel programs: {}", chain(&error));
            Exit::System
        }
    }
}

/// Loads and attaches everything once, for a moment.
fn try_all(host: &Host) -> Result<usize, driver::DriverError> {
    let options = driver::Options { ring_bytes: 1 << 16, state_ring_bytes: 1 << 16 };
    let (mut driver, _consumer) = Driver::load(host, driver::object(), options)?;
    let mut rows = Rows::NONE;
    for row in 0..abi::syscalls::SYSCALLS.len() {
        rows.insert(row);
    }
    driver.trace(rows)?;
    Ok(abi::syscalls::SYSCALLS.len())
}
