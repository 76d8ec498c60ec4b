//! What the rows of the outbox contain: alerts and sinks, as protobuf messages, so that a newer operator can add fields.

use std::sync::Arc;

use api::condition::Reason;
use prost::Message;
use rules::alert::{Alert, Priority};

use super::{Counters, TestOutcome, TestResult};

/// An alert, and what is known about where it happened.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Name of the sensor's spool.
    pub spool: Arc<str>,
    /// Its place there.
    pub seq: u64,
    /// The alert.
    pub alert: Alert,
    /// Namespace of the pod, as the operator knows it, not as the alert's text has it; none for the host.
    pub namespace: Option<Arc<str>>,
}

#[derive(Clone, PartialEq, Message)]
struct AlertRecord {
    #[prost(string, tag = "1")]
    hostname: String,
    #[prost(uint64, tag = "2")]
    time_ns: u64,
    #[prost(string, tag = "3")]
    rule: String,
    #[prost(string, tag = "4")]
    priority: String,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(string, repeated, tag = "6")]
    tags: Vec<String>,
    #[prost(string, tag = "7")]
    message: String,
    /// Names and JSON values, by turns.
    #[prost(string, repeated, tag = "8")]
    fields: Vec<String>,
}

/// Bytes from which [`decode`] makes the alert again.
pub fn encode(alert: &Alert) -> Vec<u8> {
    let fields = alert.output_fields.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]);
    let record = AlertRecord {
        hostname: alert.hostname.to_string(),
        time_ns: alert.time_ns,
        rule: alert.rule.to_string(),
        priority: alert.priority.name().to_owned(),
        source: alert.source.to_string(),
        tags: alert.tags.iter().map(ToString::to_string).collect(),
        message: alert.message.to_string(),
        fields: fields.collect(),
    };
    record.encode_to_vec()
}

/// The alert again; none when the bytes are not one.
pub fn decode(bytes: &[u8]) -> Option<Alert> {
    let record = AlertRecord::decode(bytes).ok()?;
    let pairs = record.fields.chunks_exact(2).filter_map(|pair| {
        let [name, value] = pair else { return None };
        Some((Arc::from(name.as_str()), serde_json::from_str(value).ok()?))
    });
    Some(Alert {
        hostname: record.hostname.into(),
        time_ns: record.time_ns,
        priority: Priority::parse(&record.priority)?,
        source: record.source.into(),
        tags: record.tags.into_iter().map(String::into_boxed_str).collect(),
        message: record.message.into(),
        output_fields: pairs.collect(),
        rule: record.rule.into(),
    })
}

/// A sink.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SinkRecord {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    sent: u64,
    #[prost(uint64, tag = "3")]
    failed: u64,
    #[prost(uint64, tag = "4")]
    retried: u64,
    #[prost(uint64, tag = "5")]
    dropped: u64,
    #[prost(uint64, tag = "6")]
    filtered: u64,
    #[prost(message, optional, tag = "7")]
    test: Option<TestRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct TestRecord {
    #[prost(string, tag = "1")]
    nonce: String,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    /// Absent while it is under way.
    #[prost(bool, optional, tag = "3")]
    delivered: Option<bool>,
    #[prost(string, tag = "4")]
    message: String,
    #[prost(string, tag = "5")]
    reason: String,
}

impl SinkRecord {
    pub fn new(number: u32, counters: &Counters, test: Option<&TestResult>) -> Self {
        Self {
            number,
            sent: counters.sent,
            failed: counters.failed,
            retried: counters.retried,
            dropped: counters.dropped,
            filtered: counters.filtered,
            test: test.map(TestRecord::new),
        }
    }

    pub fn counters(&self) -> Counters {
        Counters {
            sent: self.sent,
            failed: self.failed,
            retried: self.retried,
            dropped: self.dropped,
            filtered: self.filtered,
        }
    }

    pub fn test(&self) -> Option<TestResult> {
        let test = self.test.clone()?;
        let outcome = match test.delivered {
            None => TestOutcome::Started,
            Some(true) => TestOutcome::Delivered,
            Some(false) => TestOutcome::Failed {
                reason: reason(&test.reason).unwrap_or(Reason::Unreachable),
                message: test.message,
            },
        };
        Some(TestResult { nonce: test.nonce, at_ms: test.at_ms, outcome })
    }
}

impl TestRecord {
    fn new(test: &TestResult) -> Self {
        let (delivered, reason, message) = match &test.outcome {
            TestOutcome::Started => (None, "", ""),
            TestOutcome::Delivered => (Some(true), "", ""),
            TestOutcome::Failed { reason, message } => (Some(false), reason.name(), message.as_str()),
        };
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Self { nonce: test.nonce.clone(), at_ms: test.at_ms, delivered, message, reason }
    }
}

/// The reason that a word stands for.
pub fn reason(word: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.name() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_comes_out_as_it_went_in() {
        let alert = Alert {
            hostname: "node-1".into(),
            time_ns: u64::MAX,
            rule: "Read shadow".into(),
            priority: Priority::Informational,
            source: "syscall".into(),
            tags: ["a".into(), "b".into()].into(),
            message: "é\n".into(),
            output_fields: vec![
                ("fd.num".into(), serde_json::json!(-1)),
                ("proc.name".into(), serde_json::json!("nc")),
                ("proc.pname".into(), serde_json::Value::Null),
            ],
        };
        let again = decode(&encode(&alert)).expect("an alert");
        let json = |alert: &Alert| serde_json::to_string(alert).expect("JSON");
        assert_eq!(json(&again), json(&alert));
        assert!(decode(b"\xff\xff").is_none());
    }
}
