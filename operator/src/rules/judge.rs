//! Makes the bundle of what there is, and remembers what became of each resource.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{ResourceId, condition::Reason, config::SensorConfigSpec};
use bundle::{Accepted, Bundle, Candidate, Limits, Outcome, Problem, Settings, Verdict};
use tonic::codegen::Bytes;

use super::status::Judgement;
use crate::sensors::Offer;

/// The bundle that sensors should run, and how it came about.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The bundle, which the next judgement takes the last good versions from.
    pub bundle: Arc<Bundle>,
    /// Its bytes.
    pub offer: Offer,
    /// What became of each resource.
    pub verdicts: Arc<BTreeMap<ResourceId, Verdict>>,
    /// How long it took.
    pub took: Duration,
}

/// Judges everything. Takes long: not for an asynchronous thread.
///
/// # Errors
/// When the bundle cannot be written as JSON, which it can.
pub fn judge(
    candidates: &[Candidate],
    previous: &Bundle,
    config: &SensorConfigSpec,
) -> Result<Judged, serde_json::Error> {
    let begun = Instant::now();
    let Accepted { bundle, verdicts } =
        bundle::accept(candidates, previous, &Settings::of(config), &Limits::of(config));
    let bytes = bundle.to_bytes()?;
    let offer = Offer { hash: Bundle::hash(&bytes).into(), bytes: Bytes::from(bytes) };
    Ok(Judged { bundle: Arc::new(bundle), offer, verdicts: Arc::new(verdicts), took: begun.elapsed() })
}

/// What a status says about a verdict.
pub fn judgement(verdict: &Verdict) -> Judgement {
    let status = |problems: &[Problem]| problems.iter().map(Problem::to_status).collect();
    let refused = match verdict.outcome {
        Outcome::Accepted | Outcome::Suspended => None,
        Outcome::Rejected(reason) => {
            let first = verdict.errors.first().map(ToString::to_string).unwrap_or_default();
            Some((reason, first))
        }
    };
    // These are cured by something else that appears, not by a change of the resource.
    let passing = matches!(verdict.outcome, Outcome::Rejected(Reason::RefNotFound | Reason::SourceError));
    Judgement {
        refused,
        passing,
        serving: verdict.serving_generation,
        errors: status(&verdict.errors),
        warnings: status(&verdict.warnings),
        summary: Some(verdict.summary.clone()),
        overrides: verdict.overrides.clone(),
        tests: Some(verdict.trial.to_status()).filter(|tests| tests.passed + tests.failed > 0),
        audit: verdict.audit,
    }
}

/// What the last judgement was made of: while it is the same, the answer is.
#[derive(Debug, Default, PartialEq)]
pub struct Basis {
    candidates: Vec<Candidate>,
    config: SensorConfigSpec,
}

impl Basis {
    /// Of these.
    pub fn new(candidates: Vec<Candidate>, config: SensorConfigSpec) -> Self {
        Self { candidates, config }
    }

    /// What is judged.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The configuration.
    pub fn config(&self) -> &SensorConfigSpec {
        &self.config
    }
}

/// Percentages of the rollouts that go on, by uid.
pub type Percents = HashMap<String, u8>;
