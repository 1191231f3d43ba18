//! Sends commands and questions to the engine without ever waiting for it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use crate::engine::message::{Command, Query};

/// A question that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asked(pub u64);

pub struct Asker {
    commands: Sender<Command>,
    next: u64,
    open: Vec<(Asked, Instant)>,
    /// The engine's end is gone.
    pub gone: bool,
}

impl Asker {
    pub fn new(commands: Sender<Command>) -> Self {
        Self { commands, next: 1, open: Vec::new(), gone: false }
    }

    /// True when the engine's mailbox took it.
    pub fn send(&mut self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.gone = true;
                false
            }
        }
    }

    pub fn ask(&mut self, query: Query) -> Option<Asked> {
        let id = self.next;
        if !self.send(Command::Query { id, query }) {
            return None;
        }
        self.next += 1;
        self.open.push((Asked(id), Instant::now()));
        Some(Asked(id))
    }

    /// An answer came: how long it took since the question was sent.
    pub fn answered(&mut self, asked: Asked) -> Option<Duration> {
        let at = self.open.iter().position(|(a, _)| *a == asked)?;
        Some(self.open.swap_remove(at).1.elapsed())
    }

    pub fn waiting(&self) -> usize {
        self.open.len()
    }
}
