//! What the status of a sink says.
//!
//! `Ready` says whether the sink could deliver if it were asked: its spec is sound, its secrets are there and accepted.
//! `Delivering` says what became of the last attempt. A receiver that is away for a while makes a sink no less ready.

use api::{
    condition::{ConditionStatus, ConditionType, Reason},
    sink::{AlertSinkStatus, QueueStatus, SinkFailure, SinkTotals},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{Flow, Problem, SinkStatusView};
use crate::{
    conditions::{Conditions, cut},
    outbox::{Counters, TestOutcome, record},
};

/// Longest value of the test annotation that is kept.
pub(super) const NONCE_BYTES: usize = 256;

/// How much two statuses differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Not at all.
    None,
    /// In counts and times, which may wait.
    Counts,
    /// In what people wait for: a condition, a test, the type.
    Words,
}

/// Compares what a resource says with what it should say.
pub fn difference(before: Option<&AlertSinkStatus>, after: &AlertSinkStatus) -> Difference {
    let Some(before) = before else { return Difference::Words };
    let words = |status: &AlertSinkStatus| AlertSinkStatus {
        last_delivered: None,
        last_error: None,
        counters: None,
        queue: None,
        ..status.clone()
    };
    match before {
        before if before == after => Difference::None,
        before if words(before) == words(after) => Difference::Counts,
        _ => Difference::Words,
    }
}

/// The status of a sink. `view` is none when the sink was not looked at yet; `before` is what the resource says now.
pub fn plan_sink_status(
    generation: Option<i64>,
    view: Option<&SinkStatusView>,
    before: Option<&AlertSinkStatus>,
    now: Timestamp,
) -> AlertSinkStatus {
    let empty = AlertSinkStatus::default();
    let before = before.unwrap_or(&empty);
    let Some(view) = view.filter(|view| Some(view.generation) == generation) else {
        let mut conditions = Conditions::new(&before.conditions, generation, now);
        let message = "the change has not been looked at yet";
        conditions.is(ConditionType::Ready, false, Reason::Progressing, message);
        conditions.is(ConditionType::Reconciling, true, Reason::Progressing, message);
        return AlertSinkStatus { conditions: conditions.finish(), ..before.clone() };
    };
    let mut conditions = Conditions::new(&before.conditions, generation, now);
    accepted(&mut conditions, view);
    ready(&mut conditions, view);
    delivering(&mut conditions, view);
    let last_test = tested(&mut conditions, view, before);
    let mut status = AlertSinkStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        type_: view.kind.map(|kind| kind.name().to_owned()),
        last_delivered: view.last_delivered_ms.and_then(time).or_else(|| before.last_delivered.clone()),
        last_error: before.last_error.clone(),
        counters: Some(totals(&view.counters)),
        queue: Some(QueueStatus {
            depth: count(view.depth),
            oldest_age_seconds: view.oldest_ms.map_or(0, |oldest| age(oldest, now)),
        }),
        last_test,
    };
    if let Some(failure) = &view.last_failure
        && let Some(time) = time(failure.at_ms)
    {
        let message = cut(&failure.message, SinkFailure::MAX_MESSAGE_BYTES);
        status.last_error = Some(SinkFailure { time, message, http_code: failure.code });
    }
    status
}

fn accepted(conditions: &mut Conditions<'_>, view: &SinkStatusView) {
    match &view.problem {
        Some(Problem { reason, message, stalled: true }) => {
            conditions.is(ConditionType::Accepted, false, *reason, message);
            conditions.is(ConditionType::Stalled, true, *reason, message);
        }
        Some(_) | None => conditions.is(ConditionType::Accepted, true, Reason::Valid, "the spec contains no mistake"),
    }
}

fn ready(conditions: &mut Conditions<'_>, view: &SinkStatusView) {
    if let Some(problem) = &view.problem {
        return conditions.is(ConditionType::Ready, false, problem.reason, &problem.message);
    }
    if view.suspended {
        return conditions.is(ConditionType::Ready, true, Reason::Suspended, SUSPENDED);
    }
    match &view.flow {
        Flow::Failing { reason: reason @ (Reason::AuthFailed | Reason::Refused), message } => {
            conditions.is(ConditionType::Ready, false, *reason, message);
        }
        Flow::Idle | Flow::Delivered | Flow::Failing { .. } => {
            conditions.is(ConditionType::Ready, true, Reason::Valid, "the sink takes alerts");
        }
    }
}

const SUSPENDED: &str = "spec.suspend is true: nothing is sent, and alerts are not kept for later";

fn delivering(conditions: &mut Conditions<'_>, view: &SinkStatusView) {
    let type_ = ConditionType::Delivering;
    if let Some(problem) = &view.problem {
        return conditions.is(type_, false, problem.reason, &problem.message);
    }
    if view.suspended {
        return conditions.is(type_, false, Reason::Suspended, SUSPENDED);
    }
    match &view.flow {
        Flow::Idle => {
            let message = "no alert was sent since the operator started";
            conditions.set(type_, ConditionStatus::Unknown, Reason::NoAlerts, message);
        }
        Flow::Delivered => conditions.is(type_, true, Reason::Delivered, "the destination took the last alert"),
        Flow::Failing { reason, message } => conditions.is(type_, false, *reason, message),
    }
}

/// Sets the condition of the last test; returns the annotation's value for which it was made.
fn tested(conditions: &mut Conditions<'_>, view: &SinkStatusView, before: &AlertSinkStatus) -> Option<String> {
    let type_ = ConditionType::TestDelivered;
    let Some(test) = &view.test else {
        // The store may be younger than the test.
        if let Some(known) = before.conditions.iter().find(|known| known.type_ == type_.name()) {
            let reason = record::reason(&known.reason).unwrap_or(Reason::Progressing);
            conditions.set(type_, known.status, reason, &known.message);
        }
        return before.last_test.clone();
    };
    match &test.outcome {
        TestOutcome::Started => {
            let message =
                "the test was begun; if this does not change, the operator was stopped during it: set another value";
            conditions.set(type_, ConditionStatus::Unknown, Reason::Progressing, message);
        }
        TestOutcome::Delivered => {
            conditions.is(type_, true, Reason::Delivered, "the destination took the test alert");
        }
        TestOutcome::Failed { reason, message } => conditions.is(type_, false, *reason, message),
    }
    Some(cut(&test.nonce, NONCE_BYTES))
}

fn totals(counters: &Counters) -> SinkTotals {
    SinkTotals {
        sent: count(counters.sent),
        failed: count(counters.failed),
        retried: count(counters.retried),
        dropped: count(counters.dropped),
        filtered: count(counters.filtered),
    }
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whole seconds: the API server keeps no more.
fn time(ms: u64) -> Option<Time> {
    Timestamp::from_second(i64::try_from(ms / 1000).ok()?).ok().map(Time)
}

/// Seconds, in steps that grow with them: an age that changes all the time says nothing new.
fn age(since_ms: u64, now: Timestamp) -> i64 {
    let seconds = now.as_second().saturating_sub(count(since_ms / 1000)).max(0);
    let step = match seconds {
        0..60 => 10,
        60..600 => 60,
        _ => 600,
    };
    seconds / step * step
}

#[cfg(test)]
mod tests {
    use ::sinks::SinkType;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{outbox::TestResult, sinks::Failure};

    fn view() -> SinkStatusView {
        SinkStatusView {
            generation: 2,
            kind: Some(SinkType::Webhook),
            problem: None,
            suspended: false,
            flow: Flow::Idle,
            last_delivered_ms: None,
            last_failure: None,
            counters: Counters::default(),
            depth: 0,
            oldest_ms: None,
            test: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn check(view: &SinkStatusView, want: &Expect) {
        let status = plan_sink_status(Some(2), Some(view), None, at(1000));
        let lines =
            status.conditions.iter().map(|c| format!("{} {:?} {}: {}\n", c.type_, c.status, c.reason, c.message));
        want.assert_eq(&lines.collect::<String>());
    }

    fn failing(reason: Reason) -> SinkStatusView {
        SinkStatusView { flow: Flow::Failing { reason, message: "why; what to do".into() }, ..view() }
    }

    #[test]
    fn a_new_sink_is_ready_before_the_first_alert() {
        check(
            &view(),
            &expect![[r#"
            Accepted True Valid: the spec contains no mistake
            Delivering Unknown NoAlerts: no alert was sent since the operator started
            Ready True Valid: the sink takes alerts
        "#]],
        );
    }

    #[test]
    fn a_receiver_that_is_away_makes_a_sink_no_less_ready() {
        check(
            &failing(Reason::Unreachable),
            &expect![[r#"
            Accepted True Valid: the spec contains no mistake
            Delivering False Unreachable: why; what to do
            Ready True Valid: the sink takes alerts
        "#]],
        );
    }

    #[test]
    fn a_wrong_secret_does() {
        check(
            &failing(Reason::AuthFailed),
            &expect![[r#"
            Accepted True Valid: the spec contains no mistake
            Delivering False AuthFailed: why; what to do
            Ready False AuthFailed: why; what to do
        "#]],
        );
    }

    #[test]
    fn what_only_a_change_of_the_spec_can_cure_is_stalled() {
        let problem = Problem { reason: Reason::Unsupported, message: "a file".into(), stalled: true };
        check(
            &SinkStatusView { problem: Some(problem), ..view() },
            &expect![[r#"
            Accepted False Unsupported: a file
            Delivering False Unsupported: a file
            Ready False Unsupported: a file
            Stalled True Unsupported: a file
        "#]],
        );
    }

    #[test]
    fn a_change_that_was_not_looked_at_is_under_way() {
        let before = plan_sink_status(Some(2), Some(&view()), None, at(1000));
        let status = plan_sink_status(Some(3), Some(&view()), Some(&before), at(1001));
        assert_eq!(status.observed_generation, Some(2));
        let types: Vec<_> = status.conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_str())).collect();
        assert_eq!(types, [("Ready", "Progressing"), ("Reconciling", "Progressing")]);
    }

    #[test]
    fn a_test_outlives_the_store_that_knew_it() {
        let test = TestResult { nonce: "1".into(), at_ms: 1, outcome: TestOutcome::Delivered };
        let before = plan_sink_status(Some(2), Some(&SinkStatusView { test: Some(test), ..view() }), None, at(1000));
        let status = plan_sink_status(Some(2), Some(&view()), Some(&before), at(2000));
        assert_eq!(difference(Some(&before), &status), Difference::None);
        assert_eq!(status.last_test.as_deref(), Some("1"));
    }

    #[test]
    fn counts_may_wait_and_conditions_may_not() {
        let before = plan_sink_status(Some(2), Some(&view()), None, at(1000));
        let counted = SinkStatusView { counters: Counters { filtered: 3, ..Counters::default() }, ..view() };
        let counted = plan_sink_status(Some(2), Some(&counted), Some(&before), at(1010));
        assert_eq!(difference(Some(&before), &counted), Difference::Counts);
        let failure = Failure { at_ms: 5000, message: "x".repeat(1000), code: Some(401) };
        let failed = SinkStatusView { last_failure: Some(failure), ..failing(Reason::AuthFailed) };
        let failed = plan_sink_status(Some(2), Some(&failed), Some(&before), at(1010));
        assert_eq!(difference(Some(&before), &failed), Difference::Words);
        let error = failed.last_error.expect("an error");
        assert_eq!((error.http_code, error.message.len() <= 256), (Some(401), true));
    }
}
