//! A layer and head by number: `12 3`, `12.3` or `L12H3`.

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
pub struct HeadPicker {
    input: Input,
}

/// Layer, and head where one was typed.
fn parse(words: &str) -> Option<(u32, Option<u32>)> {
    let mut numbers = words.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let layer = numbers.next()?.parse().ok()?;
    Some((layer, numbers.next().and_then(|n| n.parse().ok())))
}

impl Layer for HeadPicker {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let inside = popup(area, buf, seen.theme, "layer and head", 40, 4);
        self.input.draw(inside, buf, seen.theme);
        let limits = match seen.model() {
            Some(m) => {
                format!("layer 0–{}, head 0–{}: 12 3", m.layers.saturating_sub(1), m.heads.saturating_sub(1))
            }
            None => "12 3".into(),
        };
        put::at(buf, inside, 0, 1, &limits, seen.theme.faint());
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Enter | KeyCode::Esc => return Reaction::close(),
            _ => self.input.key(chord),
        };
        match parse(&self.input.text()) {
            Some((layer, Some(head))) => {
                Reaction::stay().with(Wish::Act(Action::Layer(layer))).with(Wish::Act(Action::Head(head)))
            }
            Some((layer, None)) => Reaction::stay().with(Wish::Act(Action::Layer(layer))),
            None => Reaction::stay(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_and_head_are_two_numbers_however_written() {
        for words in ["12 3", "12.3", "L12H3", "l12 h3", "12,3"] {
            assert_eq!(parse(words), Some((12, Some(3))), "{words}");
        }
        assert_eq!(parse("7"), Some((7, None)));
        assert_eq!(parse("99999999999"), None);
        assert_eq!(parse("x"), None);
    }
}
