//! The engine: its own thread, commands in, frames out.

pub mod frame;
pub mod message;
