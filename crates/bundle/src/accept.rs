//! Judges rule resources and makes the bundle of those that hold.
//!
//! Resources are loaded one after the other in load order, each over what was accepted before it. One that has a mistake
//! is taken back, and its last good version takes its place, so it neither runs with the mistake nor keeps others from
//! running. The answer depends on the resources only, not on the order they are given in.

mod claims;
mod judge;
mod overrides;

use std::collections::BTreeMap;

use api::{
    ResourceId,
    condition::Reason,
    rule::{FalcoRuleSpec, RuleSummary},
};

use crate::{Bundle, Limits, Problem, Settings, trial::Trial};

/// A rule resource as the cluster has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which one it is.
    pub id: ResourceId,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// When it was created, in seconds since the Unix epoch: of two that claim the same, the older one has it.
    pub created: i64,
    /// What is wanted.
    pub spec: FalcoRuleSpec,
    /// What `spec.configMapRef` names.
    pub config_map: ConfigMap,
    /// Share of the nodes that run this generation, while a rollout goes on; the others run what was accepted before.
    /// `None`: all of them.
    pub percent: Option<u8>,
}

/// What a reference to a ConfigMap leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConfigMap {
    /// There is no reference, or nobody has looked.
    #[default]
    None,
    /// The text under the key.
    Text(String),
    /// There is no such ConfigMap, or no such key in it: a sentence that says which.
    Missing(String),
    /// It could not be read just now: a sentence that says why.
    Unreadable(String),
}

/// The outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// What sensors are to run.
    pub bundle: Bundle,
    /// What became of each resource.
    pub verdicts: BTreeMap<ResourceId, Verdict>,
}

/// What became of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Uid of the resource.
    pub uid: String,
    /// The generation that was judged.
    pub generation: i64,
    /// Whether it is in the bundle.
    pub outcome: Outcome,
    /// Mistakes, when it was refused.
    pub errors: Vec<Problem>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
    /// The generation in the bundle; `None` when none is.
    pub serving_generation: Option<i64>,
    /// What the judged generation contains; `enabled` counts what the bundle's generation has.
    pub summary: RuleSummary,
    /// Whether rules on the audit log of it run.
    pub audit: bool,
    /// What its tests came to.
    pub trial: Trial,
    /// Whose rules it changes, and who changes its own.
    pub overrides: Overrides,
}

/// Rules that one resource defines and another one changes: each with the other resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Rules of others that it changes, in order of name.
    pub overrides: Vec<(String, String)>,
    /// Its rules that others change, in load order of those.
    pub overridden_by: Vec<(String, String)>,
}

/// Whether a resource is in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In this generation.
    Accepted,
    /// It is not followed: what was accepted before stays.
    Suspended,
    /// It has mistakes: what was accepted before stays.
    Rejected(Reason),
}

/// Judges resources. `previous`: the bundle of the last time, which has the last good versions; the empty one at the
/// beginning.
pub fn accept(candidates: &[Candidate], previous: &Bundle, settings: &Settings, limits: &Limits) -> Accepted {
    judge::judge(candidates, previous, settings, limits)
}
