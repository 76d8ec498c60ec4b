//! From the bytes of a bundle to rules that run on this node.

use ::link::proto;
use api::rule::Mode;
use bundle::{Bundle, Compiled, NodeFacts, Problem, UnitOutcome, UnitState};
use rules::load::Options;
use tracing::Level;

use super::{compiler::Built, link::Verified};
use link::chain;

use crate::{
    active::{Active, Unit},
    log,
    throttle::Throttle,
};

/// Longest message about a resource, in characters: hundreds of them travel in one acknowledgement.
const MESSAGE: usize = 500;

/// Compiles a bundle for a node.
pub fn compile(verified: &Verified, node: &str, facts: &proto::NodeFacts, options: &Options) -> Result<Built, String> {
    let bundle = Bundle::read(&verified.bytes, &verified.hash).map_err(|error| chain(&error).to_string())?;
    log::set(bundle.settings.log_level.and_then(|level| level.name().parse::<Level>().ok()));
    let labels = facts.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let node = NodeFacts { name: node.to_owned(), labels, everywhere: false };
    Ok(build(bundle::compile(&bundle, &node, options), options))
}

/// Compiles a bundle for a receiver of the audit log: it is on no node, so no selector of nodes leaves it out.
pub fn compile_for_audit(verified: &Verified, options: &Options) -> Result<Built, String> {
    let bundle = Bundle::read(&verified.bytes, &verified.hash).map_err(|error| chain(&error).to_string())?;
    log::set(bundle.settings.log_level.and_then(|level| level.name().parse::<Level>().ok()));
    let nowhere = NodeFacts { name: "audit".to_owned(), everywhere: true, ..NodeFacts::default() };
    Ok(build(bundle::compile(&bundle, &nowhere, options), options))
}

fn build(compiled: Compiled, options: &Options) -> Built {
    let Compiled { ruleset, units, of_rule } = compiled;
    let active = Active::new(ruleset, units.iter().map(|unit| self::unit(unit, options)).collect(), |rule| {
        of_rule.get(rule).copied()
    });
    let mut results: Vec<proto::UnitResult> = units.iter().map(result).collect();
    for (rule, _, _) in active.waiting() {
        if let Some(result) = of_rule.get(rule).and_then(|unit| results.get_mut(*unit)) {
            result.waiting += 1;
        }
    }
    Built { active, units: results }
}

fn unit(state: &UnitState, options: &Options) -> Unit {
    let throttle = Throttle::of(state.throttle.as_ref(), &state.uid, options.catalogue);
    Unit { uid: state.uid.as_str().into(), shadow: state.mode == Mode::Shadow, throttle }
}

fn result(state: &UnitState) -> proto::UnitResult {
    let mut result =
        proto::UnitResult { uid: state.uid.clone(), generation: state.generation, ..proto::UnitResult::default() };
    match &state.outcome {
        UnitOutcome::Loaded { .. } => result.set_state(proto::UnitState::Loaded),
        UnitOutcome::Skipped => result.set_state(proto::UnitState::Skipped),
        UnitOutcome::Failed(problems) => {
            result.set_state(proto::UnitState::Failed);
            if let Some(problem) = problems.first() {
                result.code = problem.code.to_string();
                let Problem { path, line, column, message, .. } = problem;
                result.message = format!("{path}:{line}:{column}: {message}").chars().take(MESSAGE).collect();
            }
        }
    }
    result
}
