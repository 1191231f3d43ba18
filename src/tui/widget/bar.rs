//! Bars and sparklines of eighth blocks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::put;

const ACROSS: [&str; 9] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
const UP: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// A bar over the first row of `place`, filled to `share` 0..=1; the rest in `rest`.
pub fn draw(buf: &mut Buffer, place: Rect, share: f64, fill: Style, rest: Style) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * place.width as f64 * 8.0).round() as usize;
    for i in 0..place.width {
        let here = eighths.saturating_sub(i as usize * 8).min(8);
        if here == 0 {
            put::at(buf, place, i, 0, "─", rest);
        } else {
            put::at(buf, place, i, 0, ACROSS[here], fill);
        }
    }
}

/// A sparkline of at most `columns` of the newest values, scaled to their largest; gaps where there is no value.
pub fn spark(values: &[Option<f32>], columns: usize) -> String {
    let shown = &values[values.len().saturating_sub(columns)..];
    let top = shown.iter().flatten().copied().filter(|v| v.is_finite()).fold(0.0f32, f32::max);
    shown
        .iter()
        .map(|v| match v {
            None => "·",
            Some(v) if top > 0.0 && v.is_finite() => UP[1 + ((v / top).clamp(0.0, 1.0) * 7.0).round() as usize],
            Some(_) => UP[1],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 8, 1));
        let area = buf.area;
        draw(&mut buf, area, 0.5, Style::new(), Style::new());
        assert_eq!(buf, Buffer::with_lines(["████────"]));
        draw(&mut buf, area, f64::NAN, Style::new(), Style::new());
        assert_eq!(buf, Buffer::with_lines(["────────"]));
    }

    #[test]
    fn a_sparkline_keeps_the_newest_and_shows_gaps() {
        assert_eq!(spark(&[Some(9.0), Some(0.0), None, Some(2.0), Some(4.0)], 4), "▁·▅█");
        assert_eq!(spark(&[], 4), "");
        assert_eq!(spark(&[Some(f32::NAN), Some(f32::INFINITY)], 4), "▁▁");
    }
}
