//! The custom resources of `gyrfalcon.dev`: their types, what makes them valid, and their conditions.
//!
//! This is the contract with the people who write rules and sinks, in a cluster or in files. It has no client and does
//! no IO: [`manifest::read`] turns text into resources, [`falco::rules_texts`] turns rule resources into what the rule
//! loader reads, [`generated`] turns the types into CustomResourceDefinitions and their reference.
#![forbid(unsafe_code)]

pub mod chart;
pub mod check;
pub mod condition;
pub mod config;
pub mod crd;
mod docs;
pub mod falco;
pub mod kstatus;
pub mod labels;
pub mod manifest;
mod names;
pub mod node;
pub mod problem;
pub mod resource;
pub mod rule;
pub mod scalar;
mod schema;
pub mod secret;
pub mod selector;
pub mod sink;
mod yaml;

pub use crd::{crds, crds_yaml};
pub use resource::{GROUP, Kind, Resource, ResourceId, Spec, VERSION};
pub use yaml::Place;

/// Every file that is generated from this crate: path from the root of the repository, and contents.
pub fn generated() -> Vec<(String, String)> {
    let mut files = crds_yaml();
    files.extend(chart::templates());
    files.push(("docs/crds.md".into(), docs::crds_md()));
    files
}
