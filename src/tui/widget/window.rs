//! Which part of a long axis is on the screen: zoom by halves around a point, follow it when it leaves.

/// Cells `from..to` of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: u32,
    pub to: u32,
}

impl Window {
    pub fn count(self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    /// `len` cells around `at`, inside `first..end`.
    fn around(at: u32, len: u32, first: u32, end: u32) -> Self {
        let len = len.clamp(1, end.saturating_sub(first).max(1));
        let from = at.saturating_sub(len / 2).clamp(first, end.saturating_sub(len).max(first));
        Self { from, to: from + len }
    }
}

/// Shortest axis part that zooming shows.
const CLOSEST: u32 = 4;

/// How far in; 0 shows everything. Each step halves what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zoom {
    pub steps: u32,
    last: Option<Window>,
}

impl Zoom {
    /// One step in, unless `end` cells are already as close as it gets.
    pub fn closer(&mut self, end: u32) {
        if (end >> (self.steps + 1).min(31)) >= CLOSEST {
            self.steps += 1;
        }
    }

    pub fn farther(&mut self) {
        self.steps = self.steps.saturating_sub(1);
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The part of `first..end` to show so that `at` is inside; it stays where it is as long as `at` is.
    pub fn window(&mut self, at: u32, first: u32, end: u32) -> Window {
        let end = end.max(first + 1);
        let len = ((end - first) >> self.steps.min(31)).max(CLOSEST).min(end - first);
        let keeps = |w: &Window| w.count() == len && w.from >= first && w.to <= end && (w.from..w.to).contains(&at);
        let window = match self.last.filter(keeps) {
            Some(window) => window,
            None => Window::around(at.clamp(first, end - 1), len, first, end),
        };
        self.last = Some(window);
        window
    }
}

/// Cells to pixels: either several pixels for each cell, or several cells in each pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub window: Window,
    /// Values along this axis.
    pub values: u32,
    /// Pixels for each value.
    pub zoom: u32,
}

impl Grid {
    /// `largest` limits the pixels for one value.
    pub fn new(window: Window, pixels: u32, largest: u32) -> Self {
        let len = window.count().max(1);
        let values = len.min(pixels).max(1);
        Self { window, values, zoom: (pixels / values).clamp(1, largest.max(1)) }
    }

    pub fn pixels(self) -> u32 {
        self.values * self.zoom
    }

    /// Value under a pixel.
    pub fn value(self, pixel: u32) -> Option<u32> {
        Some(pixel / self.zoom).filter(|v| *v < self.values)
    }

    /// First cell of a value.
    pub fn cell(self, value: u32) -> u32 {
        self.window.from + (value as u64 * self.window.count() as u64 / self.values as u64) as u32
    }

    /// Value that holds a cell.
    pub fn of(self, cell: u32) -> Option<u32> {
        let inside = (self.window.from..self.window.to).contains(&cell);
        // The last value whose first cell is not behind `cell`.
        inside.then(|| {
            let offset = (cell - self.window.from) as u64 * self.values as u64;
            let near = (offset / self.window.count().max(1) as u64) as u32;
            if near + 1 < self.values && self.cell(near + 1) <= cell { near + 1 } else { near }
        })
    }

    /// Cells in each value, rounded up.
    pub fn folded(self) -> u32 {
        self.window.count().div_ceil(self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zooming_keeps_the_point_and_stops_at_a_few_cells() {
        let mut zoom = Zoom::default();
        assert_eq!(zoom.window(50, 0, 100), Window { from: 0, to: 100 });
        for _ in 0..20 {
            zoom.closer(100);
        }
        let close = zoom.window(50, 0, 100);
        assert!(close.count() <= 8 && close.from <= 50 && 50 < close.to);
        assert_eq!(zoom.window(51, 0, 100), close);
        assert!(zoom.window(90, 0, 100).from > 51);
    }

    proptest! {
        #[test]
        fn every_cell_is_in_exactly_one_value(from in 0u32..50, len in 1u32..500, pixels in 1u32..200) {
            let grid = Grid::new(Window { from, to: from + len }, pixels, 8);
            prop_assert!(grid.pixels() <= pixels.max(1));
            for cell in from..from + len {
                let value = grid.of(cell).unwrap();
                let end = if value + 1 < grid.values { grid.cell(value + 1) } else { from + len };
                prop_assert!(grid.cell(value) <= cell && cell < end);
            }
        }

        #[test]
        fn any_window_lies_inside_and_holds_its_point(at in 0u32..2000, end in 1u32..1000, steps in 0u32..40) {
            let mut zoom = Zoom { steps, last: None };
            let window = zoom.window(at, 0, end);
            prop_assert!(window.to <= end && window.count() >= 1);
            prop_assert!(at >= end || (window.from..window.to).contains(&at));
        }
    }
}
