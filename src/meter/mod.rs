//! What a step costs: the order and time of its operations, how near they come to what the device can do, and what the
//! card says of itself meanwhile; what a KV cache would take, by arithmetic.

pub mod card;
pub mod kv;
pub mod nvml;
pub mod nvtx;
pub mod overhead;
pub mod peaks;
pub mod roofline;
pub mod timeline;
pub mod watch;
