//! What to look for: rule files, the filter language, matching, alerts.
//!
//! Pure: no IO, no clock, no async. [`load::Loader`] makes a [`ruleset::Ruleset`] of files; a ruleset matches
//! events and makes alerts. Mistakes come as [`diagnostic::Diagnostic`]s.
#![forbid(unsafe_code)]

pub mod alert;
pub mod audit;
pub mod diagnostic;
mod docs;
pub mod duration;
pub mod filter;
pub mod load;
pub mod output;
pub mod pushdown;
pub mod ruleset;
pub mod scope;
pub mod source;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod unmet;
pub mod written;

pub use docs::generated;
