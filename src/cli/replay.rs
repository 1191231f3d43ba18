//! `attnscope replay`: a recorded run on the screen, without its model.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use miette::Result;

use super::exit::{Interrupted, Io};
use super::output::print;
use super::screen::ScreenArgs;
use super::summary::{Asked, Summary};
use crate::trace::player::Player;
use crate::trace::{Standing, Trace, TraceError};
use crate::tui::{Exit, text};

/// Look at a recorded run (`run --record FILE`) on the screen, without its model
///
/// The keys are those of `run`: n makes the next recorded step, Space plays and pauses. What needs the model (attention
/// maps, another prompt, forks, forced tokens) is not in a recording and says so. Without a terminal: a summary of the
/// run as it stood at its end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The trace file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub screen: ScreenArgs,
}

pub fn run(args: Args) -> Result<()> {
    let trace = open(&args.file)?;
    let terminal = io::stdout().is_terminal();
    if terminal || args.screen.keys.is_some() {
        return screen(&args, trace, terminal);
    }
    Ok(print(&summary(trace)?)?)
}

/// A trace with at least one frame; says where its end is missing.
pub fn open(file: &std::path::Path) -> Result<Trace> {
    let trace = Trace::open(file)?;
    if let Some(tail) = trace.tail {
        eprintln!("{}: {}; everything before it is here", text::line(&file.display().to_string()), tail.words());
    }
    if !trace.has_frames() {
        return Err(TraceError::Empty { path: file.to_owned() }.into());
    }
    Ok(trace)
}

fn screen(args: &Args, trace: Trace, terminal: bool) -> Result<()> {
    let player = Player::spawn(trace).map_err(Io::while_("start the player's thread"))?;
    let (commands, events) = (player.commands.clone(), player.events.clone());
    let left = args.screen.show(terminal, commands, events);
    player.finish();
    match left? {
        Exit::Interrupted => Err(Interrupted.into()),
        Exit::Quit => Ok(()),
    }
}

fn summary(mut trace: Trace) -> Result<String> {
    let standing = Standing::of(&trace);
    let mut summary = Summary::default();
    for (_, entry) in standing.frames {
        summary.take(&trace.frame(entry)?);
    }
    let speller = trace.speller();
    let spell = |ids: &[u32]| ids.iter().map(|id| (speller.0)(*id)).collect::<String>();
    let asked = Asked { text: spell(&standing.prompt.unwrap_or_default()), ..Asked::default() };
    Ok(summary.text(&trace.header.model, &asked, spell))
}
