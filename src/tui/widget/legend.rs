//! Legends: a ramp drawn small, with the values at its ends and the name of its scale.

use ratatui::style::Style;
use ratatui::text::Span;

use crate::tui::theme::{Depth, Ramp, Theme};

/// Cells of a drawn ramp.
const CELLS: usize = 8;

/// ` 0.01 ████████ 3.2 log nats ` as spans.
pub fn ramp<'a>(theme: &Theme, ramp: &Ramp, low: &str, high: &str, scale: &str) -> Vec<Span<'a>> {
    let mut spans = vec![Span::styled(format!(" {low} "), theme.soft())];
    for i in 0..CELLS {
        let t = i as f32 / (CELLS - 1) as f32;
        if theme.depth == Depth::Mono {
            spans.push(Span::raw(["·", "░", "▒", "▓", "█"][i * 5 / CELLS]));
        } else {
            // Half blocks double the steps of the drawn ramp.
            let next = (i as f32 + 0.5) / (CELLS - 1) as f32;
            spans.push(Span::styled("▌", Style::new().fg(ramp.colour(t)).bg(ramp.colour(next.min(1.0)))));
        }
    }
    spans.push(Span::styled(format!(" {high} "), theme.soft()));
    if !scale.is_empty() {
        spans.push(Span::styled(format!("{scale} "), theme.soft()));
    }
    spans
}

/// A coloured square with its meaning.
pub fn key<'a>(theme: &Theme, style: Style, glyph: &'a str, meaning: &str) -> Vec<Span<'a>> {
    vec![Span::styled(glyph, style), Span::styled(format!(" {meaning} "), theme.soft())]
}
