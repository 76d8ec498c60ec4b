//! What two separately compiled programs must agree on: the kernel programs (`sensor-ebpf`, target
//! `bpfel-unknown-none`) and the sensor that loads them.
//!
//! Only what changes on both sides at once belongs here: the record format, the table of system calls, the
//! table of kernel members, limits and settings. Both sides are built from the same source and the object is
//! embedded in the sensor, so there is no version to negotiate.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod filter;
pub mod loss;
pub mod offsets;
pub mod record;
pub mod syscalls;
