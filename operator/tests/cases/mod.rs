//! Cases of the fleet that need words of their own.

pub mod faults;
pub mod rollout;
pub mod skew;
