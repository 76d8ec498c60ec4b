//! Rule resources: from what the cluster has to what sensors run, and to what each resource's status says.

pub mod rollout;
pub mod status;
