//! Models: where they come from, what their files say, and the decoder that runs them.

pub mod config;
pub mod tensor;
