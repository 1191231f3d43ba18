//! All keys, from the keymap itself: those of the focused panel first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Layer, Reaction, Wish, popup};
use crate::tui::action::Action;
use crate::tui::keymap::{Chord, Keymap};
use crate::tui::panel::Panel;
use crate::tui::seen::Seen;
use crate::tui::text;
use crate::tui::view::View;
use crate::tui::widget::put;

enum Entry {
    Heading(String),
    Note(&'static str),
    Key { keys: String, about: String },
}

pub struct Help {
    entries: Vec<Entry>,
    top: usize,
}

/// Actions that move: a panel names one of them for all four.
const MOVES: [Action; 4] = [Action::Left, Action::Down, Action::Up, Action::Right];

impl Help {
    pub fn new(keymap: &Keymap, panel: &dyn Panel, views: &[View]) -> Self {
        let keys = |action: Action| keymap.keys(action).join(" ");
        let mut entries = vec![Entry::Heading(format!("panel: {}", panel.name()))];
        for &(action, about) in panel.keys() {
            let keys = if MOVES.contains(&action) {
                MOVES.map(|a| keymap.keys(a).pop().unwrap_or_default()).join(" ")
            } else {
                keys(action)
            };
            entries.push(Entry::Key { keys, about: about.into() });
        }
        entries.extend(panel.notes().iter().copied().map(Entry::Note));
        entries.push(Entry::Heading("views".into()));
        for (i, view) in views.iter().enumerate() {
            let keys = keys(Action::View(i as u32 + 1));
            entries.push(Entry::Key { keys, about: format!("{}: {}", view.name, view.about) });
        }
        entries.push(Entry::Heading("everywhere".into()));
        for &action in Action::PLAIN {
            let keys = keys(action);
            if !keys.is_empty() {
                entries.push(Entry::Key { keys, about: action.about().into() });
            }
        }
        entries.push(Entry::Heading("in the palette".into()));
        for (name, about) in Action::NUMBERED {
            entries
                .push(Entry::Key { keys: format!("{} {name} N", keymap.key(Action::Palette)), about: (*about).into() });
        }
        Self { entries, top: 0 }
    }
}

/// Columns of one column of keys.
const COLUMN: u16 = 56;
const KEYS: u16 = 14;

impl Layer for Help {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let columns = ((area.width.saturating_sub(6)) / COLUMN).clamp(1, 3);
        let rows = (self.entries.len() as u16).div_ceil(columns);
        let title = if rows + 2 > area.height { "keys · down for more" } else { "keys" };
        let inside = popup(area, buf, theme, title, (columns * COLUMN + 4).min(area.width), rows + 2);
        let rows = inside.height.max(1) as usize;
        self.top = self.top.min(self.entries.len().saturating_sub(rows * columns as usize));
        for (i, entry) in self.entries.iter().skip(self.top).take(rows * columns as usize).enumerate() {
            let (column, y) = ((i / rows) as u16, (i % rows) as u16);
            let x = column * COLUMN;
            let place = Rect { x: inside.x + x, width: inside.width.saturating_sub(x).min(COLUMN - 2), ..inside };
            match entry {
                Entry::Heading(words) => {
                    put::at(buf, place, 0, y, words, theme.strong().patch(Style::new().fg(theme.warn)));
                }
                Entry::Note(words) => {
                    put::at(buf, place, 0, y, words, theme.soft());
                }
                Entry::Key { keys, about } => {
                    put::at(buf, place, 0, y, &text::fit(keys, KEYS as usize - 1), theme.accent());
                    put::at(buf, place, KEYS, y, about, theme.base());
                }
            }
        }
    }

    fn key(&mut self, _chord: Chord, action: Option<Action>, _seen: &Seen) -> Reaction {
        match action {
            Some(Action::Down) => self.top += 1,
            Some(Action::PageDown) => self.top += 10,
            Some(Action::Up) => self.top = self.top.saturating_sub(1),
            Some(Action::PageUp) => self.top = self.top.saturating_sub(10),
            Some(Action::First) => self.top = 0,
            Some(Action::Last) => self.top = self.entries.len(),
            Some(Action::Help | Action::Close | Action::Quit) => return Reaction::close(),
            Some(action) => return Reaction::close().with(Wish::Act(action)),
            None => {}
        }
        Reaction::stay()
    }
}
