//! Heat maps of half blocks: two pixels per cell, one above the other.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::tui::theme::{Depth, Ramp, Theme};

/// One pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ink {
    /// Nothing is there.
    Clear,
    /// 0..=1 on the ramp.
    Value(f32),
    /// The same, greyed: there, but out of the game (evicted).
    Dim(f32),
    /// A mark in the accent colour.
    Mark,
    /// A place that is empty: evicted, or above the diagonal under the crosshair.
    Gone,
}

impl Ink {
    fn colour(self, ramp: &Ramp, theme: &Theme) -> Option<Color> {
        match self {
            Ink::Clear => None,
            Ink::Value(t) => Some(ramp.colour(t)),
            Ink::Dim(t) => Some(ramp.dimmed(t)),
            Ink::Mark => Some(theme.accent),
            Ink::Gone => Some(theme.gone),
        }
    }

    fn weight(self) -> Option<f32> {
        match self {
            Ink::Clear => None,
            Ink::Value(t) => Some(t),
            Ink::Dim(t) => Some(t * 0.25),
            Ink::Gone => Some(0.0),
            Ink::Mark => Some(1.0),
        }
    }
}

/// Without colours, the weight of the glyph tells the value.
const GLYPHS: [&str; 5] = ["·", "░", "▒", "▓", "█"];

fn glyph(t: f32) -> &'static str {
    GLYPHS[((t.clamp(0.0, 1.0) * 5.0) as usize).min(4)]
}

/// Fills `area` with `area.width` × `2·area.height` pixels; `pixel(x, y)` tells each one.
pub fn halves(buf: &mut Buffer, area: Rect, theme: &Theme, ramp: &Ramp, pixel: impl Fn(usize, usize) -> Ink) {
    let area = area.intersection(buf.area);
    for y in 0..area.height {
        for x in 0..area.width {
            let top = pixel(x as usize, 2 * y as usize);
            let bottom = pixel(x as usize, 2 * y as usize + 1);
            let cell = &mut buf[(area.x + x, area.y + y)];
            if theme.depth == Depth::Mono {
                if let Some(t) = [top, bottom].into_iter().filter_map(Ink::weight).reduce(f32::max) {
                    let marked = top == Ink::Mark || bottom == Ink::Mark;
                    cell.set_symbol(if marked { "◆" } else { glyph(t) });
                }
                continue;
            }
            match (top.colour(ramp, theme), bottom.colour(ramp, theme)) {
                (None, None) => {}
                (Some(t), None) => {
                    cell.set_symbol("▀").set_fg(t);
                }
                (None, Some(b)) => {
                    cell.set_symbol("▄").set_fg(b);
                }
                (Some(t), Some(b)) => {
                    cell.set_symbol("▀").set_fg(t).set_bg(b);
                }
            }
        }
    }
}

/// One row of full cells: `value(x)` tells each one.
pub fn strip(buf: &mut Buffer, area: Rect, theme: &Theme, ramp: &Ramp, value: impl Fn(usize) -> Ink) {
    let area = Rect { height: area.height.min(1), ..area }.intersection(buf.area);
    for x in 0..area.width {
        let ink = value(x as usize);
        let cell = &mut buf[(area.x + x, area.y)];
        if let (Depth::Mono, Some(t)) = (theme.depth, ink.weight()) {
            cell.set_symbol(glyph(t));
        } else if let Some(colour) = ink.colour(ramp, theme) {
            cell.set_symbol("█").set_fg(colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::ramp::RampName;

    #[test]
    fn two_pixels_share_a_cell() {
        let theme = Theme::new(Depth::True);
        let ramp = theme.ramp(RampName::Viridis);
        let mut buf = Buffer::empty(Rect::new(0, 0, 2, 1));
        let area = buf.area;
        halves(&mut buf, area, &theme, ramp, |x, y| if x == 0 { Ink::Value(y as f32) } else { Ink::Clear });
        assert_eq!((buf[(0, 0)].fg, buf[(0, 0)].bg), (ramp.colour(0.0), ramp.colour(1.0)));
        assert_eq!(buf[(1, 0)].symbol(), " ");
    }

    #[test]
    fn without_colours_the_larger_pixel_shows() {
        let theme = Theme::new(Depth::Mono);
        let mut buf = Buffer::empty(Rect::new(0, 0, 1, 1));
        let area = buf.area;
        halves(&mut buf, area, &theme, theme.ramp(RampName::Magma), |_, y| Ink::Value(y as f32));
        assert_eq!(buf[(0, 0)].symbol(), "█");
        assert_eq!(buf[(0, 0)].fg, Color::Reset);
    }
}
