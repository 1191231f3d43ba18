//! Plots of characters: a column for each budget, a letter for each policy; letters with the same value stand side by
//! side, so nothing covers anything.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use super::Plot;
use crate::tui::dump;
use crate::tui::text::{fit, line, width};
use crate::tui::theme::{Depth, Theme};

/// Rows of values.
const ROWS: u16 = 11;
/// Columns of the value axis, the line included.
const AXIS: u16 = 8;
/// Least columns of a budget.
const COLUMN: u16 = 8;
/// Columns of a name in the legend, at least.
const NAME: usize = 14;

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// As text of at most `columns` columns, with colours where `depth` has any.
pub fn draw(plot: &Plot, columns: u16, depth: Depth) -> String {
    let theme = Theme::new(depth);
    let budgets = plot.budgets();
    let wide = plot.series.len() as u16 + 2;
    let room = columns.max(AXIS + COLUMN) - AXIS;
    let column = (room / budgets.len().max(1) as u16).clamp(COLUMN, wide.max(COLUMN));
    let names: Vec<String> = plot.series.iter().map(|series| line(&series.name)).collect();
    let legend = names.iter().map(|name| width(name)).max().unwrap_or(0).max(NAME) as u16 + 4;
    let per_row = (columns / legend).max(1);
    let total = (AXIS + column * budgets.len() as u16).min(columns);
    let legend_rows = (plot.series.len() as u16).div_ceil(per_row);
    let mut buf = Buffer::empty(Rect::new(0, 0, columns, 1 + ROWS + 2 + legend_rows));
    let title = match plot.full {
        Some(full) => format!("{} (─ full: {})", plot.title, plot.label(plot.height(full))),
        None => plot.title.clone(),
    };
    buf.set_string(0, 0, fit(&title, columns.into()), Style::new());
    let row = |value: f32| 1 + ((1.0 - plot.height(value)) * f32::from(ROWS - 1)).round() as u16;
    for y in 0..ROWS {
        if y % 5 == 0 {
            let label = plot.label(1.0 - f32::from(y) / f32::from(ROWS - 1));
            buf.set_string(0, 1 + y, format!("{label:>width$}", width = usize::from(AXIS) - 2), Style::new());
        }
        buf.set_string(AXIS - 1, 1 + y, "│", Style::new());
    }
    if let Some(full) = plot.full {
        buf.set_string(AXIS, row(full), "─".repeat(usize::from(total - AXIS)), theme.soft());
    }
    buf.set_string(AXIS - 1, 1 + ROWS, "└", Style::new());
    buf.set_string(AXIS, 1 + ROWS, "─".repeat(usize::from(total - AXIS)), Style::new());
    for (i, budget) in budgets.iter().enumerate() {
        let from = AXIS + column * i as u16 + 1;
        buf.set_string(from, 2 + ROWS, fit(budget, usize::from(column) - 1), Style::new());
        let mut taken = [0; 1 + ROWS as usize];
        for (at, series) in plot.series.iter().enumerate() {
            let Some(point) = series.points.iter().find(|point| point.budget == *budget) else { continue };
            let y = row(point.value.mean);
            let x = taken[usize::from(y)];
            taken[usize::from(y)] += 1;
            // Where a column has no room for all, its last place says so.
            let (x, mark) = if x + 2 < column { (x, letter(at)) } else { (column - 2, "+".into()) };
            buf.set_string(from + x, y, mark, Style::new().fg(colour(&theme, at)));
        }
    }
    for (at, name) in names.iter().enumerate() {
        let (x, y) = (at as u16 % per_row * legend, 3 + ROWS + at as u16 / per_row);
        buf.set_string(x, y, letter(at), Style::new().fg(colour(&theme, at)));
        buf.set_string(x + 2, y, fit(name, usize::from(legend) - 3), Style::new());
    }
    if depth == Depth::Mono { dump::plain(&buf) } else { dump::ansi(&buf) }
}

fn letter(at: usize) -> String {
    LETTERS.chars().nth(at).unwrap_or('?').to_string()
}

/// Lane 0's colour is that of the full cache.
fn colour(theme: &Theme, at: usize) -> Color {
    theme.lane(1 + at % 6)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn letters_stand_at_their_value_side_by_side() {
        let text = draw(&example(), 60, Depth::Mono);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].contains("answers found (─ full: 100 %)"), "{text}");
        // Both found nothing at 25%; at 50% one finds everything, the other half of it.
        assert!(rows[1].starts_with(" 100 % │─────────a"), "{text}");
        assert_eq!(rows[6], "  50 % │         b");
        assert_eq!(rows[11], "   0 % │ ab");
        assert!(rows[13].contains("25%") && rows[13].contains("50%"));
        assert!(rows[14].contains("a knorm") && rows[14].contains("b h2o<&>"));
        assert!(!text.contains('\x1b') && draw(&example(), 60, Depth::True).contains("\x1b[0;38;2;"));
    }

    #[test]
    fn a_narrow_terminal_loses_nothing_silently() {
        let mut plot = example();
        let many =
            (0..60).map(|i| super::super::Series { name: format!("p{i}"), points: plot.series[0].points.clone() });
        plot.series = many.collect();
        let text = draw(&plot, 20, Depth::Mono);
        assert!(text.lines().all(|line| width(line) <= 20) && text.contains('+'), "{text}");
    }
}
