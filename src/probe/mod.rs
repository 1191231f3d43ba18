//! Pure functions from tensors to numbers.

pub mod damage;
pub mod depth;
pub mod distribution;
pub mod finding;
pub mod head_similarity;
pub mod kv_distance;
pub mod latent;
mod map_row;
pub mod map_similarity;
pub mod spans;
pub mod spectrum;
pub mod square;
