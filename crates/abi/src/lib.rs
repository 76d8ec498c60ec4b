//! What the kernel programs and the sensor agree on.
#![no_std]
