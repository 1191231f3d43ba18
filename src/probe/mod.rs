//! Pure functions from tensors to numbers.

pub mod distribution;
pub mod finding;
