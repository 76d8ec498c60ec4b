//!
//! Every replica follows, so that a new leader knows the cluster at once and any replica can answer the webhook.

pub mod pods;

