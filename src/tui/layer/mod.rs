//! Popups. The top one gets the keys; what it wants done goes back as wishes.

pub mod error;
pub mod head_picker;
pub mod help;
pub mod input;
pub mod intervene;
pub mod palette;
pub mod policy;
pub mod prompt;
pub mod search;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, BorderType, Clear, Widget};

use super::action::Action;
use super::keymap::Chord;
use super::seen::Seen;
use super::theme::Theme;

#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    Act(Action),
    Search(String),
    Prompt(String),
    /// Another policy for a lane.
    Policy(u32, String),
    /// A lane more, with this policy from the prompt on.
    Open(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reaction {
    pub stays: bool,
    pub wishes: Vec<Wish>,
}

impl Reaction {
    pub fn stay() -> Self {
        Self { stays: true, wishes: Vec::new() }
    }

    pub fn close() -> Self {
        Self { stays: false, wishes: Vec::new() }
    }

    pub fn with(mut self, wish: Wish) -> Self {
        self.wishes.push(wish);
        self
    }
}

pub trait Layer {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen);

    /// `action` is what the keymap says about the key.
    fn key(&mut self, chord: Chord, action: Option<Action>, seen: &Seen) -> Reaction;

    fn paste(&mut self, _words: &str, _seen: &Seen) -> Reaction {
        Reaction::stay()
    }
}

/// A cleared and framed box of at most `width` × `height` in the middle of `area`; returns its inside.
pub fn popup(area: Rect, buf: &mut Buffer, theme: &Theme, title: &str, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 3, width, height };
    Clear.render(place, buf);
    buf.set_style(place, theme.base());
    if width < 4 || height < 3 {
        return place;
    }
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.accent())
        .title(format!(" {title} "))
        .title_style(theme.strong());
    let inside = block.inner(place);
    block.render(place, buf);
    Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside }
}
