//! An intervention in a lane of its own: a list for what is chosen, and the spec, which can be written.

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

pub struct Intervene {
    /// What it does, and the lane that does it.
    items: Vec<(String, String)>,
    at: usize,
    /// Written by hand; empty while the list is used.
    input: Input,
}

impl Intervene {
    /// For the chosen layer and head.
    pub fn new(layer: usize, head: usize) -> Self {
        let item = |about: String, spec: String| (about, spec);
        let mut items = vec![
            item(format!("knock out layer {layer} head {head}"), format!("zerohead:layer={layer},head={head}")),
            item(
                format!("knock out the attention of layer {layer}"),
                format!("zerolayer:layer={layer},sublayer=attention"),
            ),
            item(format!("knock out the MLP of layer {layer}"), format!("zerolayer:layer={layer},sublayer=mlp")),
            item(format!("knock out layer {layer}"), format!("zerolayer:layer={layer}")),
            item(
                format!("half of what the MLP of layer {layer} adds"),
                format!("scale:layer={layer},sublayer=mlp,by=0.5"),
            ),
            item("massive activations to zero".into(), "massive".into()),
            item("massive activations to their mean".into(), "massive:to=mean".into()),
            item("no attention to the first token".into(), "masksink".into()),
            item(format!("the same in layer {layer} alone"), format!("masksink:layer={layer}")),
            item("the first token's value is zero".into(), "zerosink".into()),
            item("a KV bias stands in for the first token".into(), "kvbias".into()),
            item("the prompt without its first token".into(), "dropbos".into()),
            item("residual stream in bf16".into(), "cast:to=bf16".into()),
            item("residual stream in f16".into(), "cast:to=f16".into()),
        ];
        if let Some(before) = layer.checked_sub(1) {
            let spec = format!("copymap:from={before},to={layer}");
            items.push(item(format!("layer {layer} uses layer {before}'s attention map"), spec));
        }
        Self { items, at: 0, input: Input::default() }
    }

    fn spec(&self) -> String {
        match self.input.is_empty() {
            true => self.items[self.at].1.clone(),
            false => self.input.text(),
        }
    }
}

impl Layer for Intervene {
    fn draw(&mut self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let height = self.items.len() as u16 + 5;
        let inside = popup(area, buf, theme, "an intervention in a lane of its own", 84, height);
        let rows = inside.height.saturating_sub(3) as usize;
        let top = (self.at + 1).saturating_sub(rows.max(1));
        for (i, (about, spec)) in self.items.iter().enumerate().skip(top).take(rows) {
            let y = (i - top) as u16;
            let here = i == self.at && self.input.is_empty();
            if here {
                buf.set_style(Rect { y: inside.y + y, height: 1, ..inside }, theme.row());
            }
            put::at(buf, inside, 0, y, if here { "▸" } else { " " }, theme.accent());
            put::at(buf, inside, 2, y, about, if here { theme.strong() } else { theme.base() });
            put::right(buf, inside, inside.width, y, spec, theme.soft());
        }
        let below = inside.height.saturating_sub(2);
        put::at(buf, inside, 0, below, ":", theme.accent());
        let field = Rect { x: inside.x + 2, y: inside.y + below, width: inside.width.saturating_sub(2), height: 1 };
        self.input.draw(field, buf, theme);
        let words = match Policy::parse(&self.spec()) {
            Err(error) => text::line(&error.to_string()),
            Ok(_) => "enter: reads the prompt anew, is fed lane 0's tokens up to here · or write a spec".into(),
        };
        put::at(buf, inside, 0, below + 1, &text::fit(&words, inside.width as usize), theme.faint());
    }

    fn key(&mut self, chord: Chord, _action: Option<Action>, _seen: &Seen) -> Reaction {
        match chord.code {
            KeyCode::Esc => return Reaction::close(),
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(self.items.len() - 1),
            KeyCode::Enter if Policy::parse(&self.spec()).is_ok() => {
                return Reaction::close().with(Wish::Open(self.spec()));
            }
            _ => _ = self.input.key(chord),
        }
        Reaction::stay()
    }

    fn paste(&mut self, words: &str, _seen: &Seen) -> Reaction {
        self.input.insert(words);
        Reaction::stay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_on_the_list_is_a_spec() {
        for layer in [0, 7] {
            let list = Intervene::new(layer, 3);
            for (about, spec) in &list.items {
                let policy = Policy::parse(spec).unwrap_or_else(|error| panic!("{about}: {error}"));
                assert!(policy.intervenes() || policy.sharing().is_some(), "{spec}");
                assert!(text::width(about) + text::width(spec) < 78, "{about} {spec}");
            }
        }
    }
}
