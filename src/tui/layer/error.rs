//! What went wrong, in full, until it is read.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Layer, Reaction, popup};
use crate::tui::action::Action;
use crate::tui::keymap::Chord;
use crate::tui::seen::Seen;
use crate::tui::text;
use crate::tui::widget::put;

pub struct Error {
    title: String,
    /// Safe lines.
    lines: Vec<String>,
}

impl Error {
    pub fn new(title: &str, message: &str) -> Self {
        Self { title: text::line(title), lines: message.lines().map(text::line).collect() }
    }
}

impl Layer for Error {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let width = area.width.min(76);
        let room = width.saturating_sub(4).max(1) as usize;
        let lines: Vec<String> = self.lines.iter().flat_map(|l| text::wrap(l, room)).collect();
        let inside = popup(area, buf, seen.theme, &self.title, width, lines.len() as u16 + 4);
        for (y, line) in lines.iter().enumerate() {
            put::at(buf, inside, 0, y as u16, line, Style::new().fg(seen.theme.bad));
        }
        put::at(
            buf,
            inside,
            0,
            lines.len() as u16 + 1,
            "any key closes this; what was recorded stays",
            seen.theme.faint(),
        );
    }

    fn key(&mut self, _chord: Chord, action: Option<Action>, _seen: &Seen) -> Reaction {
        match action {
            Some(Action::Quit) => Reaction::close().with(super::Wish::Act(Action::Quit)),
            _ => Reaction::close(),
        }
    }
}
