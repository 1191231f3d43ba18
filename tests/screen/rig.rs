//! An app without threads: events go in by hand, questions are answered from the script.

use std::sync::Arc;

use attnscope::engine::frame::Frame;
use attnscope::engine::message::*;
use attnscope::tui::action::Action;
use attnscope::tui::app::App;
use attnscope::tui::keymap::Keymap;
use attnscope::tui::theme::{Depth, Theme};
use attnscope::tui::{draw, dump, view};
use crossbeam_channel::{Receiver, unbounded};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::frames;

pub struct Rig {
    pub app: App,
    pub inbox: Receiver<Command>,
}

impl Rig {
    /// Nothing has been heard from the engine yet.
    pub fn silent(colours: Depth) -> Self {
        let (commands, inbox) = unbounded();
        let views = view::load(&[]).expect("our own views are valid");
        Self { app: App::new(views, Keymap::default(), Theme::new(colours), commands), inbox }
    }

    /// The model is known and the prompt of `n` tokens has been read by `lanes` lanes.
    pub fn ready(colours: Depth, n: usize, lanes: usize) -> Self {
        let mut rig = Self::silent(colours);
        rig.app.take(Event::Ready(Arc::new(frames::model()), frames::speller()));
        rig.app.take(Event::Prompt(frames::prompt(n).into()));
        rig.frame(frames::frame(0, n, lanes));
        rig.app.take(Event::State(State::Paused { why: None }));
        rig
    }

    pub fn frame(&mut self, frame: Frame) {
        self.app.take(Event::Frame(Arc::new(frame)));
    }

    pub fn draw(&mut self, width: u16, height: u16) -> Buffer {
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        draw::draw(&mut self.app, area, &mut buf);
        buf
    }

    /// Commands sent since the last look.
    pub fn sent(&mut self) -> Vec<Command> {
        self.inbox.try_iter().collect()
    }

    /// Answers all open questions; returns the other commands.
    pub fn answer(&mut self) -> Vec<Command> {
        let mut others = Vec::new();
        for command in self.sent() {
            match command {
                Command::Query { id, query } => self.app.take(Event::Answer { id, answer: frames::tile(&query) }),
                other => others.push(other),
            }
        }
        others
    }

    /// The settled screen as text.
    pub fn text(&mut self, width: u16, height: u16) -> String {
        self.draw(width, height);
        self.answer();
        self.draw(width, height);
        self.answer();
        dump::plain(&self.draw(width, height))
    }

    pub fn act(&mut self, actions: &[Action]) {
        actions.iter().for_each(|&a| self.app.act(a));
    }
}
