//! A run without a screen, for its plain summary and its recording.

use std::sync::Arc;

use miette::{Report, Result};

use super::Args;
use crate::cli::exit::Interrupted;
use crate::cli::output::print;
use crate::cli::prompt::{Prompt, spell, speller};
use crate::cli::session::{Session, tell, told};
use crate::cli::summary::{Asked, Summary};
use crate::engine::frame::Frame;
use crate::engine::{LaneSpec, Pause};
use crate::trace::recorder::Recorder;

pub fn run(args: &Args) -> Result<()> {
    let lanes = args.lanes.specs()?;
    let prompt = Prompt::read(&args.prompt)?;
    let recorder = match &args.record {
        // `finish` tells what went wrong at the end.
        Some(path) => Some(Recorder::start(path, args.force, &lanes, Box::new(|_| {}))?),
        None => None,
    };
    let walked = walk(args, &prompt, lanes, recorder.as_ref());
    // What has been recorded is whole however the run ended.
    let written = recorder.map(Recorder::finish).transpose();
    told();
    print(&walked?)?;
    super::recorded(args, written?);
    Ok(())
}

/// Reads the prompt and steps; returns the summary.
fn walk(args: &Args, prompt: &Prompt, lanes: Vec<LaneSpec>, recorder: Option<&Recorder>) -> Result<String> {
    let mut session = Session::open(&args.model, &args.model.options(lanes))?;
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, args.steps)?;
    args.judge.tell(&mut session.core, prompt, &ids)?;
    session.core.logit_rows = args.logits;
    let interrupt = session.interrupt.clone();
    // The summary has no times in it.
    session.core.probes.timings = recorder.is_some();
    if let Some(recorder) = recorder {
        recorder.ready(Arc::new(session.info.clone()), speller(&session.model));
        recorder.prompt(ids.as_slice().into());
    }
    let mut summary = Summary::default();
    let mut follow = |frame: Frame| {
        summary.take(&frame);
        if let Some(recorder) = recorder {
            recorder.frame(Arc::new(frame));
        }
    };
    let frame = session.core.read_prompt(&ids, |_, read| {
        tell(&format!("reading the prompt: {read} of {} tokens", ids.len()));
        if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue }
    })?;
    follow(frame.ok_or(Interrupted)?);
    for step in 1..=args.steps {
        interrupt.check()?;
        tell(&format!("step {step} of {}", args.steps));
        follow(session.core.step().map_err(Report::from)?);
    }
    let text = match prompt {
        Prompt::Ids(_) => spell(&session.model, &ids),
        Prompt::Text { text, .. } => text.clone(),
    };
    let sample = prompt.sample();
    let asked = Asked {
        text,
        name: sample.map(|sample| sample.name),
        look: sample.map(|sample| sample.header.look.as_str()),
        answer: sample.and_then(|sample| sample.header.answer.as_deref()),
    };
    Ok(summary.text(&session.info, &asked, |ids| spell(&session.model, ids)))
}
