//! Pure functions from tensors to numbers.

pub mod coverage;
pub mod damage;
pub mod depth;
pub mod difference;
pub mod distribution;
pub mod draft;
pub mod exit;
pub mod finding;
pub mod head_similarity;
pub mod hyper;
pub mod influence;
pub mod kv_distance;
pub mod latent;
mod map_row;
pub mod map_similarity;
pub mod massive;
pub mod numerics;
pub mod prompt_span;
pub mod sink;
pub mod spans;
pub mod spectrum;
pub mod square;
pub mod survival;
