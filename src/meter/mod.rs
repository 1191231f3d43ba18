//! What a card says of itself while it works, and ranges for the tools that look at it.

pub mod card;
pub mod nvml;
pub mod nvtx;
pub mod watch;
