//! A trace in place of an engine: the same commands in, the same events out.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::error::Result;
use super::reader::{Entry, Trace};
use super::standing::Standing;
use crate::engine::frame::Frame;
use crate::engine::message::{Answer, Command, Event, Query, State, Until};

const END: &str = "end of the trace";

/// A playing trace. It ends by itself when nobody sends commands any more, or with `Command::Quit`.
pub struct Player {
    pub commands: Sender<Command>,
    pub events: Receiver<Event>,
    thread: JoinHandle<()>,
}

impl Player {
    /// Starts the thread; the frames up to the first one of the trace are shown at once.
    pub fn spawn(trace: Trace) -> std::io::Result<Self> {
        let (commands, inbox) = unbounded();
        let (outbox, events) = unbounded();
        let mut desk = Desk { trace, next: 0, shown: Standing::default(), outbox, mode: Mode::Paused };
        let thread = Builder::new().name("attnscope-player".into()).spawn(move || desk.run(&inbox))?;
        Ok(Self { commands, events, thread })
    }

    /// Waits until the thread has ended.
    pub fn finish(self) {
        drop(self.commands);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

enum Mode {
    Paused,
    Running { until: Until, left: u32, pace: Duration, next: Instant },
}

struct Desk {
    trace: Trace,
    /// The entry that comes next.
    next: usize,
    /// What has been shown of the run, and not gone back over.
    shown: Standing,
    outbox: Sender<Event>,
    mode: Mode,
}

impl Desk {
    fn tell(&self, event: Event) {
        // Nobody listens any more only when the program ends.
        let _ = self.outbox.send(event);
    }

    fn run(&mut self, inbox: &Receiver<Command>) {
        let model = Arc::new(self.trace.header.model.clone());
        self.tell(Event::Ready(model, self.trace.speller()));
        self.step();
        self.pause("replay");
        if let Some(tail) = self.trace.tail {
            self.tell(Event::Notice(tail.words()));
        }
        loop {
            let command = match &self.mode {
                Mode::Paused => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Mode::Running { next, .. } => inbox.recv_deadline(*next),
            };
            match command {
                Ok(Command::Quit) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => self.run_one(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Step(_) => {
                self.mode = Mode::Paused;
                let why = if self.step().is_some() { "replay" } else { END };
                self.pause(why);
            }
            Command::Run { until, pace_ms } => {
                let left = if let Until::Tokens(n) = until { n } else { u32::MAX };
                let pace = Duration::from_millis(u64::from(pace_ms));
                self.mode = Mode::Running { until, left, pace, next: Instant::now() };
                self.tell(Event::State(State::Running));
            }
            Command::Pause => self.pause("replay"),
            Command::Rewind { step } => self.rewind(step),
            Command::Query { id, query } => {
                let what = match query {
                    Query::Tile { .. } => "attention maps",
                    Query::Row { .. } | Query::Column { .. } => "the attention of single heads",
                    Query::Why { .. } => "the scores of policies",
                    Query::PromptNll => "the surprise of the prompt's tokens",
                    Query::Depth { .. } => "what depth is made of in other tokens than the last ones",
                    Query::Drift => "the queries, keys and values that attention is computed from",
                    Query::Peaks => "what the device does at best, which was not measured then",
                };
                let answer = Answer::Nothing(format!("a trace holds frames, not {what}: run the model to see them"));
                self.tell(Event::Answer { id, answer });
            }
            Command::Fork { .. } => self.refuse("forked"),
            Command::Change { .. } => self.refuse("given another policy"),
            Command::Open { .. } => self.refuse("given another lane"),
            Command::Force { .. } => self.refuse("given another token"),
            Command::Prompt(_) => self.refuse("given another prompt"),
            Command::CompareTimings { .. } => self.refuse("measured again without times"),
            Command::SetProbes(_) => self.refuse("measured again with other probes"),
            Command::Quit => {}
        }
    }

    fn refuse(&self, what: &str) {
        self.tell(Event::Notice(format!("a recorded run cannot be {what}: that needs the model")));
    }

    fn pause(&mut self, why: &str) {
        self.mode = Mode::Paused;
        self.tell(Event::State(State::Paused { why: Some(why.to_owned()) }));
    }

    /// Tells everything up to and with the next frame; `None` at the end, or where the file cannot be read.
    fn step(&mut self) -> Option<Arc<Frame>> {
        while let Some(entry) = self.trace.entries.get(self.next).cloned() {
            let index = self.next;
            let frame = match self.read(index, &entry) {
                Ok(frame) => frame,
                Err(error) => {
                    self.tell(Event::Failed(error.to_string()));
                    return None;
                }
            };
            self.next += 1;
            self.shown.follow(index, &entry);
            match entry {
                Entry::Prompt(ids) => self.tell(Event::Prompt(ids)),
                Entry::Rewound(step) => self.tell(Event::Rewound { step }),
                Entry::Forked(fork) => self.tell(Event::Forked { lane: fork.lane, from: fork.from }),
                Entry::Frame(_) => {}
            }
            if let Some(frame) = frame {
                self.tell(Event::Frame(frame.clone()));
                return Some(frame);
            }
        }
        None
    }

    fn read(&mut self, index: usize, entry: &Entry) -> Result<Option<Arc<Frame>>> {
        match entry {
            Entry::Frame(_) => self.trace.frame(index).map(|frame| Some(Arc::new(frame))),
            _ => Ok(None),
        }
    }

    /// Back to where `step` was on the screen; what was recorded after it comes again.
    fn rewind(&mut self, step: u32) {
        let shown = self.shown.frames.partition_point(|(s, _)| *s <= step);
        let Some(&(step, index)) = shown.checked_sub(1).and_then(|at| self.shown.frames.get(at)) else { return };
        self.shown.frames.truncate(shown);
        self.next = index + 1;
        self.tell(Event::Rewound { step });
        self.pause("replay");
    }

    fn run_one(&mut self) {
        let frame = self.step();
        let Mode::Running { until, left, pace, next } = &mut self.mode else { return };
        let Some(frame) = frame else { return self.pause(END) };
        *next = Instant::now().max(*next) + *pace;
        let eos = &self.trace.header.model.eos;
        let why = match until {
            Until::Forever => None,
            Until::Tokens(_) => {
                *left = left.saturating_sub(1);
                (*left == 0).then(|| "as many tokens as asked for".to_owned())
            }
            Until::EndOfText => frame.ends(eos).then(|| "end of text".to_owned()),
            Until::Finding => frame.findings.first().map(|finding| finding.title.clone()),
        };
        if let Some(why) = why {
            self.pause(&why);
        }
    }
}
