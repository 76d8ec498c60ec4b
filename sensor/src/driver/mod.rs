//! Loads the kernel programs, attaches them, and reads what they send. aya is used here and nowhere else.
//!
//! Split in two, because two threads use it: the [`Driver`] decides which system calls are traced (the thread that
//! compiles rules), the [`Consumer`] reads records (the event loop, which must not wait for anything else).

pub mod btf;
mod consumer;
mod counters;
mod filter;
mod hooks;
mod host;
mod levels;
mod load;
mod perf;
mod ring;
mod rings;
mod rows;
mod slice;

pub use abi::loss::KernelCounter;
pub use consumer::{Consumer, RIPE_NS, Waker, boot_time_ns};
pub use filter::Filters;
pub use hooks::Hooks;
pub use host::{CgroupSource, Host};
pub use levels::RingLevel;
pub use load::{Counts, Driver, DriverError, Options};
pub use rings::Rings;
pub use rows::{Rows, names};
pub use slice::run_soon;

/// The kernel programs, when this binary was built with them (`cargo xtask build`).
pub fn object() -> Option<&'static [u8]> {
    embedded::OBJECT
}

mod embedded {
    //! The object file, aligned as ELF headers want it.
    include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"));
}
