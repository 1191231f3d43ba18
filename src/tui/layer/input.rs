//! A line of text being written.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_segmentation::UnicodeSegmentation;

use crate::tui::keymap::Chord;
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::tui::widget::put;

/// Longest text taken, bytes: a prompt may be pasted.
const LONGEST: usize = 1 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    before: String,
    after: String,
}

impl Input {
    pub fn text(&self) -> String {
        format!("{}{}", self.before, self.after)
    }

    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    pub fn insert(&mut self, words: &str) {
        if self.before.len() + self.after.len() + words.len() <= LONGEST {
            self.before.push_str(words);
        }
    }

    /// True when the key changed the text or moved in it.
    pub fn key(&mut self, chord: Chord) -> bool {
        match (chord.code, chord.ctrl, chord.alt) {
            (KeyCode::Char('u'), true, false) => self.before.clear(),
            (KeyCode::Char('w'), true, false) => {
                let end = self.before.trim_end().rfind(' ').map_or(0, |i| i + 1);
                self.before.truncate(end);
            }
            (KeyCode::Char(c), false, false) => self.insert(c.encode_utf8(&mut [0; 4])),
            (KeyCode::Backspace, false, _) => {
                let last = self.before.grapheme_indices(true).next_back().map_or(0, |(i, _)| i);
                self.before.truncate(last);
            }
            (KeyCode::Delete, false, false) => {
                let first = self.after.graphemes(true).next().map_or(0, str::len);
                self.after.drain(..first);
            }
            (KeyCode::Left, false, false) => {
                let last = self.before.grapheme_indices(true).next_back().map_or(0, |(i, _)| i);
                self.after.insert_str(0, &self.before[last..]);
                self.before.truncate(last);
            }
            (KeyCode::Right, false, false) => {
                let first = self.after.graphemes(true).next().map_or(0, str::len);
                self.before.extend(self.after.drain(..first));
            }
            (KeyCode::Home, false, false) => {
                self.after.insert_str(0, &self.before);
                self.before.clear();
            }
            (KeyCode::End, false, false) => self.before.push_str(&std::mem::take(&mut self.after)),
            _ => return false,
        }
        true
    }

    /// Draws the text in the first row of `area`, scrolled so that the place of writing shows.
    pub fn draw(&self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        let before = text::line(&self.before);
        let room = (area.width as usize).saturating_sub(2);
        let mut start = 0;
        for (i, cluster) in before.grapheme_indices(true) {
            if text::width(&before[start..]) <= room {
                break;
            }
            start = i + cluster.len();
        }
        let x = put::at(buf, area, 0, 0, &before[start..], theme.base());
        let after = text::line(&self.after);
        let under = after.graphemes(true).next().unwrap_or(" ");
        let x = put::at(buf, area, x, 0, under, theme.chosen());
        put::at(buf, area, x, 0, after.get(under.len()..).unwrap_or(""), theme.base());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_moving_and_taking_back() {
        let mut input = Input::default();
        for key in ["a", "b", "é", "left", "bs", "c", "end", "d", "home", "del"] {
            assert!(input.key(key.parse().unwrap()), "{key}");
        }
        assert_eq!(input.text(), "céd");
        assert!(!input.key("up".parse().unwrap()));
        input.insert(" two words");
        input.key("c-w".parse().unwrap());
        assert_eq!(input.text(), " two céd");
        input.key("c-u".parse().unwrap());
        assert_eq!(input.text(), "céd");
    }
}
