//! From rule resources to one bundle, and from a bundle to rules that run.
//!
//! Pure: the operator, the sensor, the webhook and the command line get the same answer for the same resources.
//! [`accept`] judges resources and makes the [`Bundle`]; [`compile`] makes of a bundle what one node runs. Both load
//! resources in the same way: one after the other, and one that does not load is taken back and reported while the
//! others go on.
#![forbid(unsafe_code)]

pub mod accept;
mod assemble;
mod bundle;
mod compile;
mod limits;
mod node;
mod outputs;
mod problem;
mod scope;
pub mod trial;

pub use accept::{Accepted, Candidate, ConfigMap, Outcome, Verdict, accept};
pub use assemble::{Assembly, file_options};
pub use bundle::{Bundle, ReadError, Settings, Staged, Unit, Unreadable, priority, short_hash};
pub use compile::{Compiled, UnitOutcome, UnitState, compile};
pub use limits::Limits;
pub use node::NodeFacts;
pub use outputs::{OutputMistake, appended};
pub use problem::Problem;
