//! One subcommand a file: arguments in, text or JSON out.

pub mod policies;
