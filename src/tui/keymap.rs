//! Which key does what: our defaults, and what the user's `keys.toml` says on top.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::action::Action;

/// A key with its modifiers. Shift is part of the character for printable keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    pub code: KeyCode,
    pub ctrl: bool,
    pub alt: bool,
}

impl Chord {
    pub fn key(code: KeyCode) -> Self {
        Self { code, ctrl: false, alt: false }
    }

    pub fn event(self) -> KeyEvent {
        let mut modifiers = KeyModifiers::NONE;
        modifiers.set(KeyModifiers::CONTROL, self.ctrl);
        modifiers.set(KeyModifiers::ALT, self.alt);
        KeyEvent::new(self.code, modifiers)
    }
}

impl From<KeyEvent> for Chord {
    fn from(event: KeyEvent) -> Self {
        let code = match event.code {
            KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => KeyCode::BackTab,
            code => code,
        };
        Self {
            code,
            ctrl: event.modifiers.contains(KeyModifiers::CONTROL),
            alt: event.modifiers.contains(KeyModifiers::ALT),
        }
    }
}

const NAMED: &[(&str, KeyCode)] = &[
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("s-tab", KeyCode::BackTab),
    ("space", KeyCode::Char(' ')),
    ("lt", KeyCode::Char('<')),
    ("bs", KeyCode::Backspace),
    ("del", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key \"{0}\": write one character, or enter, esc, tab, s-tab, space, up, pgdn, f1, c-x, a-x …")]
pub struct UnknownKey(String);

impl FromStr for Chord {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let unknown = || UnknownKey(super::text::line(text));
        let mut rest = text;
        let mut chord = Chord::key(KeyCode::Null);
        loop {
            match rest.split_at_checked(2) {
                Some(("c-", more)) if !more.is_empty() && !chord.ctrl => (chord.ctrl, rest) = (true, more),
                Some(("a-", more)) if !more.is_empty() && !chord.alt => (chord.alt, rest) = (true, more),
                _ => break,
            }
        }
        let mut chars = rest.chars();
        chord.code = match (chars.next(), chars.next()) {
            (Some(c), None) => KeyCode::Char(c),
            _ => match NAMED.iter().find(|(name, _)| *name == rest) {
                Some(&(_, code)) => code,
                None => match rest.strip_prefix('f').and_then(|n| n.parse().ok()) {
                    Some(n @ 1..=12) => KeyCode::F(n),
                    _ => return Err(unknown()),
                },
            },
        };
        Ok(chord)
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("c-")?;
        }
        if self.alt {
            f.write_str("a-")?;
        }
        match self.code {
            KeyCode::Char(c) if c != ' ' && c != '<' => write!(f, "{c}"),
            KeyCode::F(n) => write!(f, "f{n}"),
            code => f.write_str(NAMED.iter().find(|(_, c)| *c == code).map_or("?", |(name, _)| name)),
        }
    }
}

/// Keys in the order of the help.
const DEFAULTS: &[(&str, Action)] = &[
    ("space", Action::ToggleRun),
    ("n", Action::StepToken),
    ("N", Action::StepLayer),
    ("s", Action::StepSublayer),
    ("b", Action::Back),
    ("f", Action::Forward),
    ("B", Action::Oldest),
    ("F", Action::Newest),
    ("R", Action::Rewind),
    ("Y", Action::Fork),
    ("i", Action::Intervene),
    (">", Action::MoreBudget),
    ("lt", Action::LessBudget),
    ("e", Action::EditPolicy),
    ("u", Action::ToggleProtected),
    ("y", Action::Why),
    ("+", Action::Faster),
    ("=", Action::Faster),
    ("-", Action::Slower),
    ("up", Action::Up),
    ("k", Action::Up),
    ("down", Action::Down),
    ("j", Action::Down),
    ("left", Action::Left),
    ("h", Action::Left),
    ("right", Action::Right),
    ("l", Action::Right),
    ("pgup", Action::PageUp),
    ("c-u", Action::PageUp),
    ("pgdn", Action::PageDown),
    ("c-d", Action::PageDown),
    ("g", Action::First),
    ("home", Action::First),
    ("G", Action::Last),
    ("end", Action::Last),
    ("enter", Action::Choose),
    ("[", Action::LayerPrevious),
    ("]", Action::LayerNext),
    ("{", Action::HeadPrevious),
    ("}", Action::HeadNext),
    ("(", Action::LanePrevious),
    (")", Action::LaneNext),
    ("p", Action::PickHead),
    ("/", Action::Search),
    (";", Action::SearchNext),
    (",", Action::SearchPrevious),
    ("z", Action::ZoomIn),
    ("Z", Action::ZoomOut),
    ("0", Action::ZoomReset),
    ("c", Action::Colour),
    ("v", Action::Scale),
    ("m", Action::Fold),
    ("x", Action::ToggleSink),
    ("o", Action::Sort),
    ("t", Action::Span),
    ("T", Action::TimingCost),
    ("L", Action::ToggleLens),
    ("tab", Action::FocusNext),
    ("s-tab", Action::FocusPrevious),
    ("w", Action::Maximize),
    ("1", Action::View(1)),
    ("2", Action::View(2)),
    ("3", Action::View(3)),
    ("4", Action::View(4)),
    ("5", Action::View(5)),
    ("6", Action::View(6)),
    ("7", Action::View(7)),
    ("8", Action::View(8)),
    ("9", Action::View(9)),
    ("V", Action::ViewNext),
    ("P", Action::Prompt),
    (":", Action::Palette),
    ("?", Action::Help),
    ("f1", Action::Help),
    ("esc", Action::Close),
    ("q", Action::Quit),
    ("c-c", Action::Interrupt),
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeymapError {
    #[error("keys file: {0}")]
    Syntax(String),
    #[error("keys file: {0}")]
    Key(#[from] UnknownKey),
    #[error("keys file, key \"{key}\": {error}")]
    Action { key: String, error: super::action::UnknownAction },
}

#[derive(Debug, Clone)]
pub struct Keymap {
    /// In the order of the help; a key stands once.
    bindings: Vec<(Chord, Action)>,
    by_chord: HashMap<Chord, Action>,
}

impl Default for Keymap {
    fn default() -> Self {
        let mut map = Self { bindings: Vec::new(), by_chord: HashMap::new() };
        for &(key, action) in DEFAULTS {
            if let Ok(chord) = key.parse() {
                map.bind(chord, action);
            }
        }
        map
    }
}

impl Keymap {
    fn bind(&mut self, chord: Chord, action: Action) {
        self.bindings.retain(|(c, _)| *c != chord);
        self.bindings.push((chord, action));
        self.by_chord.insert(chord, action);
    }

    /// The defaults with the user's file on top: `[keys]`, `"x" = "zoom_in"`, `"x" = ""` to free a key.
    pub fn with_user(toml: &str) -> Result<Self, KeymapError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            keys: std::collections::BTreeMap<String, String>,
        }
        let file: File = toml::from_str(toml).map_err(|e| KeymapError::Syntax(super::text::line(e.message())))?;
        let mut map = Self::default();
        for (key, name) in file.keys {
            let chord: Chord = key.parse()?;
            if name.is_empty() {
                map.bindings.retain(|(c, _)| *c != chord);
                map.by_chord.remove(&chord);
                continue;
            }
            let action = name.parse().map_err(|error| KeymapError::Action { key: super::text::line(&key), error })?;
            map.bind(chord, action);
        }
        Ok(map)
    }

    pub fn action(&self, chord: Chord) -> Option<Action> {
        self.by_chord.get(&chord).copied()
    }

    /// The keys of an action, as shown: `n`, `space`, `[`.
    pub fn keys(&self, action: Action) -> Vec<String> {
        self.bindings.iter().filter(|(_, a)| *a == action).map(|(c, _)| c.to_string()).collect()
    }

    /// The first key of an action, or its name where no key is bound.
    pub fn key(&self, action: Action) -> String {
        self.keys(action).into_iter().next().unwrap_or_else(|| format!(":{action}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_key_and_no_key_does_two_things() {
        let map = Keymap::default();
        assert_eq!(map.bindings.len(), DEFAULTS.len());
        for (key, action) in DEFAULTS {
            let chord: Chord = key.parse().unwrap();
            assert_eq!(chord.to_string(), *key);
            assert_eq!(map.action(chord), Some(*action));
        }
    }

    #[test]
    fn the_users_file_wins_and_its_mistakes_are_named() {
        let map = Keymap::with_user("[keys]\nx = \"zoom_in\"\nq = \"\"\n\"c-a-t\" = \"view:2\"").unwrap();
        assert_eq!(map.action("x".parse().unwrap()), Some(Action::ZoomIn));
        assert_eq!(map.action("q".parse().unwrap()), None);
        assert_eq!(map.action("c-a-t".parse().unwrap()), Some(Action::View(2)));
        assert_eq!(map.keys(Action::ToggleSink), Vec::<String>::new());
        let error = Keymap::with_user("[keys]\nx = \"quti\"").unwrap_err().to_string();
        assert!(error.contains("\"x\"") && error.contains("did you mean \"quit\""), "{error}");
        assert!(Keymap::with_user("[keys]\nxx = \"quit\"").is_err());
        assert!(Keymap::with_user("keys = 3").is_err());
    }
}
