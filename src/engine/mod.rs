//! The engine: its own thread, commands in, frames out.

mod ahead;
mod answer;
mod assemble;
mod change;
mod core;
mod error;
mod export;
mod facts;
pub mod frame;
mod history;
mod inputs;
mod lab;
mod lane;
mod layer;
mod maps;
pub mod message;
mod open;
mod outcome;
mod pieces;
mod read;
mod reading;
mod regret;
mod sampler;
mod store;
mod text;
mod thread;
mod travel;
mod verdict;
mod view;

pub use self::core::{Core, Pause};
pub use error::EngineError;
pub use lane::{Lane, LaneSpec};
pub use open::{Options, Precision, open};
pub use sampler::Sampler;
pub use thread::{EngineHandle, Start};
