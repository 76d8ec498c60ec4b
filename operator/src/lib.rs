//! The operator: reconciles custom resources, serves sensors, writes Events and status.
#![forbid(unsafe_code)]
