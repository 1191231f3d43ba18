//! One subcommand a file.

pub mod models;
pub mod pull;
