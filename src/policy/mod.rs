//! KV-cache policies: one file per policy over the traits in `part`, named by its `mod` line here and nowhere else.
//!
//! A spec (`snapkv@50%:window=32`) is checked against the registry (`spec`, `key`, `error`), assembled into a
//! [`Policy`] (`chain`), which asks its parts (`part`) and turns their scores into kept slots (`select`).

pub mod amount;
pub mod budget;
pub mod chain;
pub mod delta;
pub mod descriptor;
pub mod error;
pub mod intervene;
pub mod key;
pub mod part;
pub mod reader;
pub mod registry;
pub mod select;
pub mod sharing;
pub mod spec;
pub mod storage;
pub mod subset;
pub mod systems;
pub mod view;
pub mod watch;

mod block;
mod blockwise;
mod chunk;
mod chunkkv;
mod compensate;
mod criticalkv;
mod decoding;
mod duo;
mod echoatt;
mod edit;
mod entropychunkkv;
mod evictor;
mod pages;
pub(crate) mod product;
mod quadratic;
pub(crate) mod rope;
mod tensor_file;

mod actqkv;
mod attentiongate;
mod cam;
mod cap;
mod compactor;
mod cur;
mod dropkv;
mod expected;
mod fair;
mod fastgen;
mod fastkvzip;
mod finch;
mod full;
mod gate;
mod h2o;
mod keydiff;
mod keyformer;
mod knorm;
mod kvcompose;
mod kvcrush;
mod kvsharer;
mod kvzap;
mod kvzip;
mod lagkv;
mod laq;
mod leverage;
mod lookaheadkv;
mod magicpig;
mod merge;
mod needle;
mod noncausal;
mod observed;
mod oracle;
mod predictor;
mod protect;
mod qfilter;
mod quest;
mod random;
mod razor;
mod razor_heads;
mod rerotate;
mod scissorhands;
mod scope;
mod sharedattention;
mod simlayer;
mod snapkv;
mod streaming;
mod surveyed;
mod taskkv;
mod tidal;
mod tie;
mod tova;
mod vatp;
mod vnorm;
mod window;

#[cfg(test)]
mod chain_property_tests;
#[cfg(test)]
mod kvpress_tests;
#[cfg(test)]
mod kvpress_wrapper_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod testing;

pub use chain::{Decision, Policy};
pub use error::SpecError;
pub use spec::Spec;
