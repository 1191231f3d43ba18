//! `attnscope completions` and `attnscope man`: what shells and manuals want to know, from the command line itself.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use miette::Result;

use super::Cli;
use super::exit::Io;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    shell: Shell,
}

/// Print the manual page (roff; `attnscope man | man -l -`)
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The page of one subcommand
    command: Option<String>,
}

pub fn completions(args: CompletionArgs) -> Result<()> {
    // Collected first: the generator panics where it cannot write.
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "attnscope", &mut out);
    write(&out)
}

pub fn man(args: ManArgs) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => subcommand(&command, name)?,
    };
    let mut out = Vec::new();
    clap_mangen::Man::new(page).render(&mut out).map_err(Io::while_("make the manual page"))?;
    write(&out)
}

fn subcommand(command: &Command, name: &str) -> Result<Command, super::exit::Usage> {
    command.find_subcommand(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        super::exit::Usage::new(format!("there is no subcommand {name:?}"), format!("there are: {}", names.join(", ")))
    })
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Io::while_("write to standard output"))?;
    Ok(())
}
