//! Staged rollouts: which share of the nodes gets a change, as a pure function of how it has gone so far.

use std::time::Duration;

use api::rule::{Rollout, RolloutPhase, RolloutStatus, Strategy};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::conditions::whole_seconds;

/// How the change does on the nodes that have it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Every node that should have it in this step runs it.
    pub loaded: bool,
    /// Why a node refuses it; none when no node does.
    pub refused: Option<String>,
    /// Most alerts a minute of one node.
    pub alerts_per_minute: u64,
    /// For how long the step has lasted, on a clock that nobody sets.
    pub lasted: Duration,
}

/// How far the rollout should be now; none when the change goes to all nodes at once.
///
/// `before` is how far the rollout of this same change was; none when the change is new.
pub fn advance(
    rollout: Option<&Rollout>,
    before: Option<&RolloutStatus>,
    progress: &Progress,
    now: Timestamp,
) -> Option<RolloutStatus> {
    let rollout = rollout.filter(|rollout| rollout.strategy == Some(Strategy::Staged))?;
    let since = Time(whole_seconds(now));
    let at = |step: usize| {
        let percent = rollout.steps().get(step).copied().unwrap_or(100);
        let phase = if percent >= 100 { RolloutPhase::Completed } else { RolloutPhase::Progressing };
        RolloutStatus {
            step: u32::try_from(step + 1).unwrap_or(u32::MAX),
            percent,
            phase,
            since: since.clone(),
            reason: None,
        }
    };
    let Some(before) = before else { return Some(at(0)) };
    if before.phase != RolloutPhase::Progressing {
        return Some(before.clone());
    }
    if let Some(harm) = harm(rollout, progress) {
        let reason = Some(format!("rolled back at {} % of the nodes: {harm}", before.percent));
        return Some(RolloutStatus { phase: RolloutPhase::RolledBack, percent: 0, since, reason, ..before.clone() });
    }
    match progress.lasted >= rollout.interval() && progress.loaded {
        true => Some(at(before.step as usize)),
        false => Some(before.clone()),
    }
}

fn harm(rollout: &Rollout, progress: &Progress) -> Option<String> {
    if let Some(refused) = progress.refused.as_ref().filter(|_| rollout.rollback_on_load_error()) {
        return Some(format!("a node refuses it: {refused}"));
    }
    let most = rollout.rollback_alerts_per_minute()?;
    (progress.alerts_per_minute > u64::from(most)).then(|| format!("a node had more than {most} alerts in a minute"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(rollback: serde_json::Value) -> Rollout {
        let spec = serde_json::json!({
            "strategy": "Staged", "steps": [5, 50, 100], "interval": "5m", "rollback": rollback,
        });
        serde_json::from_value(spec).expect("a rollout")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn good() -> Progress {
        Progress { loaded: true, ..Progress::default() }
    }

    #[test]
    fn steps_follow_each_other_when_the_nodes_are_well() {
        let rollout = staged(serde_json::json!({}));
        let first = advance(Some(&rollout), None, &Progress::default(), at(0));
        let step = |before: &Option<RolloutStatus>, progress: &Progress, second: i64| {
            let since = before.as_ref().map_or(0, |before| before.since.0.as_second());
            let lasted = Duration::from_secs(u64::try_from(second - since).unwrap_or_default());
            advance(Some(&rollout), before.as_ref(), &Progress { lasted, ..progress.clone() }, at(second))
        };
        let percent = |status: &Option<RolloutStatus>| status.as_ref().map(|status| status.percent);
        assert_eq!(percent(&first), Some(5));
        assert_eq!(step(&first, &good(), 299), first);
        assert_eq!(step(&first, &Progress::default(), 900), first, "not before the nodes of the step run it");
        let second = step(&first, &good(), 300);
        assert_eq!(percent(&second), Some(50));
        let third = step(&second, &good(), 600);
        assert_eq!(third.as_ref().map(|status| (status.percent, status.phase)), Some((100, RolloutPhase::Completed)));
        assert_eq!(step(&third, &good(), 10_000), third);
    }

    #[test]
    fn a_clock_that_is_set_makes_no_step_shorter_or_longer() {
        let rollout = staged(serde_json::json!({}));
        let first = advance(Some(&rollout), None, &good(), at(10_000)).expect("a rollout");
        let lasting = |seconds| Progress { lasted: Duration::from_secs(seconds), ..good() };
        for wall in [0, 10_000_000] {
            assert_eq!(advance(Some(&rollout), Some(&first), &lasting(299), at(wall)), Some(first.clone()));
            let second = advance(Some(&rollout), Some(&first), &lasting(300), at(wall)).expect("a rollout");
            assert_eq!(second.percent, 50);
        }
    }

    #[test]
    fn a_node_that_refuses_it_or_a_storm_rolls_back_for_good() {
        let rollout = staged(serde_json::json!({"maxAlertsPerNodePerMinute": 30}));
        let first = advance(Some(&rollout), None, &good(), at(0)).expect("a rollout");
        let refused = Progress { refused: Some("no such field".to_owned()), ..good() };
        let back = advance(Some(&rollout), Some(&first), &refused, at(10)).expect("a rollout");
        assert_eq!((back.phase, back.percent), (RolloutPhase::RolledBack, 0));
        assert_eq!(advance(Some(&rollout), Some(&back), &good(), at(10_000)), Some(back));
        let storm = Progress { alerts_per_minute: 31, ..good() };
        let back = advance(Some(&rollout), Some(&first), &storm, at(10)).expect("a rollout");
        assert_eq!(
            back.reason.as_deref(),
            Some("rolled back at 5 % of the nodes: a node had more than 30 alerts in a minute")
        );
    }

    #[test]
    fn without_a_rollout_there_are_no_steps() {
        assert_eq!(advance(None, None, &good(), at(0)), None);
        assert_eq!(advance(Some(&Rollout::default()), None, &good(), at(0)), None);
    }
}
