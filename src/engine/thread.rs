//! The engine's own thread: commands in, events out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use super::core::{Core, Pause};
use super::message::*;
use crate::policy::Policy;

/// Turns text into prompt ids; says what is wrong otherwise.
pub type Encode = Box<dyn Fn(&str) -> Result<Vec<u32>, String> + Send>;

/// What a caller builds the core with; runs on the engine's thread and reports progress through the events.
pub struct Start {
    pub core: Core,
    pub info: ModelInfo,
    pub speller: Speller,
    /// Turns text into prompt ids; says what is wrong otherwise.
    pub encode: Encode,
    pub prompt: Vec<u32>,
}

/// A running engine. Dropping it stops the thread, also in the middle of a pass.
pub struct EngineHandle {
    pub commands: Sender<Command>,
    pub events: Receiver<Event>,
    quit: Arc<AtomicBool>,
    interrupt: Arc<std::sync::Mutex<Option<Arc<AtomicBool>>>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineHandle {
    /// Starts the thread; `start` opens the model there, so that nothing waits for it here.
    pub fn spawn(
        start: impl FnOnce(&Sender<Event>) -> Result<Start, String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = unbounded();
        let (outbox, events) = unbounded();
        let quit = Arc::new(AtomicBool::new(false));
        let interrupt: Arc<std::sync::Mutex<Option<Arc<AtomicBool>>>> = Arc::default();
        let (quit_here, interrupt_here) = (quit.clone(), interrupt.clone());
        let work = move || {
            let _ = outbox.send(Event::State(State::Loading));
            match start(&outbox) {
                Err(why) => {
                    let _ = outbox.send(Event::Failed(why));
                }
                Ok(start) => {
                    if let Ok(mut slot) = interrupt_here.lock() {
                        *slot = Some(start.core.interrupter());
                    }
                    let mut runner =
                        Runner { inbox, outbox, quit: quit_here, mode: Mode::Paused, encode: start.encode };
                    runner.run(start.core, start.info, start.speller, start.prompt);
                }
            }
        };
        let thread = std::thread::Builder::new().name("attnscope-engine".into()).spawn(work)?;
        Ok(Self { commands, events, quit, interrupt, thread: Some(thread) })
    }

    /// Stops a running pass between two operations and ends the thread.
    pub fn stop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        let _ = self.commands.send(Command::Quit);
        if let Ok(slot) = self.interrupt.lock()
            && let Some(flag) = slot.as_ref()
        {
            flag.store(true, Ordering::Relaxed);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Mode {
    Paused,
    Running { until: Until, left: Option<u32>, pace: Duration, next: Instant },
}

struct Runner {
    inbox: Receiver<Command>,
    outbox: Sender<Event>,
    quit: Arc<AtomicBool>,
    mode: Mode,
    encode: Encode,
}

/// What a command leaves to do.
enum Next {
    Go,
    Quit,
    Read(Vec<u32>),
}

impl Runner {
    fn tell(&self, event: Event) {
        // Nobody listens any more only when the program ends.
        let _ = self.outbox.send(event);
    }

    fn run(&mut self, mut core: Core, info: ModelInfo, speller: Speller, prompt: Vec<u32>) {
        let eos = info.eos.clone();
        self.tell(Event::Ready(Arc::new(info), speller));
        let mut read = Some(prompt);
        loop {
            if let Some(ids) = read.take() {
                match self.read(&mut core, ids) {
                    Next::Quit => return,
                    Next::Read(ids) => read = Some(ids),
                    Next::Go => {}
                }
                continue;
            }
            let command = match &self.mode {
                Mode::Paused => match self.inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return,
                },
                Mode::Running { next, .. } => match self.inbox.recv_deadline(*next) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            let next = match command {
                Some(command) => self.obey(&mut core, command),
                None => {
                    self.run_one(&mut core, &eos);
                    Next::Go
                }
            };
            match next {
                Next::Go => {}
                Next::Quit => return,
                Next::Read(ids) => read = Some(ids),
            }
        }
    }

    /// Reads a prompt; answers questions and obeys quit meanwhile.
    fn read(&mut self, core: &mut Core, ids: Vec<u32>) -> Next {
        self.mode = Mode::Paused;
        let total = ids.len() as u32;
        self.tell(Event::Prompt(ids.as_slice().into()));
        self.tell(Event::State(State::Prefill { done: 0, total }));
        let mut shown = 0;
        let mut later = Vec::new();
        let mut outcome = Next::Go;
        let result = core.read_prompt(&ids, |core, read| {
            if read as u32 != shown {
                shown = read as u32;
                self.tell(Event::State(State::Prefill { done: shown, total }));
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(Command::Query { id, query }) => {
                        let answer = core.answer(&query);
                        self.tell(Event::Answer { id, answer });
                    }
                    Ok(Command::Quit) | Err(TryRecvError::Disconnected) => {
                        outcome = Next::Quit;
                        return Pause::Stop;
                    }
                    Ok(Command::Prompt(text)) => match (self.encode)(&text) {
                        Ok(ids) => {
                            outcome = Next::Read(ids);
                            return Pause::Stop;
                        }
                        Err(why) => self.tell(Event::Failed(why)),
                    },
                    Ok(other) => later.push(other),
                    Err(TryRecvError::Empty) => return Pause::Continue,
                }
            }
        });
        match result {
            Ok(Some(frame)) => {
                self.tell(Event::Frame(Arc::new(frame)));
                self.tell(Event::State(State::Paused { why: None }));
            }
            Ok(None) => return outcome,
            Err(error) => {
                if self.quit.load(Ordering::Relaxed) {
                    return Next::Quit;
                }
                self.tell(Event::Failed(error.to_string()));
                self.tell(Event::State(State::Paused { why: Some("the prompt was not read".into()) }));
            }
        }
        // What was asked for while reading comes now, in order.
        for command in later {
            match self.obey(core, command) {
                Next::Go => {}
                other => return other,
            }
        }
        Next::Go
    }

    fn obey(&mut self, core: &mut Core, command: Command) -> Next {
        match command {
            Command::Quit => return Next::Quit,
            Command::Prompt(text) => match (self.encode)(&text) {
                Ok(ids) => return Next::Read(ids),
                Err(why) => self.tell(Event::Failed(why)),
            },
            Command::Query { id, query } => {
                let answer = core.answer(&query);
                self.tell(Event::Answer { id, answer });
            }
            Command::SetProbes(probes) => core.probes = probes,
            Command::CompareTimings { steps } => {
                core.alternate_timings(steps);
                self.start(Until::Tokens(steps), 0);
            }
            Command::Run { until, pace_ms } => self.start(until, pace_ms),
            Command::Pause => self.pause(None),
            Command::Step(grain) => {
                self.mode = Mode::Paused;
                let sublayers = match grain {
                    Grain::Token => usize::MAX,
                    Grain::Layer => 2,
                    Grain::Sublayer => 1,
                };
                match core.advance(sublayers) {
                    Ok(frame) => {
                        self.tell(Event::Frame(Arc::new(frame)));
                        self.tell(Event::State(State::Paused { why: None }));
                    }
                    Err(error) => self.failed(error.to_string()),
                }
            }
            Command::Rewind { step } => {
                self.mode = Mode::Paused;
                match core.rewind(step) {
                    Ok(()) => self.tell(Event::Rewound { step }),
                    Err(error) => self.failed(error.to_string()),
                }
            }
            Command::Fork { lane, step } => {
                self.mode = Mode::Paused;
                match core.fork(lane, step) {
                    Ok(()) => {
                        self.tell(Event::Rewound { step });
                        self.tell(Event::Forked { lane: core.lanes().len() as u32 - 1, from: lane });
                    }
                    Err(error) => self.failed(error.to_string()),
                }
            }
            Command::Change { lane, spec } => {
                self.mode = Mode::Paused;
                self.tell(Event::State(State::Running));
                match Policy::parse(&spec) {
                    Err(error) => self.tell(Event::Notice(error.to_string())),
                    Ok(policy) => match core.change(lane, policy, |frame| self.tell(Event::Frame(Arc::new(frame)))) {
                        Ok(()) => {}
                        Err(error) if Core::is_interrupted(&error) => self.failed(error.to_string()),
                        Err(error) => self.tell(Event::Notice(error.to_string())),
                    },
                }
                self.tell(Event::State(State::Paused { why: None }));
            }
            Command::Open { spec } => {
                self.mode = Mode::Paused;
                self.tell(Event::State(State::Running));
                match Policy::parse(&spec) {
                    Err(error) => self.tell(Event::Notice(error.to_string())),
                    Ok(policy) => match core.open_beside(policy, |frame| self.tell(Event::Frame(Arc::new(frame)))) {
                        Ok(lane) => self.tell(Event::Forked { lane, from: 0 }),
                        Err(error) if Core::is_interrupted(&error) => self.failed(error.to_string()),
                        Err(error) => self.tell(Event::Notice(error.to_string())),
                    },
                }
                self.tell(Event::State(State::Paused { why: None }));
            }
            Command::Force { lane, token } => {
                if let Err(error) = core.force(lane, token) {
                    self.failed(error.to_string());
                }
            }
        }
        Next::Go
    }

    fn start(&mut self, until: Until, pace_ms: u32) {
        let left = if let Until::Tokens(n) = until { Some(n) } else { None };
        let pace = Duration::from_millis(pace_ms as u64);
        self.mode = Mode::Running { until, left, pace, next: Instant::now() };
        self.tell(Event::State(State::Running));
    }

    fn failed(&mut self, why: String) {
        if !self.quit.load(Ordering::Relaxed) {
            self.tell(Event::Failed(why.clone()));
            self.pause(Some(why));
        }
    }

    fn pause(&mut self, why: Option<String>) {
        self.mode = Mode::Paused;
        self.tell(Event::State(State::Paused { why }));
    }

    /// One step of a run, and whether the run goes on.
    fn run_one(&mut self, core: &mut Core, eos: &[u32]) {
        let frame = match core.step() {
            Ok(frame) => frame,
            Err(error) => return self.failed(error.to_string()),
        };
        let Mode::Running { until, left, pace, next } = &mut self.mode else { return };
        *next = Instant::now().max(*next) + *pace;
        let why = match until {
            Until::Forever => None,
            Until::Tokens(_) => {
                *left = left.map(|n| n.saturating_sub(1));
                (*left == Some(0)).then(|| "as many tokens as asked for".to_string())
            }
            Until::EndOfText => frame.ends(eos).then(|| "end of text".to_string()),
            Until::Finding => frame.findings.first().map(|f| f.title.clone()),
        };
        self.tell(Event::Frame(Arc::new(frame)));
        if why.is_some() {
            self.pause(why);
        }
    }
}
