//! All commands by name, found fuzzily; `layer 12`, `token 37`, `view 3` take their number here.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::input::Input;
use super::{Layer, Reaction, Wish, popup};
use crate::tui::action::Action;
use crate::tui::keymap::{Chord, Keymap};
use crate::tui::seen::Seen;
use crate::tui::view::View;
use crate::tui::widget::put;

struct Item {
    name: String,
    about: String,
    key: String,
    action: Action,
}

pub struct Palette {
    input: Input,
    items: Vec<Item>,
    at: usize,
}

/// How well `typed` matches `name`: every letter in order; runs and word starts count more. `None` = no match.
fn rate(typed: &str, name: &str) -> Option<i32> {
    let mut letters = typed.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).peekable();
    let (mut score, mut run, mut start) = (0, 0, true);
    for c in name.chars().flat_map(char::to_lowercase) {
        let Some(wanted) = letters.peek() else { break };
        if *wanted == c {
            letters.next();
            run += 1;
            score += 1 + 2 * run + 4 * start as i32;
        } else {
            run = 0;
        }
        start = !c.is_alphanumeric();
    }
    letters.peek().is_none().then_some(score * 8 - name.len() as i32)
}

impl Palette {
    pub fn new(views: &[View], keymap: &Keymap) -> Self {
        let item = |name: String, about: &str, action: Action| {
            let key = keymap.keys(action).into_iter().next().unwrap_or_default();
            Item { name, about: about.into(), key, action }
        };
        let views = views
            .iter()
            .enumerate()
            .map(|(i, v)| item(format!("view {}", v.name), &v.about, Action::View(i as u32 + 1)));
        let plain = Action::PLAIN.iter().map(|&a| item(a.name().replace('_', " "), a.about(), a));
        Self { items: views.chain(plain).collect(), input: Input::default(), at: 0 }
    }

    /// What can be chosen now, best first: a command with its number, then the items that match.
    fn matching(&self) -> Vec<(String, String, String, Action)> {
        let typed = self.input.text();
        let mut rated: Vec<(i32, &Item)> = self
            .items
            .iter()
            .filter_map(|item| {
                let name = rate(&typed, &item.name);
                let about = rate(&typed, &item.about).map(|r| r / 2 - 100);
                Some((name.max(about)?, item))
            })
            .collect();
        if !typed.is_empty() {
            rated.sort_by_key(|(score, _)| -score);
        }
        let exact = typed.parse::<Action>().ok().filter(|a| !Action::PLAIN.contains(a));
        let exact = exact.map(|a| (typed.clone(), a.about().to_string(), String::new(), a));
        let rest = rated.into_iter().map(|(_, i)| (i.name.clone(), i.about.clone(), i.key.clone(), i.action));
        exact.into_iter().chain(rest).collect()
    }
}

impl Layer for Palette {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let found = self.matching();
        let inside = popup(area, buf, theme, "commands", 72, 20);
        put::at(buf, inside, 0, 0, ":", theme.accent());
        let field = Rect { x: inside.x + 1.min(inside.width), width: inside.width.saturating_sub(1), ..inside };
        self.input.draw(field, buf, theme);
        let rows = inside.height.saturating_sub(2) as usize;
        self.at = self.at.min(found.len().saturating_sub(1));
        let top = (self.at + 1).saturating_sub(rows.max(1));
        if found.is_empty() {
            put::at(buf, inside, 0, 2, "no such command", theme.soft());
        }
        for (i, (name, about, key, _)) in found.iter().enumerate().skip(top).take(rows) {
            let y = (i - top) as u16 + 2;
            let here = i == self.at;
            if here {
                buf.set_style(Rect { y: inside.y + y, height: 1, ..inside }, theme.row());
            }
            put::at(buf, inside, 0, y, if here { "▸" } else { " " }, theme.accent());
            put::at(buf, inside, 2, y, &crate::tui::text::line(name), if here { theme.strong() } else { theme.base() });
            put::at(buf, Rect { width: inside.width.saturating_sub(7), ..inside }, 22, y, about, theme.soft());
            put::right(buf, inside, inside.width, y, key, theme.accent());
        }
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Esc => return Reaction::close(),
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at += 1,
            KeyCode::Enter => {
                return match self.matching().into_iter().nth(self.at) {
                    Some((_, _, _, action)) => Reaction::close().with(Wish::Act(action)),
                    None => Reaction::stay(),
                };
            }
            _ if self.input.key(chord) => self.at = 0,
            _ => {}
        }
        Reaction::stay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_must_come_in_order_and_word_starts_win() {
        assert!(rate("zi", "zoom in") > rate("zi", "size matters"));
        assert!(rate("zoom", "zoom in").is_some());
        assert_eq!(rate("mooz", "zoom in"), None);
        assert_eq!(rate("", "anything"), Some(-8));
    }

    #[test]
    fn the_best_command_is_on_top_and_numbers_are_taken() {
        let mut palette = Palette::new(&[], &Keymap::default());
        palette.input.insert("fold");
        assert_eq!(palette.matching()[0].3, Action::Fold);
        palette.input = Input::default();
        palette.input.insert("layer 12");
        assert_eq!(palette.matching()[0].3, Action::Layer(12));
    }
}
