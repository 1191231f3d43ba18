//! One subcommand a file: arguments in, text or JSON out.

mod analyze;
mod args;
mod bench;
mod compare;
mod config;
mod diff;
mod doctor;
mod eval;
mod exit;
mod exits;
mod export;
mod growth;
mod interrupt;
mod massive;
mod memory;
mod models;
mod numerics;
mod order;
mod output;
mod policies;
mod prompt;
mod pull;
mod replay;
mod run;
mod sample;
mod screen;
mod session;
mod settings;
mod shell;
mod summary;
mod sweep;
mod trace;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use settings::{Resolver, Settings};

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
    Analyze(Box<analyze::Args>),
    Growth(Box<growth::Args>),
    Exits(Box<exits::Args>),
    Numerics(Box<numerics::Args>),
    Order(Box<order::Args>),
    Massive(Box<massive::Args>),
    Sweep(Box<sweep::Args>),
    Eval(Box<eval::Args>),
    Replay(replay::Args),
    Diff(diff::Args),
    Export(export::Args),
    Bench(bench::Args),
    Memory(memory::Args),
    Models(models::Args),
    Pull(pull::Args),
    Policies(policies::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Completions(shell::CompletionArgs),
    Man(shell::ManArgs),
}

/// Parses the command line, runs it, and says how it went.
pub fn main() -> ExitCode {
    let parsed = match Cli::command().try_get_matches() {
        // As if `run` had been written: its defaults are the parser's.
        Ok(matches) if matches.subcommand().is_none() => Cli::command().try_get_matches_from(["attnscope", "run"]),
        parsed => parsed,
    };
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?.command, matches)));
    match parsed {
        Ok((Some(command), matches)) => exit::finish(run(command, &matches)),
        Ok((None, _)) => ExitCode::SUCCESS,
        Err(error) => exit::refused(&error),
    }
}

fn run(mut command: Command, matches: &ArgMatches) -> miette::Result<()> {
    if let Some((_, matches)) = matches.subcommand() {
        resolve(&mut command, matches)?;
    }
    match command {
        Command::Run(args) => run::run(*args),
        Command::Trace(args) => trace::run(*args),
        Command::Compare(args) => compare::run(*args),
        Command::Analyze(args) => analyze::run(*args),
        Command::Growth(args) => growth::run(*args),
        Command::Exits(args) => exits::run(*args),
        Command::Numerics(args) => numerics::run(*args),
        Command::Order(args) => order::run(*args),
        Command::Massive(args) => massive::run(*args),
        Command::Sweep(args) => sweep::run(*args),
        Command::Eval(args) => eval::run(*args),
        Command::Replay(args) => replay::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Export(args) => export::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Memory(args) => memory::run(args),
        Command::Models(args) => models::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Policies(args) => policies::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}

/// Puts the user's settings where the command line says nothing. Commands that have no use for them do not read them.
fn resolve(command: &mut Command, matches: &ArgMatches) -> miette::Result<()> {
    let load = Settings::load;
    match command {
        Command::Run(args) => {
            let settings = load()?;
            let resolver = Resolver::new(&settings, matches);
            resolver.model(&mut args.model);
            resolver.lanes(&mut args.lanes);
            resolver.judge(&mut args.judge);
            resolver.logits(&mut args.logits);
            resolver.screen(&mut args.screen.view, &mut args.screen.mouse);
        }
        Command::Trace(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Compare(args) => {
            let settings = load()?;
            let resolver = Resolver::new(&settings, matches);
            resolver.model(&mut args.model);
            resolver.judge(&mut args.judge);
        }
        Command::Analyze(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Growth(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Order(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Numerics(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Exits(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Massive(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Sweep(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Eval(args) => Resolver::new(&load()?, matches).model(&mut args.model),
        Command::Memory(args) => Resolver::new(&load()?, matches).model_name(&mut args.model),
        Command::Bench(args) => {
            let settings = load()?;
            let resolver = Resolver::new(&settings, matches);
            resolver.model(&mut args.model);
            resolver.logits(&mut args.logits);
        }
        Command::Replay(args) => Resolver::new(&load()?, matches).screen(&mut args.screen.view, &mut args.screen.mouse),
        _ => {}
    }
    Ok(())
}
