//! Rule resources: from what the cluster has to what sensors run, and to what each resource's status says.

pub mod history;
pub mod judge;
pub mod keep;
pub mod observe;
pub mod review;
pub mod rollout;
pub mod status;
