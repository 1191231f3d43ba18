//! Another prompt: the run starts again with it.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::Input;
use super::{Layer, Reaction, Wish, popup};
use crate::tui::action::Action;
use crate::tui::keymap::Chord;
use crate::tui::seen::Seen;
use crate::tui::widget::put;

#[derive(Default)]
pub struct Prompt {
    input: Input,
}

impl Layer for Prompt {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let inside = popup(area, buf, seen.theme, "start again with this prompt", area.width.min(90), 4);
        self.input.draw(inside, buf, seen.theme);
        put::at(buf, inside, 0, 1, "enter starts · esc keeps the run · lanes and settings stay", seen.theme.faint());
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Enter if !self.input.is_empty() => Reaction::close().with(Wish::Prompt(self.input.text())),
            KeyCode::Esc => Reaction::close(),
            _ => {
                self.input.key(chord);
                Reaction::stay()
            }
        }
    }

    fn paste(&mut self, words: &str, _seen: &Seen) -> Reaction {
        self.input.insert(words);
        Reaction::stay()
    }
}
