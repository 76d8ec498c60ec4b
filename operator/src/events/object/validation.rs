//! What the API server checks when an Event is created through `events.k8s.io/v1`, for tests.
//!
//! After `ValidateEventCreate` of Kubernetes (`pkg/apis/core/validation/events.go`) and what it calls.

use std::sync::LazyLock;

use k8s_openapi::{api::events::v1::Event, jiff::Timestamp};
use regex::Regex;

/// Whether a text is a DNS-1123 subdomain: `validation.IsDNS1123Subdomain`.
fn is_subdomain(text: &str) -> bool {
    static REGEX: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").expect("it compiles")
    });
    text.len() <= 253 && REGEX.is_match(text)
}

/// Whether a text is a qualified name: `validation.IsQualifiedName`.
fn is_qualified(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    static REGEX: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$").expect("it compiles"));
    prefix.is_none_or(is_subdomain) && name.len() <= 63 && REGEX.is_match(name)
}

/// Everything that the API server would object to.
pub(crate) fn objections(event: &Event) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |ok: bool, message: &str| {
        if !ok {
            found.push(message.to_owned());
        }
    };
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    must(is_subdomain(event.metadata.name.as_deref().unwrap_or_default()), "metadata.name is no subdomain");
    must(
        is_subdomain(namespace) && namespace.len() <= 63 && !namespace.contains('.'),
        "metadata.namespace is no label",
    );
    let annotations = event.metadata.annotations.clone().unwrap_or_default();
    must(annotations.keys().all(|key| is_qualified(key)), "an annotation's name is not qualified");
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    must(size <= 256 << 10, "annotations are too large");

    let set = |time: Option<Timestamp>| time.is_some_and(|time| time != Timestamp::UNIX_EPOCH);
    must(set(event.event_time.as_ref().map(|time| time.0)), "eventTime is required");
    let regarding = event.regarding.clone().unwrap_or_default();
    let regarding_namespace = regarding.namespace.unwrap_or_default();
    must(
        if regarding_namespace.is_empty() {
            matches!(namespace, "default" | "kube-system")
        } else {
            regarding_namespace == namespace
        },
        "regarding.namespace does not match",
    );
    must(event.reporting_controller.as_deref().is_some_and(is_qualified), "reportingController is not qualified");
    for (field, value) in
        [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)]
    {
        let length = value.as_ref().map_or(0, String::len);
        must((1..=128).contains(&length), &format!("{field} has {length} bytes"));
    }
    must(event.note.as_ref().map_or(0, String::len) <= 1024, "note is too long");
    must(matches!(event.type_.as_deref(), Some("Normal" | "Warning")), "type is neither");
    if let Some(series) = &event.series {
        must(series.count >= 2, "series.count is below 2");
        must(set(Some(series.last_observed_time.0)), "series.lastObservedTime is required");
    }
    must(event.deprecated_count.is_none(), "deprecatedCount must be unset");
    must(event.deprecated_first_timestamp.is_none(), "deprecatedFirstTimestamp must be unset");
    must(event.deprecated_last_timestamp.is_none(), "deprecatedLastTimestamp must be unset");
    must(event.deprecated_source.is_none(), "deprecatedSource must be unset");
    found
}
