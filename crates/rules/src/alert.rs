//! The message sent when a rule matched, in the shape that everything that reads Falco reads.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// How serious a rule's author finds a match. The order is Falco's: smaller is more serious.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// System is unusable.
    Emergency,
    /// Act now.
    Alert,
    /// Critical condition.
    Critical,
    /// Error condition.
    Error,
    /// Warning condition.
    Warning,
    /// Normal but significant.
    Notice,
    /// For information (`INFO` and `INFORMATIONAL` in rules).
    Informational,
    /// For debugging rules.
    Debug,
}

impl Priority {
    /// Every priority, most serious first.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Informational,
        Self::Debug,
    ];

    /// The spelling of Falco's output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emergency => "Emergency",
            Self::Alert => "Alert",
            Self::Critical => "Critical",
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Notice => "Notice",
            Self::Informational => "Informational",
            Self::Debug => "Debug",
        }
    }

    /// Reads a priority in any case; `INFO` is `INFORMATIONAL`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("info") {
            return Some(Self::Informational);
        }
        Self::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(text))
    }
}

/// One alert. Cheap to clone: everything that a rule gives is shared.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Name of the node.
    pub hostname: Arc<str>,
    /// Time of the event, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Name of the rule.
    pub rule: Arc<str>,
    /// Priority of the rule.
    pub priority: Priority,
    /// `syscall`, `k8s_audit` or `internal`.
    pub source: Arc<str>,
    /// Sorted, without duplicates.
    pub tags: Arc<[Box<str>]>,
    /// The rendered output without time and priority.
    pub message: Box<str>,
    /// Every field that the output names, in order of name; null where the event had no value.
    pub output_fields: Vec<(Arc<str>, serde_json::Value)>,
}

impl Alert {
    /// The text line: `HH:MM:SS.nnnnnnnnn: Priority message`, in UTC.
    pub fn text(&self) -> String {
        let seconds = self.time_ns / 1_000_000_000;
        let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let nanos = self.time_ns % 1_000_000_000;
        format!("{h:02}:{m:02}:{s:02}.{nanos:09}: {} {}", self.priority.name(), self.message)
    }
}

/// RFC 3339 in UTC with nanoseconds, the form of Falco's `time`.
pub fn iso8601(time_ns: u64) -> String {
    // Days to civil date: Howard Hinnant's algorithm, http://howardhinnant.github.io/date_algorithms.html
    let seconds = time_ns / 1_000_000_000;
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:09}Z", time_ns % 1_000_000_000)
}

impl Serialize for Alert {
    /// Falco's keys, in Falco's (alphabetical) order.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Fields<'a>(&'a [(Arc<str>, serde_json::Value)]);
        impl Serialize for Fields<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value)| (name.as_ref(), value)))
            }
        }
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("hostname", self.hostname.as_ref())?;
        map.serialize_entry("output", &self.text())?;
        map.serialize_entry("output_fields", &Fields(&self.output_fields))?;
        map.serialize_entry("priority", self.priority.name())?;
        map.serialize_entry("rule", self.rule.as_ref())?;
        map.serialize_entry("source", self.source.as_ref())?;
        map.serialize_entry("tags", &self.tags[..])?;
        map.serialize_entry("time", &iso8601(self.time_ns))?;
        map.end()
    }
}
