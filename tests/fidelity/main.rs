//! Numbers against Hugging Face transformers and NVIDIA kvpress.
//!
//! `tests/golden` holds a selection of the reference data (chosen tokens and points of every prompt, complete kept
//! sets); `ATTNSCOPE_GOLDEN` may name a folder with all of it in the same form.

mod adapters;
mod blockwise;
#[path = "../common/mod.rs"]
mod common;
mod depth;
mod dialects;
mod dropping;
mod exits;
mod family;
mod forward;
mod golden;
mod hyper;
mod interventions;
mod learned;
mod matrix;
mod memory;
mod policies;
mod readers;
mod sharing;
mod slow;
mod storage;
mod timings;
mod tiny;
mod travel;
