//! Text into a buffer, cut to its place and made safe.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::tui::seen::Seen;
use crate::tui::text;

/// Draws safe text at column `x`, row `y` of `area` (from its corner), cut with `…` at the right edge.
/// Returns the column after it.
pub fn at(buf: &mut Buffer, area: Rect, x: u16, y: u16, words: &str, style: Style) -> u16 {
    if y >= area.height || x >= area.width {
        return x;
    }
    let words = text::fit(words, (area.width - x) as usize);
    buf.set_stringn(area.x + x, area.y + y, &words, (area.width - x) as usize, style).0 - area.x
}

/// Like [`at`], ending at column `end` (exclusive).
pub fn right(buf: &mut Buffer, area: Rect, end: u16, y: u16, words: &str, style: Style) {
    let end = end.min(area.width);
    let width = text::width(words).min(end as usize) as u16;
    let place = Rect { width: end, ..area };
    at(buf, place, end - width, y, words, style);
}

/// `width` columns of row `y` of `area` from column `x` on, as far as they are inside.
pub fn part(area: Rect, x: u16, y: u16, width: u16) -> Rect {
    let x = x.min(area.width);
    let height = (y < area.height) as u16;
    Rect { x: area.x + x, y: area.y + y.min(area.height), width: width.min(area.width - x), height }
}

/// A line of spans at row `y` of `area`.
pub fn line(buf: &mut Buffer, area: Rect, y: u16, line: &Line) {
    if y < area.height {
        buf.set_line(area.x, area.y + y, line, area.width);
    }
}

/// Words in the middle of an empty panel, telling why it is empty.
pub fn note(buf: &mut Buffer, area: Rect, words: &str, style: Style) {
    let lines = text::wrap(words, area.width.saturating_sub(2).max(1) as usize);
    let top = area.height.saturating_sub(lines.len() as u16) / 2;
    for (i, line) in lines.iter().enumerate() {
        let line = line.trim_end();
        let left = area.width.saturating_sub(text::width(line) as u16) / 2;
        at(buf, area, left, top + i as u16, line, style);
    }
}

/// Says that nothing has been computed yet, where that is so.
pub fn waiting(buf: &mut Buffer, area: Rect, seen: &Seen) -> bool {
    let waiting = seen.frame().is_none();
    if waiting {
        note(buf, area, "nothing has been computed yet", seen.theme.faint());
    }
    waiting
}

/// Spans that fit into `columns`, whole from the left; the first that does not fit ends the line.
pub fn whole_spans<'a>(spans: Vec<Span<'a>>, columns: usize) -> Line<'a> {
    let mut used = 0;
    let mut fitting = Vec::new();
    for span in spans {
        used += text::width(&span.content);
        if used > columns {
            break;
        }
        fitting.push(span);
    }
    Line::from(fitting)
}
