//! The operator: reconciles custom resources, serves sensors, writes Events and status.
#![forbid(unsafe_code)]

pub mod cli;
pub mod leader;
pub mod names;
pub mod tls;
