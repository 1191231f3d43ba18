//! Keys without hands: the language of `--keys`.
//!
//! A macro is a row of keys; blanks between them mean nothing. `<…>` stands for everything that is not one
//! printable character:
//!
//! | written | means |
//! |---|---|
//! | `n`, `/`, `é` | that key |
//! | `<enter>` `<esc>` `<tab>` `<s-tab>` `<space>` `<lt>` `<bs>` `<up>` `<pgdn>` `<f1>` `<c-d>` `<a-x>` | that key |
//! | `<do:zoom_in>` `<do:layer:12>` | an action by its name, whatever its key |
//! | `<type:two words>` | the characters one by one, blanks included |
//! | `<wait:ready>` | until the prompt has been read |
//! | `<wait:frame>` | until a step has been completed since the last key |
//! | `<wait:idle>` | until nothing runs and no question is open |
//! | `<wait:step:12>` | until step 12 is complete |
//! | `<wait:250ms>` | a quarter of a second |
//! | `<size:120x40>` | another screen size (without a terminal only) |
//! | `<screen>` `<screen:name>` | print the screen (without a terminal only) |
//!
//! Example: `<wait:ready> n n <wait:frame> <tab> 3 /Paris<enter> <screen:found> q`

use std::time::{Duration, Instant};

use crossterm::event::KeyCode;

use crate::engine::message::State;

use super::action::Action;
use super::app::App;
use super::keymap::Chord;
use super::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Ready,
    Frame,
    Idle,
    Step(u32),
    Time(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    Key(Chord),
    Do(Action),
    Wait(Wait),
    Size(u16, u16),
    Screen(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum MacroError {
    #[error("--keys: \"<\" at character {0} has no \">\"")]
    #[diagnostic(help("write <lt> for the character itself"))]
    Open(usize),
    #[error("--keys: <{what}>: {why}")]
    #[diagnostic(help(
        "keys: <enter> <esc> <tab> <c-d> …; also <do:action> <type:words> <wait:ready|frame|idle|step:N|Nms> <size:WxH> <screen:name>"
    ))]
    Word { what: String, why: String },
    #[error("--keys: waited {0} s for {1} in vain")]
    Vain(u64, String),
}

/// Longest wait for something to happen.
const PATIENCE: Duration = Duration::from_secs(120);

fn word(inside: &str) -> Result<Vec<Move>, MacroError> {
    let wrong = |why: String| MacroError::Word { what: text::line(inside), why };
    let (name, rest) = inside.split_once(':').unwrap_or((inside, ""));
    Ok(match name {
        "do" => vec![Move::Do(rest.parse().map_err(|e: super::action::UnknownAction| wrong(e.to_string()))?)],
        "type" => rest.chars().map(|c| Move::Key(Chord::key(KeyCode::Char(c)))).collect(),
        "screen" => vec![Move::Screen(text::line(rest))],
        "size" => {
            let size = rest.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            // A buffer of 500 × 500 cells is more than any screen.
            match size.filter(|&(w, h)| (1..=500).contains(&w) && (1..=500).contains(&h)) {
                Some((width, height)) => vec![Move::Size(width, height)],
                None => return Err(wrong("a size is WIDTHxHEIGHT, 1 to 500 each".into())),
            }
        }
        "wait" => {
            let wait = match rest {
                "ready" => Some(Wait::Ready),
                "frame" => Some(Wait::Frame),
                "idle" => Some(Wait::Idle),
                _ => match rest.strip_prefix("step:") {
                    Some(step) => step.parse().ok().map(Wait::Step),
                    None => rest
                        .strip_suffix("ms")
                        .and_then(|ms| ms.parse().ok())
                        .map(|ms| Wait::Time(Duration::from_millis(ms)).min_patience()),
                },
            };
            vec![Move::Wait(wait.ok_or_else(|| wrong("wait for ready, frame, idle, step:N or Nms".into()))?)]
        }
        _ => vec![Move::Key(inside.parse().map_err(|e: super::keymap::UnknownKey| wrong(e.to_string()))?)],
    })
}

impl Wait {
    fn min_patience(self) -> Self {
        match self {
            Wait::Time(time) => Wait::Time(time.min(PATIENCE)),
            other => other,
        }
    }
}

pub fn parse(keys: &str) -> Result<Vec<Move>, MacroError> {
    let mut moves = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        if c == '<' {
            let at = keys.len() - rest.len();
            let end = rest.find('>').ok_or_else(|| MacroError::Open(keys[..at].chars().count() + 1))?;
            moves.extend(word(&rest[1..end])?);
            rest = &rest[end + 1..];
        } else {
            if !c.is_whitespace() {
                moves.push(Move::Key(Chord::key(KeyCode::Char(c))));
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(moves)
}

/// What the player wants from whoever holds the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A key was pressed or an action done.
    Played,
    /// Not yet: something must happen first.
    Waiting,
    Size(u16, u16),
    Screen(String),
    Over,
}

/// Plays a macro on an app, one move at a time.
pub struct Player {
    moves: std::vec::IntoIter<Move>,
    wait: Option<(Wait, Instant)>,
    /// Newest complete step when the last key was pressed.
    step: Option<u32>,
}

fn newest(app: &App) -> Option<u32> {
    app.session.frames().iter().rev().find(|f| f.partial.is_none()).map(|f| f.step)
}

impl Player {
    pub fn new(moves: Vec<Move>) -> Self {
        Self { moves: moves.into_iter(), wait: None, step: None }
    }

    fn met(&self, wait: Wait, since: Instant, app: &App) -> bool {
        let busy = matches!(app.session.state, State::Loading | State::Prefill { .. } | State::Running);
        match wait {
            Wait::Ready => newest(app).is_some(),
            Wait::Frame => newest(app) > self.step || (self.step.is_some() && newest(app) < self.step),
            Wait::Idle => newest(app).is_some() && !busy && app.asker.waiting() == 0,
            Wait::Step(step) => newest(app) >= Some(step),
            Wait::Time(time) => since.elapsed() >= time,
        }
    }

    pub fn play(&mut self, app: &mut App) -> Result<Turn, MacroError> {
        if let Some((wait, since)) = self.wait {
            if !self.met(wait, since, app) {
                let waited = since.elapsed();
                return match waited > PATIENCE || app.session.failed.is_some() && waited > Duration::from_secs(1) {
                    true => Err(MacroError::Vain(waited.as_secs(), format!("{wait:?}").to_lowercase())),
                    false => Ok(Turn::Waiting),
                };
            }
            self.wait = None;
        }
        Ok(match self.moves.next() {
            None => Turn::Over,
            Some(Move::Key(chord)) => {
                self.step = newest(app);
                app.key(chord.event());
                Turn::Played
            }
            Some(Move::Do(action)) => {
                self.step = newest(app);
                app.act(action);
                Turn::Played
            }
            Some(Move::Wait(wait)) => {
                self.wait = Some((wait, Instant::now()));
                Turn::Waiting
            }
            Some(Move::Size(width, height)) => Turn::Size(width, height),
            Some(Move::Screen(name)) => Turn::Screen(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macro_is_keys_words_and_waits() {
        let key = |k: &str| Move::Key(k.parse().unwrap());
        assert_eq!(
            parse("n n <wait:frame> <tab> 3 /P<enter> <do:layer:12><size:80x24><screen:a> q").unwrap(),
            [
                key("n"),
                key("n"),
                Move::Wait(Wait::Frame),
                key("tab"),
                key("3"),
                key("/"),
                key("P"),
                key("enter"),
                Move::Do(Action::Layer(12)),
                Move::Size(80, 24),
                Move::Screen("a".into()),
                key("q"),
            ]
        );
        assert_eq!(parse("<type:a b>").unwrap(), [key("a"), key("space"), key("b")]);
        assert_eq!(parse("<wait:250ms>").unwrap(), [Move::Wait(Wait::Time(Duration::from_millis(250)))]);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        assert_eq!(parse("ab<tab"), Err(MacroError::Open(3)));
        for (keys, says) in [
            ("<tba>", "<tba>: no key"),
            ("<do:zomo_in>", "did you mean \"zoom_in\""),
            ("<size:0x5>", "1 to 500"),
            ("<wait:never>", "ready, frame"),
        ] {
            let error = parse(keys).unwrap_err().to_string();
            assert!(error.contains(says), "{keys}: {error}");
        }
    }
}
