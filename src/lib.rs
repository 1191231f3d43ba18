//! attnscope: run a language model step by step and see what happens inside.
//!
//! Layers only look down: `tui` → `trace`/`engine` → `probe`/`policy`/`cache` → `model` → `backend`.

pub mod backend;
pub mod cache;
pub mod cli;
pub mod engine;
pub mod meter;
pub mod model;
pub mod policy;
pub mod probe;
pub mod simd;
pub mod trace;
pub mod tui;
