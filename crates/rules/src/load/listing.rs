//! What is defined, as data: for `-L` and for documentation.

use std::sync::Arc;

use serde::Serialize;

use super::{collect::Definitions, compile::Checked, resolve::compiled_items};
use crate::alert::Priority;

/// Everything that is defined.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Rules without mistakes, enabled or not.
    pub rules: Vec<RuleListing>,
    /// Macros.
    pub macros: Vec<MacroListing>,
    /// Lists.
    pub lists: Vec<ListListing>,
}

/// A rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleListing {
    /// Its name.
    pub name: String,
    /// Its own `enabled`.
    pub enabled: bool,
    /// Its event source.
    pub source: String,
    /// Its priority.
    #[serde(serialize_with = "priority")]
    pub priority: Priority,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its condition with lists, macros and exceptions put in.
    pub condition: String,
    /// Its output with what the configuration appends.
    pub output: String,
    /// Output fields that the configuration adds.
    pub extra_fields: Vec<(String, String)>,
    /// Names of the event types it can match.
    pub events: Vec<&'static str>,
    /// Whether it asks for a capture.
    pub capture: bool,
    /// For how long, in milliseconds.
    pub capture_duration_ms: Option<u32>,
}

fn priority<S: serde::Serializer>(priority: &Priority, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(priority.name())
}

/// A macro.
#[derive(Debug, Clone, Serialize)]
pub struct MacroListing {
    /// Its name.
    pub name: String,
    /// Its condition as written.
    pub condition: String,
}

/// A list.
#[derive(Debug, Clone, Serialize)]
pub struct ListListing {
    /// Its name.
    pub name: String,
    /// Its items, with those of the lists in it.
    pub items: Vec<String>,
}

pub(super) fn listing<'c>(definitions: &Definitions, checked: impl Iterator<Item = &'c Arc<Checked>>) -> Listing {
    let rule = |checked: &Arc<Checked>| {
        let rule = &definitions.rules.entries[checked.rule];
        RuleListing {
            name: rule.name.as_str().to_owned(),
            enabled: rule.enabled,
            source: rule.source.to_string(),
            priority: rule.priority,
            tags: rule.tags.iter().map(ToString::to_string).collect(),
            condition: checked.canonical.clone(),
            output: checked.output_text.clone(),
            extra_fields: checked.extra_texts.clone(),
            events: checked.events.iter().map(event::catalogue::EventType::name).collect(),
            capture: rule.capture,
            capture_duration_ms: rule.capture_duration,
        }
    };
    let lists = definitions.lists.entries.iter().enumerate().map(|(at, list)| ListListing {
        name: list.name.as_str().to_owned(),
        items: compiled_items(definitions, at).into_iter().map(str::to_owned).collect(),
    });
    let macros = definitions.macros.entries.iter().map(|definition| MacroListing {
        name: definition.name.as_str().to_owned(),
        condition: definition.condition.as_str().to_owned(),
    });
    Listing { rules: checked.map(rule).collect(), macros: macros.collect(), lists: lists.collect() }
}
