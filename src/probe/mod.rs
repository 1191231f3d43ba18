//! Pure functions from tensors to numbers.

pub mod damage;
pub mod depth;
pub mod distribution;
pub mod finding;
