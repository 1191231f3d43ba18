//! Writing a trace beside a run: on its own thread, so that neither the engine nor the screen waits for the disk.

use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::error::{Result, TraceError};
use super::record::{Fork, Header};
use super::writer::{Writer, Written};
use crate::engine::LaneSpec;
use crate::engine::frame::Frame;
use crate::engine::message::{Event, ModelInfo, Speller};

/// What is written, in the order of the run.
enum Item {
    Ready(Arc<ModelInfo>, Speller),
    Prompt(Arc<[u32]>),
    Frame(Arc<Frame>),
    Rewound(u32),
    Forked(Fork),
}

/// Takes what happens in a run; the file follows.
pub struct Recorder {
    items: Sender<Item>,
    thread: JoinHandle<Result<Written>>,
}

/// Hears why the recording ended early, while the run goes on.
pub type Complaint = Box<dyn Fn(String) + Send>;

impl Recorder {
    /// Opens the file (see [`Writer::create`]). A file that cannot be written any more ends the recording, not the
    /// run: `complain` hears of it at once, `finish` says it again.
    pub fn start(path: &Path, force: bool, lanes: &[LaneSpec], complain: Complaint) -> Result<Self> {
        let mut writer = Writer::create(path, force)?;
        let (items, inbox) = unbounded();
        let lanes = lanes.to_vec();
        let work = move || {
            let Err(why) = write(&mut writer, &inbox, &lanes) else { return Ok(writer.written()) };
            let error = TraceError::Ended { frames: writer.written().frames, why: Box::new(why) };
            complain(error.to_string());
            Err(error)
        };
        let wrong = |source| TraceError::Io { doing: "start a thread that writes", path: path.to_owned(), source };
        let thread = Builder::new().name("attnscope-recorder".into()).spawn(work).map_err(wrong)?;
        Ok(Self { items, thread })
    }

    fn put(&self, item: Item) {
        // The thread ends early only where it could not write, which `finish` tells.
        let _ = self.items.send(item);
    }

    pub fn ready(&self, model: Arc<ModelInfo>, speller: Speller) {
        self.put(Item::Ready(model, speller));
    }

    pub fn prompt(&self, ids: Arc<[u32]>) {
        self.put(Item::Prompt(ids));
    }

    /// Frames that are not complete are left out.
    pub fn frame(&self, frame: Arc<Frame>) {
        if frame.partial.is_none() {
            self.put(Item::Frame(frame));
        }
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Ready(model, speller) => self.ready(model.clone(), speller.clone()),
            Event::Prompt(ids) => self.prompt(ids.clone()),
            Event::Frame(frame) => self.frame(frame.clone()),
            Event::Rewound { step } => self.put(Item::Rewound(*step)),
            Event::Forked { lane, from } => self.put(Item::Forked(Fork { lane: *lane, from: *from })),
            _ => {}
        }
    }

    /// Waits until everything is in the file.
    pub fn finish(self) -> Result<Written> {
        drop(self.items);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn write(writer: &mut Writer, inbox: &Receiver<Item>, lanes: &[LaneSpec]) -> Result<()> {
    let mut speller = None;
    for item in inbox {
        match (item, &speller) {
            (Item::Ready(model, spell), _) => {
                writer.header(&Header::new((*model).clone(), lanes))?;
                speller = Some(spell);
            }
            // Nothing happens before the model is there.
            (_, None) => {}
            (Item::Prompt(ids), Some(speller)) => writer.prompt(&ids, speller)?,
            (Item::Frame(frame), Some(speller)) => writer.frame(&frame, speller)?,
            (Item::Rewound(step), _) => writer.rewound(step)?,
            (Item::Forked(fork), _) => writer.forked(fork)?,
        }
    }
    Ok(())
}

/// A recording of everything that passes from an engine to whoever watches it.
pub struct Tee {
    /// In place of the engine's own events.
    pub events: Receiver<Event>,
    thread: JoinHandle<Result<Written>>,
}

impl Tee {
    /// Records `events` while they pass.
    pub fn start(events: Receiver<Event>, path: &Path, force: bool, lanes: &[LaneSpec]) -> Result<Self> {
        let (onward, passed) = unbounded();
        let complain = onward.clone();
        let complain = Box::new(move |what| {
            // Nobody is there to hear it any more only when the program ends.
            let _ = complain.send(Event::Notice(what));
        });
        let recorder = Recorder::start(path, force, lanes, complain)?;
        let pass = move || {
            for event in events {
                recorder.event(&event);
                if onward.send(event).is_err() {
                    break;
                }
            }
            drop(onward);
            recorder.finish()
        };
        let wrong = |source| TraceError::Io { doing: "start a thread that writes", path: path.to_owned(), source };
        let thread = Builder::new().name("attnscope-tee".into()).spawn(pass).map_err(wrong)?;
        Ok(Self { events: passed, thread })
    }

    /// Waits for the end of the file; the engine must have ended.
    pub fn finish(self) -> Result<Written> {
        let Self { events, thread } = self;
        let written = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drop(events);
        written
    }
}
