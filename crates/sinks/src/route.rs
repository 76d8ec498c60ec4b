//! Which alerts a sink gets.

use api::sink::AlertMatch;
use rules::alert::{Alert, Priority};

/// The `match` of a sink, ready to be asked for every alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    minimum_priority: Priority,
    rules: Vec<String>,
    any_tags: Vec<String>,
    all_tags: Vec<String>,
    no_tags: Vec<String>,
    sources: Vec<String>,
    namespaces: Vec<String>,
    only: Option<Box<str>>,
}

/// What a route says to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It goes to the sink.
    Admitted,
    /// The sink's `match` leaves it out.
    Filtered,
    /// It is of another namespace than the sink's, and none of the sink's business, not even as a count.
    Foreign,
}

impl Route {
    /// The route that a spec describes; all alerts where it has no `match`.
    pub fn new(spec: Option<&AlertMatch>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        let tags = spec.tags.unwrap_or_default();
        Self {
            minimum_priority: spec.minimum_priority.map_or(Priority::Debug, priority),
            rules: spec.rules,
            any_tags: tags.any,
            all_tags: tags.all,
            no_tags: tags.none,
            sources: spec.sources,
            namespaces: spec.namespaces,
            only: None,
        }
    }

    /// The same route for a sink that gets alerts of one namespace and no others.
    #[must_use]
    pub fn only_namespace(self, namespace: &str) -> Self {
        Self { only: Some(namespace.into()), ..self }
    }

    /// What becomes of an alert. The namespace is that of its pod, from whoever knows it, not from the alert's text;
    /// none for alerts about a node.
    pub fn admit(&self, alert: &Alert, namespace: Option<&str>) -> Admission {
        if self.only.is_some() && self.only.as_deref() != namespace {
            return Admission::Foreign;
        }
        match self.matches(alert) && self.matches_namespace(namespace) {
            true => Admission::Admitted,
            false => Admission::Filtered,
        }
    }

    /// Whether an alert goes to a sink where there are no namespaces.
    pub fn admits(&self, alert: &Alert) -> bool {
        self.admit(alert, None) == Admission::Admitted
    }

    fn matches_namespace(&self, namespace: Option<&str>) -> bool {
        let matches = |pattern: &String| namespace.is_some_and(|namespace| glob(pattern, namespace));
        self.namespaces.is_empty() || self.namespaces.iter().any(matches)
    }

    fn matches(&self, alert: &Alert) -> bool {
        let tagged = |tag: &String| alert.tags.iter().any(|has| **has == **tag);
        alert.priority <= self.minimum_priority
            && (self.sources.is_empty() || self.sources.iter().any(|source| **source == *alert.source))
            && (self.any_tags.is_empty() || self.any_tags.iter().any(tagged))
            && self.all_tags.iter().all(tagged)
            && !self.no_tags.iter().any(tagged)
            && (self.rules.is_empty() || self.rules.iter().any(|pattern| glob(pattern, &alert.rule)))
    }
}

fn priority(priority: api::scalar::Priority) -> Priority {
    match priority {
        api::scalar::Priority::Emergency => Priority::Emergency,
        api::scalar::Priority::Alert => Priority::Alert,
        api::scalar::Priority::Critical => Priority::Critical,
        api::scalar::Priority::Error => Priority::Error,
        api::scalar::Priority::Warning => Priority::Warning,
        api::scalar::Priority::Notice => Priority::Notice,
        api::scalar::Priority::Informational => Priority::Informational,
        api::scalar::Priority::Debug => Priority::Debug,
    }
}

/// Whether a pattern of `*` (any text) and `?` (any character) describes the whole text.
///
/// Greedy, going back to the last `*` only: never worse than the product of the two lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut last_star = None;
    loop {
        let (mut rest_pattern, mut rest_text) = (pattern.clone(), text.clone());
        match (rest_pattern.next(), rest_text.next()) {
            (Some('*'), _) => {
                last_star = Some((rest_pattern.clone(), text.clone()));
                pattern = rest_pattern;
                continue;
            }
            (Some(want), Some(is)) if want == '?' || want == is => {
                (pattern, text) = (rest_pattern, rest_text);
                continue;
            }
            (None, None) => return true,
            (Some(_) | None, _) => {}
        }
        // Let the last star take one more character.
        let Some((after_star, mut taken)) = last_star else { return false };
        if taken.next().is_none() {
            return false;
        }
        (pattern, text) = (after_star.clone(), taken.clone());
        last_star = Some((after_star, taken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    fn route(json: &str) -> Route {
        Route::new(Some(&serde_json::from_str(json).expect("a match")))
    }

    #[test]
    fn patterns_describe_whole_names() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*shell*", "Reverse shell in container", true),
            ("*ab", "aab", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbXd", false),
            ("?", "é", true),
            ("?", "", false),
            ("**a", "a", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn patterns_made_to_be_slow_are_not() {
        assert!(!glob(&"*a".repeat(128), &"a".repeat(127)));
    }

    #[test]
    fn without_a_match_everything_is_admitted() {
        assert!(Route::new(None).admits(&alert("x", Priority::Debug, &[])));
    }

    #[test]
    fn less_serious_alerts_are_left_out() {
        let route = route(r#"{"minimumPriority": "Warning"}"#);
        assert!(route.admits(&alert("x", Priority::Warning, &[])));
        assert!(route.admits(&alert("x", Priority::Emergency, &[])));
        assert!(!route.admits(&alert("x", Priority::Notice, &[])));
    }

    #[test]
    fn tags_can_be_asked_for_and_kept_out() {
        let route = route(r#"{"tags": {"any": ["a", "b"], "all": ["c"], "none": ["d"]}}"#);
        assert!(route.admits(&alert("x", Priority::Informational, &["b", "c"])));
        assert!(!route.admits(&alert("x", Priority::Informational, &["b"])));
        assert!(!route.admits(&alert("x", Priority::Informational, &["c"])));
        assert!(!route.admits(&alert("x", Priority::Informational, &["a", "c", "d"])));
    }

    #[test]
    fn namespaces_are_those_of_the_pod_and_nodes_have_none() {
        let route = route(r#"{"namespaces": ["team-*", "shop"]}"#);
        let alert = alert("x", Priority::Notice, &[]);
        for (namespace, want) in [
            (Some("team-a"), Admission::Admitted),
            (Some("shop"), Admission::Admitted),
            (Some("shop2"), Admission::Filtered),
            (None, Admission::Filtered),
        ] {
            assert_eq!(route.admit(&alert, namespace), want, "{namespace:?}");
        }
    }

    #[test]
    fn a_namespaces_sink_learns_nothing_of_others() {
        let route = route(r#"{"namespaces": ["*"], "minimumPriority": "Warning"}"#).only_namespace("shop");
        let (serious, noise) = (alert("x", Priority::Critical, &[]), alert("x", Priority::Debug, &[]));
        assert_eq!(route.admit(&serious, Some("shop")), Admission::Admitted);
        assert_eq!(route.admit(&noise, Some("shop")), Admission::Filtered);
        for namespace in [Some("other"), Some(""), None] {
            assert_eq!(route.admit(&serious, namespace), Admission::Foreign);
        }
    }

    #[test]
    fn every_field_must_hold() {
        let route = route(r#"{"rules": ["Read *"], "sources": ["syscall"]}"#);
        assert!(route.admits(&alert("Read shadow", Priority::Informational, &[])));
        assert!(!route.admits(&alert("Write shadow", Priority::Informational, &[])));
        let other = Alert { source: "k8s_audit".into(), ..alert("Read shadow", Priority::Informational, &[]) };
        assert!(!route.admits(&other));
    }
}
