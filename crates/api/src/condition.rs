//! Status conditions: the types and reasons that our resources may carry.
//!
//! Tools decide by these words (`kubectl wait --for=condition=Ready`, kstatus, Argo CD health), so both sets are
//! closed and documented; free text belongs in the message. The conventions are kstatus': `Ready` is always there,
//! `Reconciling` and `Stalled` only while true.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::words;

words! {
    /// What a condition is about.
    pub enum ConditionType {
        /// The declared configuration is in force: a rule runs on every node it targets, a sink accepts alerts.
        Ready,
        /// Work towards the declared configuration goes on. Present only while true.
        Reconciling,
        /// Nothing more happens until someone changes the resource. Present only while true.
        Stalled,
        /// The resource was understood and contains no mistake.
        Accepted,
        /// The nodes run what was accepted.
        Programmed,
        /// What the tests of the resource came to.
        TestsPassed,
        /// More alerts than there may be Events: some are only summed up. Present only while true, and no mistake of
        /// the resource.
        AlertStorm,
        /// The last alert reached its destination.
        Delivering,
        /// The test alert that the annotation `gyrfalcon.dev/test` asked for reached its destination. Present once
        /// one was asked for.
        TestDelivered,
        /// Something works less well than it should: events are lost, or sensors do not run what they should.
        Degraded,
    }
}

words! {
    /// Why a condition has its status.
    pub enum Reason {
        /// Every targeted node runs the current generation.
        AllNodesLoaded,
        /// Some targeted nodes do not run the current generation yet, or refused it.
        PartiallyLoaded,
        /// The change is on its way.
        Progressing,
        /// The change reaches the nodes step by step, as `spec.rollout` asks.
        RollingOut,
        /// The change did harm and was undone; nodes run what they ran before.
        RolledBack,
        /// No node is targeted, so there is nothing to run.
        NoNodes,
        /// It has rules on the audit log, and nothing receives the audit log.
        NoAuditReceiver,
        /// A node refused the rules, or cannot run any.
        LoadFailed,
        /// A node has not said that it runs the current bundle.
        NotAcknowledged,
        /// `spec.suspend` is true, or `spec.mode` is `Off`.
        Suspended,
        /// The resource contains no mistake.
        Valid,
        /// The text is not YAML, or not the YAML of a rules file.
        ParseError,
        /// A condition or an output does not compile: unknown field, wrong operator, undefined macro.
        CompileError,
        /// A key is not part of the rules language.
        UnknownField,
        /// An older resource defines a rule of the same name.
        NameConflict,
        /// An override, append or exception names something that is not defined, or that belongs to someone else.
        UnresolvedOverride,
        /// The rules require an engine version that this one does not offer.
        EngineVersion,
        /// The fields of the spec contradict each other.
        InvalidSpec,
        /// A ConfigMap that the resource names does not exist, or lacks the key.
        RefNotFound,
        /// What the resource names could not be read; it is tried again.
        SourceError,
        /// The namespace has more rules or resources than the SensorConfig allows.
        QuotaExceeded,
        /// All tests of the resource pass.
        TestsPassed,
        /// A test of the resource fails.
        TestsFailed,
        /// The resource has no tests.
        NoTests,
        /// Alerts come faster than the budget of Events allows.
        BudgetExceeded,
        /// The destination took the alert.
        Delivered,
        /// There has been no alert yet.
        NoAlerts,
        /// The destination did not answer.
        Unreachable,
        /// The destination refused the alert for good.
        Refused,
        /// The destination does not accept our credentials.
        AuthFailed,
        /// The destination asks for fewer alerts.
        RateLimited,
        /// A file could not be opened or written.
        WriteFailed,
        /// A Secret that the resource names does not exist, or lacks the key.
        SecretNotFound,
        /// What the resource asks for exists only outside of a cluster.
        Unsupported,
        /// Every sensor is connected and runs the current bundle.
        AllSensorsReady,
        /// Some sensors are not connected, or do not run the current bundle.
        SensorsNotReady,
        /// Nothing is lost, and every connected sensor runs what it should.
        Healthy,
        /// Sensors lose events.
        DropsHigh,
    }
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It doesn't.
    False,
    /// Not known yet.
    Unknown,
}

/// One condition, in the form of `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about. The types are listed in docs/crds.md.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// The `metadata.generation` that the condition was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Why, as one word for programs. The reasons are listed in docs/crds.md.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, as a sentence for people.
    #[schemars(length(max = 4096))]
    pub message: String,
}

impl Condition {
    /// A condition whose words come from the closed sets.
    pub fn new(
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
        observed_generation: Option<i64>,
        last_transition_time: Time,
    ) -> Self {
        Self {
            type_: type_.name().into(),
            status,
            observed_generation,
            last_transition_time,
            reason: reason.name().into(),
            message: message.into(),
        }
    }
}
