//! Logit lens: what the model would say after each layer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::tui::action::Action;
use crate::tui::panel::{Caption, Panel};
use crate::tui::ramp::RampName;
use crate::tui::seen::Seen;
use crate::tui::text;
use crate::tui::theme::Depth;
use crate::tui::widget::{legend, put};

pub struct Lens;

/// Columns of the layer's name, and of one guess.
const NAMES: u16 = 5;
const GUESS: u16 = 18;

fn name(point: u32) -> String {
    match point {
        0 => "emb".into(),
        point => format!("L{}", (point - 1) / 2),
    }
}

impl Panel for Lens {
    fn name(&self) -> &'static str {
        "lens"
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let newest = seen.positions().saturating_sub(1);
        let facts = vec![
            Span::styled("after ", theme.soft()),
            Span::styled(format!("{} ", seen.spelled(newest)), theme.accent()),
        ];
        let mut spans = vec![Span::styled(" p = softmax(head(norm(h)))", theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(RampName::Viridis), "0", "1", "linear"));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let theme = seen.theme;
        let Some(lane) = seen.lane().filter(|l| !l.lens.is_empty()) else {
            let why = "the logit lens is off: L switches it on from the next step (one head product for each layer)";
            put::note(buf, area, why, theme.soft());
            return;
        };
        let ramp = theme.ramp(RampName::Viridis);
        let rows = area.height as usize;
        let here = 2 * seen.selection.layer as u32 + 2;
        let at = lane.lens.iter().position(|l| l.point >= here).unwrap_or(lane.lens.len() - 1);
        // The chosen layer stays on the screen, the rest around it.
        let top = at.saturating_sub(rows / 2).min(lane.lens.len().saturating_sub(rows));
        for (y, layer) in lane.lens.iter().skip(top).take(rows).enumerate() {
            let y = y as u16;
            let style = if layer.point == here { theme.accent() } else { theme.soft() };
            put::right(buf, area, NAMES - 1, y, &name(layer.point), style);
            let guesses = (area.width.saturating_sub(NAMES) / GUESS).max(1);
            for (i, &(id, prob)) in layer.top.iter().take(guesses as usize).enumerate() {
                let x = NAMES + i as u16 * GUESS;
                let mut style = match theme.depth {
                    Depth::Mono => Style::new(),
                    _ => Style::new().bg(ramp.colour(prob)).fg(ramp.ink(prob)),
                };
                if i == 0 && Some(id) == lane.next {
                    style = style.add_modifier(Modifier::BOLD);
                }
                let width = GUESS as usize - 7;
                let word = text::fit(&seen.session.spell(id), width);
                let pad = " ".repeat(width - text::width(&word));
                put::at(buf, area, x, y, &format!("{word}{pad}{:>5.0}%", prob * 100.0), style);
            }
        }
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::ToggleLens, "switch the lens on or off"), (Action::LayerNext, "next layer")]
    }
}
