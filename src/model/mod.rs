//! Models: where they come from, what their files say, and the decoder that runs them.

pub mod alteration;
pub mod catalog;
pub mod chat;
pub mod config;
mod config_check;
mod config_gguf;
mod config_hf;
pub mod decoder;
pub mod embedded;
pub mod error;
pub mod fetch;
pub mod gguf;
mod json;
pub mod kv_shape;
pub mod locate;
mod names;
pub mod residual;
mod rope_layout;
pub mod safetensors;
pub mod soft;
pub mod source;
pub mod tensor;
pub mod tokenizer;
pub mod weights;
