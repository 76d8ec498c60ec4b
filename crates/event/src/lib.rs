//! What happened: bytes from the kernel become an [`Event`](event::Event) that rules can ask about.
//!
//! Pure: no IO, no clock, no async. Time, host facts and user names arrive as arguments, so the same
//! input gives the same answer in the sensor, in the operator and in `gyrfalcon test`.
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod event;
pub mod fields;
pub mod params;
pub mod value;
