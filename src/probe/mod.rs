//! Pure functions from tensors to numbers.

pub mod coverage;
pub mod damage;
pub mod depth;
pub mod distribution;
pub mod draft;
pub mod exit;
pub mod finding;
pub mod head_similarity;
pub mod influence;
pub mod hyper;
pub mod kv_distance;
pub mod latent;
mod map_row;
pub mod map_similarity;
pub mod numerics;
pub mod prompt_span;
pub mod spans;
pub mod spectrum;
pub mod square;
pub mod survival;
