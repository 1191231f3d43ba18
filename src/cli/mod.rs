//! One subcommand a file: arguments in, text or JSON out.

pub mod args;
pub mod exit;
pub mod interrupt;
pub mod models;
pub mod output;
pub mod policies;
pub mod pull;
