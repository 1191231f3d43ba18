//! One subcommand a file: arguments in, text or JSON out.

pub mod args;
mod compare;
mod exit;
mod interrupt;
pub mod models;
mod output;
pub mod policies;
mod prompt;
pub mod pull;
mod sample;
mod session;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Step a language model and see what happens inside: attention, residual stream, KV-cache policies, time and memory
#[derive(Debug, Parser)]
#[command(name = "attnscope", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Args),
    Models(models::Args),
    Policies(policies::Args),
    Pull(pull::Args),
}

/// Parses the command line, runs it, and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::refused(&error),
    };
    exit::finish(match cli.command {
        Command::Compare(args) => compare::run(args),
        Command::Models(args) => models::run(args),
        Command::Policies(args) => policies::run(args),
        Command::Pull(args) => pull::run(args),
    })
}
