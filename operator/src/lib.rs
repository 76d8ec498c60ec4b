//! The operator: reconciles custom resources, serves sensors, writes Events and status.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod conditions;
pub mod events;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod outbox;
pub mod rules;
pub mod sensors;
pub mod sinks;
pub mod tls;
pub mod write;
