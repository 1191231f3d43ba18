//! `attnscope run`, and `attnscope` alone: the screen where there is a terminal, else a plain summary.

mod engine;
mod plain;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use indicatif::HumanBytes;
use miette::Result;

use super::args::{JudgeArgs, LaneArgs, ModelArgs, PromptArgs};
use super::exit::{Interrupted, Io, Usage};
use super::prompt::Prompt;
use super::screen::ScreenArgs;
use crate::engine::LogitRows;
use crate::model::locate::resolve;
use crate::trace::recorder::Tee;
use crate::trace::writer::Written;
use crate::tui::{Exit, text};

/// Step a model on the screen (or print a summary where there is no terminal)
///
/// Without --lane, streaming@50% and snapkv@50% run beside lane 0 (or what `attnscope config` says); `--lane full`
/// runs lane 0 alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tokens to decode for the summary, where there is no terminal
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub steps: u32,
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Write every frame to FILE, for `attnscope replay`, `diff` and `export`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Let --record overwrite an existing file
    #[arg(long, requires = "record")]
    pub force: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub lanes: LaneArgs,
    /// Logits of a step: keep them, drop them where nothing needs them (one lane, temperature 0 or 1), or drop them where
    /// the device draws without them (auto)
    #[arg(long, default_value = "auto", value_name = "auto|keep|drop")]
    pub logits: LogitRows,
    #[command(flatten)]
    pub judge: JudgeArgs,
}

pub fn run(args: Args) -> Result<()> {
    let terminal = io::stdout().is_terminal();
    if !terminal && args.screen.keys.is_none() {
        return plain::run(&args);
    }
    screen(&args, terminal)
}

fn screen(args: &Args, terminal: bool) -> Result<()> {
    // What is wrong with the words is said before the screen opens.
    args.model.device.check()?;
    let location = resolve(&args.model.model)?;
    let prompt = Prompt::read(&args.prompt)?;
    let lanes = args.lanes.specs()?;
    let engine = engine::spawn(location, prompt, args.model.options(lanes.clone()), args.judge.clone(), args.logits)
        .map_err(Io::while_("start the engine's thread"))?;
    let commands = engine.handle.commands.clone();
    let tee = match &args.record {
        Some(path) => Some(Tee::start(engine.handle.events.clone(), path, args.force, &lanes)?),
        None => None,
    };
    let events = tee.as_ref().map_or(&engine.handle.events, |tee| &tee.events).clone();
    let left = args.screen.show(terminal, commands, events);
    engine.cancel.store(true, Ordering::Relaxed);
    let failure = engine.failure.clone();
    // Ends the thread, so that the failure is complete.
    drop(engine);
    let written = tee.map(Tee::finish).transpose();
    let exit = left?;
    recorded(args, written?);
    if exit == Exit::Interrupted {
        return Err(Interrupted.into());
    }
    // An engine that could not start was shown on the screen; the exit code still tells.
    match failure.lock().map(|mut failure| failure.take()) {
        Ok(None) => Ok(()),
        Ok(Some(report)) => Err(report),
        Err(_) => Err(Usage::new("the engine has stopped", "run again; `attnscope doctor` shows this machine").into()),
    }
}

/// Says what `--record` has left.
fn recorded(args: &Args, written: Option<Written>) {
    let (Some(path), Some(written)) = (&args.record, written) else { return };
    let file = text::line(&path.display().to_string());
    eprintln!("{file}: {} frames recorded, {}", written.frames, HumanBytes(written.bytes));
}
