//! Search in the tokens, jumping while one types.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::Input;
use super::{Layer, Reaction, Wish, popup};
use crate::tui::action::Action;
use crate::tui::keymap::Chord;
use crate::tui::seen::Seen;
use crate::tui::session::Session;
use crate::tui::widget::put;

/// Positions of the tokens that hold a match of `words` in the text, case aside; a match may span tokens.
pub fn matches(session: &Session, tokens: &[u32], words: &str) -> Vec<usize> {
    let wanted = crate::tui::text::token(words).to_lowercase();
    if words.is_empty() {
        return Vec::new();
    }
    let mut joined = String::new();
    let mut ends = Vec::with_capacity(tokens.len());
    for &id in tokens {
        joined.push_str(&session.spell(id).to_lowercase());
        ends.push(joined.len());
    }
    let mut found = Vec::new();
    for (start, hit) in joined.match_indices(&wanted) {
        let first = ends.partition_point(|&end| end <= start);
        let last = ends.partition_point(|&end| end < start + hit.len());
        found.extend(first..=last.min(tokens.len().saturating_sub(1)));
    }
    found.dedup();
    found
}

#[derive(Default)]
pub struct Search {
    input: Input,
}

impl Search {
    fn look(&self) -> Reaction {
        Reaction::stay().with(Wish::Search(self.input.text()))
    }
}

impl Layer for Search {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let title = match (self.input.is_empty(), seen.found.len()) {
            (true, _) => "search the tokens".into(),
            (false, 0) => "search: nothing found".into(),
            (false, n) => format!("search: {n} found"),
        };
        // Low on the screen: the tokens stand above.
        let low = Rect { y: area.bottom().saturating_sub(3), height: area.height.min(3), ..area };
        let inside = popup(low, buf, seen.theme, &title, 50, 3);
        put::at(buf, inside, 0, 0, "/", seen.theme.accent());
        let field = Rect { x: inside.x + 1.min(inside.width), width: inside.width.saturating_sub(1), ..inside };
        self.input.draw(field, buf, seen.theme);
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Enter => Reaction::close(),
            KeyCode::Esc => Reaction::close().with(Wish::Search(String::new())),
            _ if self.input.key(chord) => self.look(),
            _ => Reaction::stay(),
        }
    }

    fn paste(&mut self, words: &str, _seen: &Seen) -> Reaction {
        self.input.insert(words);
        self.look()
    }
}
