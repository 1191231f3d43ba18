//! Another policy for a lane: the spec, written.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::Input;
use super::{Layer, Reaction, Wish, popup};
use crate::policy::Policy;
use crate::tui::action::Action;
use crate::tui::keymap::Chord;
use crate::tui::seen::Seen;
use crate::tui::text;
use crate::tui::widget::put;

pub struct PolicyEditor {
    lane: u32,
    input: Input,
}

impl PolicyEditor {
    pub fn new(lane: u32, spec: &str) -> Self {
        let mut input = Input::default();
        input.insert(spec);
        Self { lane, input }
    }
}

impl Layer for PolicyEditor {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let title = format!("policy of lane {}", self.lane);
        let inside = popup(area, buf, seen.theme, &title, area.width.min(90), 5);
        self.input.draw(inside, buf, seen.theme);
        let words = match Policy::parse(&self.input.text()) {
            Ok(_) => "enter: the lane starts again after the prompt with it · esc keeps the old one".into(),
            Err(error) => text::line(&error.to_string()),
        };
        put::at(buf, inside, 0, 1, &text::fit(&words, inside.width as usize), seen.theme.faint());
        if let Err(error) = Policy::parse(&self.input.text()) {
            let help = text::fit(&text::line(error.help()), inside.width as usize);
            put::at(buf, inside, 0, 2, &help, seen.theme.faint());
        }
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Enter if Policy::parse(&self.input.text()).is_ok() => {
                Reaction::close().with(Wish::Policy(self.lane, self.input.text()))
            }
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
