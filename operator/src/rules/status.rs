//! The status of a rule resource, as a pure function of what is known about it.

use api::{
    condition::{ConditionStatus, ConditionType, Reason},
    rule::{
        FalcoRuleSpec, FalcoRuleStatus, Hits, Mode, NodeCounts, NodeFailure, RolloutPhase, RolloutStatus, RuleOverride,
        RuleProblem, RuleSummary, TestSummary, TopRule,
    },
};
use bundle::accept::Overrides;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    conditions::{Conditions, cut, whole_seconds},
    sensors::fleet::{Load, Total},
    write::Urgency,
};

/// What became of the text of a resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// Why it was not accepted: the reason and the first mistake in words; none when it was.
    pub refused: Option<(Reason, String)>,
    /// Whether the refusal may pass without a change of the resource: something that it names may appear.
    pub passing: bool,
    /// The generation that nodes should run; none when there is none.
    pub serving: Option<i64>,
    /// All mistakes.
    pub errors: Vec<RuleProblem>,
    /// What is probably not meant.
    pub warnings: Vec<RuleProblem>,
    /// What the resource contains.
    pub summary: Option<RuleSummary>,
    /// Whose rules it changes, and who changes its own.
    pub overrides: Overrides,
    /// What its tests came to; none when it has none or they were not run.
    pub tests: Option<TestSummary>,
    /// Whether it has rules on the audit log.
    pub audit: bool,
}

/// Everything that a status is made of.
#[derive(Debug)]
pub struct Seen<'a> {
    /// `metadata.generation`.
    pub generation: i64,
    /// What is wanted.
    pub spec: &'a FalcoRuleSpec,
    /// What became of the text.
    pub judgement: &'a Judgement,
    /// How far the serving generation has come.
    pub load: &'a Load,
    /// It has rules on the audit log, and nothing receives that.
    pub unheard: bool,
    /// How often its rules matched.
    pub total: Option<&'a Total>,
    /// Matches in the last hour.
    pub last_hour: u64,
    /// Short hash of the bundle.
    pub bundle: &'a str,
    /// Alerts of it come faster than there may be Events.
    pub storm: bool,
    /// How far its rollout is.
    pub rollout: Option<&'a RolloutStatus>,
    /// The status that the API server has.
    pub before: &'a FalcoRuleStatus,
    /// The time.
    pub now: Timestamp,
}

/// What the status should be, and how soon.
pub fn plan(seen: &Seen<'_>) -> (FalcoRuleStatus, Urgency) {
    let judgement = seen.judgement;
    let mut status = FalcoRuleStatus {
        observed_generation: Some(seen.generation),
        serving_generation: judgement.serving,
        conditions: conditions(seen),
        summary: judgement.summary.clone(),
        errors: judgement.errors.iter().take(FalcoRuleStatus::MAX_PROBLEMS).cloned().collect(),
        warnings: judgement.warnings.iter().take(FalcoRuleStatus::MAX_PROBLEMS).cloned().collect(),
        overrides: overrides(&judgement.overrides.overrides),
        overridden_by: overrides(&judgement.overrides.overridden_by),
        tests: judgement.tests.clone(),
        ..FalcoRuleStatus::default()
    };
    if judgement.serving.is_some() {
        let load = seen.load;
        status.nodes = Some(NodeCounts {
            desired: load.desired,
            loaded: load.loaded,
            stale: load.stale,
            failed: load.failed,
            skipped: load.skipped,
        });
        status.loaded_nodes = Some(format!("{}/{}", load.loaded, load.desired));
        status.node_failures = failures(load);
        status.bundle = Some(seen.bundle.to_owned()).filter(|bundle| !bundle.is_empty());
        status.rollout = seen.rollout.cloned();
    }
    hits(seen, &mut status);
    let urgency = urgency(seen.before, &status);
    (status, urgency)
}

fn overrides(pairs: &[(String, String)]) -> Vec<RuleOverride> {
    let pairs = pairs.iter().take(FalcoRuleStatus::MAX_OVERRIDES);
    pairs.map(|(rule, resource)| RuleOverride { rule: cut(rule, 256), resource: cut(resource, 512) }).collect()
}

fn failures(load: &Load) -> Vec<NodeFailure> {
    let failures = load.failures.iter().take(FalcoRuleStatus::MAX_NODE_FAILURES);
    failures
        .map(|failure| NodeFailure {
            reason: if failure.refused { Reason::LoadFailed } else { Reason::NotAcknowledged }.name().to_owned(),
            message: cut(&failure.message, 1024),
            nodes: failure.nodes,
            examples: failure.examples.iter().map(|node| node.to_string()).collect(),
        })
        .collect()
}

fn hits(seen: &Seen<'_>, status: &mut FalcoRuleStatus) {
    let before = seen.before.hits.clone().unwrap_or_default();
    let empty = Total::default();
    let total = seen.total.unwrap_or(&empty);
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let retired = count(total.retired).max(before.retired);
    status.hits = Some(Hits {
        // Nodes that this operator has not heard of yet are missing in the sum: what was shown stays.
        total: count(total.hits).saturating_add(retired).max(before.total),
        last_hour: count(seen.last_hour),
        suppressed: count(total.suppressed).max(before.suppressed),
        since: Some(before.since.unwrap_or_else(|| Time(whole_seconds(seen.now)))),
        retired,
    });
    status.last_triggered = time(total.last_ns).max(seen.before.last_triggered.clone());
    let mut rules: Vec<_> = total.rules.iter().filter(|(_, rule)| rule.hits() > 0).collect();
    rules.sort_by(|a, b| b.1.hits().cmp(&a.1.hits()).then_with(|| a.0.cmp(b.0)));
    let rules = rules.into_iter().take(FalcoRuleStatus::MAX_TOP_RULES);
    status.top_rules = rules
        .map(|(rule, hits)| TopRule {
            rule: cut(rule, 256),
            hits: count(hits.hits()),
            last_triggered: time(hits.last_ns),
        })
        .collect();
}

fn time(unix_ns: u64) -> Option<Time> {
    let seconds = i64::try_from(unix_ns / 1_000_000_000).ok().filter(|seconds| *seconds > 0)?;
    Timestamp::from_second(seconds).ok().map(Time)
}

fn conditions(seen: &Seen<'_>) -> Vec<api::condition::Condition> {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType::{Accepted, AlertStorm, Programmed, Ready, Reconciling, Stalled, TestsPassed};
    let (judgement, load) = (seen.judgement, seen.load);
    let mut conditions = Conditions::new(&seen.before.conditions, Some(seen.generation), seen.now);

    match &judgement.refused {
        None => conditions.set(Accepted, True, Reason::Valid, &contents(judgement)),
        Some((reason, message)) => conditions.set(Accepted, False, *reason, message),
    }
    match &judgement.tests {
        Some(tests) if tests.failed > 0 => {
            let first = tests
                .failures
                .first()
                .map(|failure| format!(": {}: expected {}, got {}", failure.name, failure.want, failure.got));
            let text = format!("{} of {} fail{}", tests.failed, tests.failed + tests.passed, first.unwrap_or_default());
            conditions.set(TestsPassed, False, Reason::TestsFailed, &text);
        }
        Some(tests) => conditions.set(TestsPassed, True, Reason::TestsPassed, &format!("{} pass", tests.passed)),
        None if seen.spec.tests.is_empty() => {
            conditions.set(TestsPassed, Unknown, Reason::NoTests, "the resource has no tests");
        }
        None => conditions.set(TestsPassed, Unknown, Reason::NoTests, "the tests were not run: there are mistakes"),
    }
    if seen.storm {
        let text = "alerts come faster than there may be Events; some are only counted, sinks get them all";
        conditions.set(AlertStorm, True, Reason::BudgetExceeded, text);
    }

    let on_nodes = format!("{} of {} nodes", load.loaded, load.desired);
    let (programmed, why) = match judgement.serving {
        None => (Unknown, Reason::NotAcknowledged),
        Some(_) if seen.unheard => (False, Reason::NoAuditReceiver),
        Some(_) if load.desired == 0 => (Unknown, Reason::NoNodes),
        Some(_) if load.loaded == load.desired => (True, Reason::AllNodesLoaded),
        Some(_) if load.failed > 0 => (False, Reason::LoadFailed),
        Some(_) => (False, Reason::PartiallyLoaded),
    };
    let text = match why {
        Reason::NotAcknowledged => "no generation was accepted yet".to_owned(),
        Reason::NoNodes => "no node with a sensor is selected".to_owned(),
        Reason::NoAuditReceiver => {
            "rules on the audit log run nowhere: no receiver is installed; set audit.enabled in the chart".to_owned()
        }
        _ => format!("{on_nodes} run generation {}", judgement.serving.unwrap_or_default()),
    };
    conditions.set(Programmed, programmed, why, &text);

    if let Some((reason, message)) = &judgement.refused {
        let mistakes = match judgement.errors.len() {
            0 => message.clone(),
            1 => format!("1 error: {message}"),
            errors => format!("{errors} errors: {message}"),
        };
        let serving = match judgement.serving {
            Some(generation) => format!("{mistakes}; serving generation {generation} on {on_nodes}"),
            None => format!("{mistakes}; nothing of this resource runs"),
        };
        conditions.set(Ready, False, *reason, &serving);
        match judgement.passing {
            true => conditions.set(Reconciling, True, *reason, message),
            false => conditions.set(Stalled, True, *reason, message),
        }
    } else if seen.rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::RolledBack) {
        let text = seen.rollout.and_then(|rollout| rollout.reason.clone()).unwrap_or_default();
        conditions.set(Ready, False, Reason::RolledBack, &text);
        conditions.set(Stalled, True, Reason::RolledBack, &text);
    } else if let Some(rollout) = seen.rollout.filter(|rollout| rollout.phase == RolloutPhase::Progressing) {
        let text = format!("step {} of the rollout: {} % of the nodes", rollout.step, rollout.percent);
        conditions.set(Ready, Unknown, Reason::RollingOut, &text);
        conditions.set(Reconciling, True, Reason::RollingOut, &text);
    } else if seen.spec.suspended() {
        let text = format!("suspended: changes are not followed; {text}");
        conditions.is(Ready, programmed == True, Reason::Suspended, &text);
    } else {
        match (programmed, why) {
            (True, _) => {
                let note = match seen.spec.mode() {
                    Mode::Alert => "",
                    Mode::Shadow => "; matches are counted and send nothing (mode: Shadow)",
                    Mode::Off | Mode::Disabled => "; its rules are not loaded (mode: Disabled)",
                };
                conditions.set(Ready, True, Reason::AllNodesLoaded, &format!("{text}{note}"));
            }
            (_, Reason::LoadFailed) if load.stale == 0 => {
                let first = load.failures.first().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
                let text = format!("{} of {} nodes refuse it{first}", load.failed, load.desired);
                conditions.set(Ready, False, Reason::LoadFailed, &text);
                conditions.set(Stalled, True, Reason::LoadFailed, &text);
            }
            _ => {
                conditions.set(Ready, Unknown, why, &text);
                conditions.set(Reconciling, True, Reason::Progressing, &text);
            }
        }
    }
    conditions.finish()
}

fn contents(judgement: &Judgement) -> String {
    let summary = judgement.summary.clone().unwrap_or_default();
    let warnings = match summary.warnings {
        0 => String::new(),
        1 => "; 1 warning".to_owned(),
        warnings => format!("; {warnings} warnings"),
    };
    format!(
        "rules: {}, {} of them on; macros: {}; lists: {}{warnings}",
        summary.rules, summary.enabled, summary.macros, summary.lists
    )
}

/// What differs only in counters can wait.
fn urgency(before: &FalcoRuleStatus, after: &FalcoRuleStatus) -> Urgency {
    let first_hit = before.hits.as_ref().is_none_or(|hits| hits.total == 0)
        && after.hits.as_ref().is_some_and(|hits| hits.total > 0);
    let still = |status: &FalcoRuleStatus| FalcoRuleStatus {
        hits: None,
        last_triggered: None,
        top_rules: Vec::new(),
        ..status.clone()
    };
    if first_hit || still(before) != still(after) { Urgency::Urgent } else { Urgency::Routine }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::sensors::fleet::Failure;

    struct Case {
        judgement: Judgement,
        load: Load,
        spec: FalcoRuleSpec,
        rollout: Option<RolloutStatus>,
        unheard: bool,
    }

    fn accepted(load: Load) -> Case {
        let summary = RuleSummary { rules: 2, macros: 1, lists: 0, enabled: 2, warnings: 0 };
        let judgement = Judgement { serving: Some(4), summary: Some(summary), ..Judgement::default() };
        Case { judgement, load, spec: FalcoRuleSpec::default(), rollout: None, unheard: false }
    }

    fn loaded(loaded: u32, desired: u32) -> Load {
        Load { desired, loaded, stale: desired - loaded, ..Load::default() }
    }

    fn status(case: &Case, before: &FalcoRuleStatus, now: i64) -> (FalcoRuleStatus, Urgency) {
        plan(&Seen {
            generation: 4,
            spec: &case.spec,
            judgement: &case.judgement,
            load: &case.load,
            unheard: case.unheard,
            total: None,
            last_hour: 0,
            bundle: "sha256:0123456789ab",
            storm: false,
            rollout: case.rollout.as_ref(),
            before,
            now: Timestamp::from_second(now).expect("a time"),
        })
    }

    #[track_caller]
    fn check(case: &Case, want: Expect) {
        let (status, _) = status(case, &FalcoRuleStatus::default(), 1);
        let lines =
            status.conditions.iter().map(|c| format!("{} {:?} {}: {}\n", c.type_, c.status, c.reason, c.message));
        want.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn ready_when_every_node_runs_it() {
        check(
            &accepted(loaded(3, 3)),
            expect![[r#"
                Accepted True Valid: rules: 2, 2 of them on; macros: 1; lists: 0
                Programmed True AllNodesLoaded: 3 of 3 nodes run generation 4
                Ready True AllNodesLoaded: 3 of 3 nodes run generation 4
                TestsPassed Unknown NoTests: the resource has no tests
            "#]],
        );
    }

    #[test]
    fn reconciling_while_some_nodes_do_not() {
        check(
            &accepted(loaded(2, 3)),
            expect![[r#"
                Accepted True Valid: rules: 2, 2 of them on; macros: 1; lists: 0
                Programmed False PartiallyLoaded: 2 of 3 nodes run generation 4
                Ready Unknown PartiallyLoaded: 2 of 3 nodes run generation 4
                Reconciling True Progressing: 2 of 3 nodes run generation 4
                TestsPassed Unknown NoTests: the resource has no tests
            "#]],
        );
    }

    #[test]
    fn stalled_when_nodes_refuse_it() {
        let failure = Failure { refused: true, message: "no such field".into(), nodes: 1, examples: vec!["a".into()] };
        let load = Load { desired: 3, loaded: 2, failed: 1, failures: vec![failure], ..Load::default() };
        check(
            &accepted(load),
            expect![[r#"
                Accepted True Valid: rules: 2, 2 of them on; macros: 1; lists: 0
                Programmed False LoadFailed: 2 of 3 nodes run generation 4
                Ready False LoadFailed: 1 of 3 nodes refuse it: no such field
                Stalled True LoadFailed: 1 of 3 nodes refuse it: no such field
                TestsPassed Unknown NoTests: the resource has no tests
            "#]],
        );
    }

    #[test]
    fn a_mistake_stalls_and_says_what_runs_instead() {
        let mut case = accepted(loaded(3, 3));
        let text = "spec.rule.condition:1:21: no field `proc.nme`; did you mean `proc.name`?";
        case.judgement.refused = Some((Reason::CompileError, text.to_owned()));
        case.judgement.errors = vec![RuleProblem::default()];
        case.judgement.serving = Some(3);
        check(
            &case,
            expect![[r#"
                Accepted False CompileError: spec.rule.condition:1:21: no field `proc.nme`; did you mean `proc.name`?
                Programmed True AllNodesLoaded: 3 of 3 nodes run generation 3
                Ready False CompileError: 1 error: spec.rule.condition:1:21: no field `proc.nme`; did you mean `proc.name`?; serving generation 3 on 3 of 3 nodes
                Stalled True CompileError: spec.rule.condition:1:21: no field `proc.nme`; did you mean `proc.name`?
                TestsPassed Unknown NoTests: the resource has no tests
            "#]],
        );
    }

    #[test]
    fn a_missing_reference_is_waited_for() {
        let mut case = accepted(Load::default());
        case.judgement = Judgement {
            refused: Some((Reason::RefNotFound, "there is no ConfigMap shop/rules".to_owned())),
            passing: true,
            ..Judgement::default()
        };
        check(
            &case,
            expect![[r#"
                Accepted False RefNotFound: there is no ConfigMap shop/rules
                Programmed Unknown NotAcknowledged: no generation was accepted yet
                Ready False RefNotFound: there is no ConfigMap shop/rules; nothing of this resource runs
                Reconciling True RefNotFound: there is no ConfigMap shop/rules
                TestsPassed Unknown NoTests: the resource has no tests
            "#]],
        );
    }

    #[test]
    fn the_same_state_gives_the_same_status_later() {
        let case = accepted(loaded(3, 3));
        let (first, urgency) = status(&case, &FalcoRuleStatus::default(), 1);
        assert_eq!(urgency, Urgency::Urgent);
        let (second, urgency) = status(&case, &first, 1000);
        assert_eq!(second, first);
        assert_eq!(urgency, Urgency::Routine);
    }
}
