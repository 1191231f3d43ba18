//! Panels: each one a file that owns its state, keys, title, drawing and tests. One line each in `build`.

pub mod candidates;
pub mod card;
pub mod depth;
pub mod drift;
pub mod exits;
pub mod findings;
pub mod growth;
pub mod heads;
pub mod lens;
pub mod map;
pub mod memory;
pub mod policies;
pub mod streams;
pub mod timings;
pub mod tokens;
pub mod why;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::engine::message::Answer;

use super::action::Action;
use super::asker::{Asked, Asker};
use super::seen::{Seen, Selection};

/// What a panel made of an action or a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Not mine: the screen decides.
    Ignored,
    Done,
    /// Mine, and the screen shall do this too.
    Then(Action),
}

/// The two lines of a panel's border: what it shows (with the key facts), and the legend of its scale.
#[derive(Debug, Clone, Default)]
pub struct Caption<'a> {
    pub facts: Line<'a>,
    pub legend: Line<'a>,
}

/// A place on the screen that shows one thing about the run.
///
/// Order of calls for every drawn frame: `prepare` (refresh what depends on the history, ask the engine), then
/// `caption` and `draw`, which only read. `area` is the inside of the border.
pub trait Panel {
    fn name(&self) -> &'static str;

    fn prepare(&mut self, _area: Rect, _seen: &Seen, _asker: &mut Asker) {}

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a>;

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen);

    fn act(&mut self, _action: Action, _seen: &Seen, _selection: &mut Selection) -> Reply {
        Reply::Ignored
    }

    /// A click inside `area`, at `x`, `y` from its corner.
    fn click(&mut self, _x: u16, _y: u16, _seen: &Seen, _selection: &mut Selection) -> Reply {
        Reply::Ignored
    }

    /// An answer to a question of some panel; true when it was mine.
    fn answer(&mut self, _asked: Asked, _answer: &Answer, _took: Duration) -> bool {
        false
    }

    /// The actions this panel understands, with what they mean here.
    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[]
    }

    /// What its numbers and marks mean, for the help; a line each.
    fn notes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Options from a view file.
    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&[])
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptionError {
    #[error("no option \"{key}\"; this panel knows: {known}")]
    Unknown { key: String, known: String },
    #[error("option \"{key}\" is \"{value}\"; it can be: {choices}")]
    Choice { key: &'static str, value: String, choices: String },
}

/// Options of a panel in a view file: words by key.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(transparent)]
pub struct Options(std::collections::BTreeMap<String, String>);

impl Options {
    pub fn only(&self, known: &[&str]) -> Result<(), OptionError> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(key) => Err(OptionError::Unknown {
                key: super::text::line(key),
                known: if known.is_empty() { "none".into() } else { known.join(", ") },
            }),
        }
    }

    /// Sets `slot` to the choice of that name, if the option is there.
    pub fn choose<T: Choice>(&self, key: &'static str, slot: &mut T) -> Result<(), OptionError> {
        let Some(value) = self.0.get(key) else { return Ok(()) };
        *slot = T::ALL.iter().copied().find(|c| c.name() == value).ok_or_else(|| OptionError::Choice {
            key,
            value: super::text::line(value),
            choices: T::ALL.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "),
        })?;
        Ok(())
    }
}

/// One of a few named ways to show something; a key goes round them.
pub trait Choice: Copy + PartialEq + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|c| *c == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

type Build = fn() -> Box<dyn Panel>;

/// Name and builder of every panel.
pub const PANELS: &[(&str, Build)] = &[
    ("tokens", || Box::new(tokens::Tokens::default())),
    ("map", || Box::new(map::Map::default())),
    ("heads", || Box::new(heads::Heads::default())),
    ("depth", || Box::new(depth::Map::default())),
    ("growth", || Box::new(growth::Growth::default())),
    ("policies", || Box::new(policies::Policies::default())),
    ("why", || Box::new(why::Why::default())),
    ("memory", || Box::new(memory::Memory::default())),
    ("timings", || Box::new(timings::Timings::default())),
    ("card", || Box::new(card::Card)),
    ("candidates", || Box::new(candidates::Candidates::default())),
    ("findings", || Box::new(findings::Findings::default())),
    ("streams", || Box::new(streams::Streams::default())),
    ("lens", || Box::new(lens::Lens)),
    ("drift", || Box::new(drift::Drift::default())),
    ("exits", || Box::new(exits::Exits::default())),
];
