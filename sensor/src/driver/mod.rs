//! Loads the kernel programs, attaches them, and reads what they send. aya is used here and nowhere else.
//!
//! Split in two, because two threads use it: the [`Driver`] decides which system calls are traced (the thread that
//! compiles rules), the [`Consumer`] reads records (the event loop, which must not wait for anything else).

pub mod btf;
mod consumer;
mod host;
mod load;
mod ring;

pub use consumer::{Consumer, Waker, boot_time_ns};
pub use host::{Feature, Host};
pub use load::{Driver, DriverError, KernelCounts, Options, Rows};

/// The kernel programs, when this binary was built with them (`cargo xtask build`).
pub fn object() -> Option<&'static [u8]> {
    embedded::OBJECT
}

mod embedded {
    //! The object file, aligned as ELF headers want it.
    include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"));
}
