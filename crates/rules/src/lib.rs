//! What to look for: rule files, the filter language, compiled rulesets, matching, alerts. Pure.
#![forbid(unsafe_code)]

pub mod alert;
