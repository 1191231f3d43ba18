//! The engine behind the screen: the model is fetched and opened on its own thread, with progress as events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;
use miette::{Report, Result};

use crate::cli::args::JudgeArgs;
use crate::cli::prompt::{Prompt, encode, speller};
use crate::engine::message::Event;
use crate::engine::{EngineHandle, LogitRows, Options, Start, open};
use crate::model::fetch::{self, Progress};
use crate::model::locate::Location;
use crate::model::source::Model;

pub struct Engine {
    pub handle: EngineHandle,
    /// Set to give up a download.
    pub cancel: Arc<AtomicBool>,
    /// Why the engine could not start.
    pub failure: Arc<Mutex<Option<Report>>>,
}

pub fn spawn(
    location: Location,
    prompt: Prompt,
    options: Options,
    judge: JudgeArgs,
    logits: LogitRows,
) -> std::io::Result<Engine> {
    let (cancel, failure) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let (cancel_there, failure_there) = (cancel.clone(), failure.clone());
    let handle = EngineHandle::spawn(move |events| {
        start(&location, prompt, &options, &judge, logits, events, cancel_there).map_err(|report| {
            let why = words(&report);
            if let Ok(mut slot) = failure_there.lock() {
                *slot = Some(report);
            }
            why
        })
    })?;
    Ok(Engine { handle, cancel, failure })
}

fn start(
    location: &Location,
    prompt: Prompt,
    options: &Options,
    judge: &JudgeArgs,
    logits: LogitRows,
    events: &Sender<Event>,
    cancel: Arc<AtomicBool>,
) -> Result<Start> {
    let mut watcher = Watcher { events, what: String::new(), total: 0, cancel };
    let path = fetch::obtain(location, &mut watcher)?;
    // Fails where a pool exists already, which then serves as well.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global();
    let model = Arc::new(Model::open(&path)?);
    let ids = prompt.encode(&model)?;
    let chat = matches!(prompt, Prompt::Text { chat: true, .. });
    let progress = |done, total| {
        // Nobody listens any more only when the program ends.
        let _ = events.send(Event::Progress { what: "loading the weights (layers)".into(), done, total });
    };
    let (mut core, info) = open(&model, options, progress)?;
    judge.tell(&mut core, &prompt, &ids)?;
    core.logit_rows = logits;
    Ok(Start {
        core,
        info,
        speller: speller(&model),
        encode: Box::new(move |text| encode(&model, text, chat).map_err(|report| words(&report))),
        prompt: ids,
    })
}

/// An error with its advice, as the screen shows it.
fn words(report: &Report) -> String {
    match report.help() {
        Some(help) => format!("{report}; {help}"),
        None => report.to_string(),
    }
}

/// A download as seen from the screen.
struct Watcher<'a> {
    events: &'a Sender<Event>,
    what: String,
    total: u64,
    cancel: Arc<AtomicBool>,
}

impl Progress for Watcher<'_> {
    fn begin(&mut self, source: &str, total: Option<u64>) {
        self.what = format!("fetching from {source}");
        self.total = total.unwrap_or(0);
        self.advance(0);
    }

    fn advance(&mut self, bytes: u64) {
        let _ = self.events.send(Event::Progress { what: self.what.clone(), done: bytes, total: self.total });
    }

    fn note(&mut self, text: &str) {
        let _ = self.events.send(Event::Progress { what: text.to_owned(), done: 0, total: 0 });
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
