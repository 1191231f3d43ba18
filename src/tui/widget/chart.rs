//! Line charts of braille dots on a linear or logarithmic axis.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Line};

use super::put;
use crate::tui::units;

/// Columns of the value axis.
pub const AXIS: u16 = 7;

pub struct Series<'a> {
    pub values: &'a [f32],
    pub colour: Color,
}

/// Lines over the index of their values. `total` is the length of the x axis: lines may end earlier.
pub struct Chart<'a> {
    pub series: &'a [Series<'a>],
    pub total: usize,
    pub log: bool,
    pub axis: Style,
}

impl Chart<'_> {
    fn bounds(&self) -> Option<(f64, f64)> {
        let usable = |v: &&f32| v.is_finite() && (!self.log || **v > 0.0);
        let all = || self.series.iter().flat_map(|s| s.values).filter(usable).map(|&v| self.height(v));
        let (low, high) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        Some(if high - low < 1e-9 { (low - 0.5, high + 0.5) } else { (low, high) })
    }

    fn height(&self, value: f32) -> f64 {
        if self.log { (value as f64).log10() } else { value as f64 }
    }

    /// Draws into `area`, values on the left.
    pub fn draw(&self, area: Rect, buf: &mut Buffer) {
        let Some((low, high)) = self.bounds() else { return };
        if area.width <= AXIS + 2 || area.height == 0 {
            return;
        }
        let rows = area.height;
        let ticks = (rows / 3).clamp(1, 5);
        for tick in 0..=ticks {
            let y = tick * (rows - 1) / ticks;
            let share = 1.0 - y as f64 / (rows.max(2) - 1) as f64;
            let at = low + (high - low) * share;
            let value = if self.log { 10f64.powf(at) } else { at };
            put::right(buf, area, AXIS - 1, y, &units::number(value as f32), self.axis);
            put::at(buf, area, AXIS - 1, y, "┤", self.axis);
        }
        let plot = Rect { x: area.x + AXIS, width: area.width - AXIS, ..area };
        // The canvas paints its ground: let it be the one that is there.
        let ground = buf.cell((plot.x, plot.y)).map_or(Color::Reset, |c| c.bg);
        Canvas::default()
            .marker(Marker::Braille)
            .background_color(ground)
            .x_bounds([0.0, (self.total.max(2) - 1) as f64])
            .y_bounds([low, high])
            .paint(|ctx| {
                for series in self.series {
                    for (i, pair) in series.values.windows(2).enumerate() {
                        let (a, b) = (self.height(pair[0]), self.height(pair[1]));
                        if a.is_finite() && b.is_finite() {
                            ctx.draw(&Line::new(i as f64, a, (i + 1) as f64, b, series.colour));
                        }
                    }
                }
            })
            .render(plot, buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rising_line_rises_and_names_its_ends() {
        let values = [1.0, 10.0, 100.0, 1000.0];
        let series = [Series { values: &values, colour: Color::White }];
        let chart = Chart { series: &series, total: 4, log: true, axis: Style::new() };
        let mut buf = Buffer::empty(Rect::new(0, 0, 20, 4));
        chart.draw(buf.area, &mut buf);
        let row = |y: u16| (0..20).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert!(row(0).starts_with("  1000┤"), "{}", row(0));
        assert!(row(3).starts_with("  1.00┤"), "{}", row(3));
        assert_ne!(buf[(7, 3)].symbol(), "\u{2800}");
        assert_ne!(buf[(19, 0)].symbol(), "\u{2800}");
    }

    #[test]
    fn nothing_finite_draws_nothing() {
        let values = [f32::NAN, f32::INFINITY, 0.0];
        let series = [Series { values: &values, colour: Color::White }];
        let mut buf = Buffer::empty(Rect::new(0, 0, 20, 4));
        Chart { series: &series, total: 3, log: true, axis: Style::new() }.draw(buf.area, &mut buf);
        assert_eq!(buf, Buffer::empty(Rect::new(0, 0, 20, 4)));
    }
}
