//! One subcommand a file: arguments in, text or JSON out.

mod args;
mod bench;
mod compare;
mod diff;
mod doctor;
mod exit;
mod export;
mod interrupt;
mod models;
mod output;
mod policies;
mod prompt;
mod pull;
mod replay;
mod run;
mod sample;
mod session;
mod settings;
mod shell;
mod summary;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Step a language model and see what happens inside: attention, residual stream, KV-cache policies, time and memory
///
/// Without a subcommand: `run` on the default model and prompt.
#[derive(Debug, Parser)]
#[command(name = "attnscope", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Trace(Box<trace::Args>),
    Compare(Box<compare::Args>),
    Replay(replay::Args),
    Diff(diff::Args),
    Export(export::Args),
    Bench(bench::Args),
    Models(models::Args),
    Pull(pull::Args),
    Policies(policies::Args),
    Doctor(doctor::Args),
    Completions(shell::CompletionArgs),
    Man(shell::ManArgs),
}

/// Parses the command line, runs it, and says how it went.
pub fn main() -> ExitCode {
    let parsed = match Cli::try_parse() {
        // As if `run` had been written: its defaults are the parser's.
        Ok(Cli { command: None }) => Cli::try_parse_from(["attnscope", "run"]),
        parsed => parsed,
    };
    let command = match parsed {
        Ok(cli) => cli.command,
        Err(error) => return exit::refused(&error),
    };
    exit::finish(match command {
        Some(Command::Run(args)) => run::run(*args),
        Some(Command::Trace(args)) => trace::run(*args),
        Some(Command::Compare(args)) => compare::run(*args),
        Some(Command::Replay(args)) => replay::run(args),
        Some(Command::Diff(args)) => diff::run(args),
        Some(Command::Export(args)) => export::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Models(args)) => models::run(args),
        Some(Command::Pull(args)) => pull::run(args),
        Some(Command::Policies(args)) => policies::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Completions(args)) => shell::completions(args),
        Some(Command::Man(args)) => shell::man(args),
        None => Ok(()),
    })
}
