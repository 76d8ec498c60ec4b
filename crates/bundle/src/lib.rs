//! From rule resources to one bundle, and from a bundle to rules that run.
//!
//! Pure: the operator, the sensor, the webhook and the command line get the same answer for the same resources.
#![forbid(unsafe_code)]
