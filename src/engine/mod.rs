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
mod judge;
mod lab;
mod lane;
mod maps;
pub mod message;
mod open;
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
pub use judge::is_oracle;
pub use lane::{Lane, LaneSpec};
pub use open::{Options, Precision, open};
pub use regret::REGRET_ABOVE;
pub use sampler::Sampler;
pub use thread::{EngineHandle, Start};
