//! The operator: reconciles custom resources, serves sensors, writes Events and status.
//!
//! [`run`] starts everything. [`cluster`] observes; [`controller`] is the leader's loop, which plans with [`rules`],
//! [`nodes`] and [`sensors`] and writes by [`write`]; [`events`] writes Kubernetes Events; [`outbox`] and [`sinks`] deliver
//! alerts; [`webhook`] answers the API server.
#![forbid(unsafe_code)]

pub mod announce;
pub mod cli;
pub mod cluster;
pub mod conditions;
pub mod controller;
pub mod events;
pub mod follow;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod outbox;
pub mod rules;
pub mod run;
pub mod selftest;
pub mod sensors;
pub mod sinks;
pub mod tls;
pub mod webhook;
pub mod write;
