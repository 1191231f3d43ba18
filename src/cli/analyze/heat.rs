//! A table of pairs as a picture: colours where standard output is a terminal, else glyphs of rising weight.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::probe::square::Square;
use crate::tui::dump;
use crate::tui::ramp::RampName;
use crate::tui::theme::{Depth, Theme};
use crate::tui::widget::heat::{Ink, strip};

/// Pairs of things as pixels two columns wide, the first things at the top and left, with a legend that names the scale.
pub fn picture(title: &str, square: &Square) -> String {
    let depth = match stdout().is_terminal() {
        true => Depth::detect(|name| std::env::var(name).ok()),
        false => Depth::Mono,
    };
    draw(title, square, depth)
}

fn draw(title: &str, square: &Square, depth: Depth) -> String {
    let theme = Theme::new(depth);
    let ramp = theme.ramp(RampName::Viridis);
    let (low, high) = square.pairs().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), (.., x)| (l.min(x), h.max(x)));
    let n = square.len();
    if low > high {
        return format!("{title}\n    there is nothing to compare\n");
    }
    let mut buf = Buffer::empty(Rect::new(0, 0, 2 * n.min(500) as u16, n.min(500) as u16));
    for y in 0..buf.area.height {
        let ink = |x: usize| match (x / 2 == y as usize, square.at(y as usize, x / 2)) {
            (true, _) => Ink::Clear,
            (_, v) if v.is_nan() => Ink::Clear,
            (_, v) => Ink::Value(if high > low { (v - low) / (high - low) } else { 0.5 }),
        };
        let line = Rect { y, height: 1, ..buf.area };
        strip(&mut buf, line, &theme, ramp, ink);
    }
    let picture = if depth == Depth::Mono { dump::plain(&buf) } else { dump::ansi(&buf) };
    let mut out = format!("{title}\n");
    for (layer, line) in picture.lines().enumerate().take(n) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{layer:>3} {line}");
    }
    if depth != Depth::Mono {
        out.push_str("\x1b[0m");
    }
    let scale = if depth == Depth::Mono { "· ░ ▒ ▓ █" } else { "dark to light" };
    let _ = writeln!(out, "    {scale}: {low:.3} to {high:.3}, linear; the diagonal is left out");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_pair_is_the_heaviest_glyph() {
        let square = Square::of(3, |a, b| if (a, b) == (0, 2) { 0.9 } else { 0.1 });
        let text = draw("maps", &square, Depth::Mono);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "maps");
        assert_eq!(lines[1], "  0   ··██");
        assert_eq!(lines[2], "  1 ··  ··");
        assert_eq!(lines[3], "  2 ██··");
        assert!(lines[4].contains("0.100 to 0.900"));
        assert!(draw("maps", &square, Depth::True).contains("\x1b["));
    }
}
