//! The calls of one step along its time: layers above, operations below, the call under the cursor in words.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::marks::Marks;
use crate::engine::frame::{Call, Frame, Peaks};
use crate::tui::theme::{Depth, Theme};
use crate::tui::widget::put;
use crate::tui::{text, units};

/// Rows that it takes.
pub const ROWS: u16 = 4;

/// Layers on the screen, from far to near; `None` = the whole step.
const ZOOMS: [Option<u32>; 4] = [None, Some(8), Some(3), Some(1)];

#[derive(Default)]
pub struct Strip {
    calls: Vec<Call>,
    /// Names of the frame's operations.
    names: Vec<String>,
    /// Why there are no calls.
    why_empty: &'static str,
    /// Index of the call under the cursor.
    cursor: usize,
    zoom: usize,
    /// The layer chosen when the cursor was last put.
    layer: usize,
}

/// A part of the step, nanoseconds, on so many columns.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    from: u64,
    to: u64,
    width: u16,
}

impl View {
    fn time(&self, column: u16) -> u64 {
        self.from + (self.to - self.from) * u64::from(column) / u64::from(self.width.max(1))
    }

    fn column(&self, ns: u64) -> u16 {
        let at = ns.clamp(self.from, self.to) - self.from;
        let column = at.saturating_mul(u64::from(self.width)) / (self.to - self.from).max(1);
        (column as u16).min(self.width.saturating_sub(1))
    }
}

impl Strip {
    /// Takes the calls of another frame; the cursor stays on the same call of the pass.
    pub fn take(&mut self, frame: Option<&Frame>) {
        self.calls = frame.map_or(Vec::new(), |frame| frame.timeline.calls(&frame.ops));
        self.names = frame.map_or(Vec::new(), |frame| frame.ops.iter().map(|op| text::line(&op.name)).collect());
        self.why_empty = match frame {
            Some(frame) if frame.step == 0 => "the prompt is read in many passes: their order is not kept",
            Some(frame) if frame.ops.is_empty() => "this step ran without times",
            _ => "the order of operations was not kept",
        };
        self.cursor = self.cursor.min(self.calls.len().saturating_sub(1));
    }

    /// Goes to the same operation of another layer where that one was chosen.
    pub fn follow(&mut self, layer: usize) {
        if layer == self.layer {
            return;
        }
        self.layer = layer;
        let Some(here) = self.calls.get(self.cursor) else { return };
        let of_layer = |call: &&Call| call.layer.is_some_and(|other| other as usize == layer);
        if of_layer(&here) {
            return;
        }
        let op = here.op;
        let at = |wanted: &dyn Fn(&Call) -> bool| self.calls.iter().position(|call| of_layer(&call) && wanted(call));
        self.cursor = at(&|call| call.op == op).or_else(|| at(&|_| true)).unwrap_or(self.cursor);
    }

    pub fn zoom(&mut self, closer: bool) {
        self.zoom = if closer { (self.zoom + 1).min(ZOOMS.len() - 1) } else { self.zoom.saturating_sub(1) };
    }

    pub fn zoom_reset(&mut self) {
        self.zoom = 0;
    }

    /// Calls that are shown.
    fn shown(&self) -> std::ops::Range<usize> {
        let (Some(layers), Some(here)) = (ZOOMS[self.zoom], self.calls.get(self.cursor)) else {
            return 0..self.calls.len();
        };
        let inside = |call: &Call| match (here.layer, call.layer) {
            (None, other) => other.is_none(),
            (Some(here), Some(other)) => {
                let first = here.saturating_sub(layers / 2);
                (first..first + layers).contains(&other)
            }
            (Some(_), None) => false,
        };
        // What belongs to no layer stands at both ends of the step: only what is beside the cursor is shown.
        let before = self.calls[..self.cursor].iter().rev().take_while(|call| inside(call)).count();
        let after = self.calls[self.cursor..].iter().take_while(|call| inside(call)).count();
        self.cursor - before..self.cursor + after.max(1)
    }

    fn view(&self, width: u16) -> View {
        let shown = &self.calls[self.shown()];
        let from = shown.first().map_or(0, |call| call.start_ns);
        let to = shown.iter().map(Call::end_ns).max().unwrap_or(0).max(from + 1);
        View { from, to, width }
    }

    /// The call that fills most of each column.
    fn columns(&self, view: View) -> Vec<Option<usize>> {
        let mut most = vec![(0, None); view.width as usize];
        for i in self.shown() {
            let call = &self.calls[i];
            for column in view.column(call.start_ns)..=view.column(call.end_ns()) {
                let (start, end) = (view.time(column), view.time(column + 1));
                let inside = call.end_ns().min(end).saturating_sub(call.start_ns.max(start));
                let best = &mut most[column as usize];
                if inside > best.0 {
                    *best = (inside, Some(i));
                }
            }
        }
        most.into_iter().map(|(_, call)| call).collect()
    }

    /// Moves the cursor to what stands beside it; the layer that it has come to.
    pub fn step(&mut self, forward: bool, width: u16) -> Option<usize> {
        let shown = self.shown();
        let next = |i: usize| if forward { i + 1 } else { i.wrapping_sub(1) };
        if shown.len() <= width as usize {
            self.cursor = Some(next(self.cursor)).filter(|i| *i < self.calls.len()).unwrap_or(self.cursor);
        } else {
            let view = self.view(width);
            let columns = self.columns(view);
            let here = view.column(self.calls[self.cursor].start_ns);
            let mut column = next(here as usize);
            while let Some(&there) = columns.get(column) {
                match there {
                    Some(call) if (call > self.cursor) == forward && call != self.cursor => {
                        self.cursor = call;
                        break;
                    }
                    _ => column = next(column),
                }
            }
        }
        self.come()
    }

    /// Puts the cursor on what stands in a column; the layer that it has come to.
    pub fn point(&mut self, column: u16, width: u16) -> Option<usize> {
        let call = self.columns(self.view(width)).get(column as usize).copied().flatten();
        self.cursor = call.unwrap_or(self.cursor);
        self.come()
    }

    fn come(&mut self) -> Option<usize> {
        let layer = self.calls.get(self.cursor)?.layer? as usize;
        self.layer = layer;
        Some(layer)
    }

    /// The call under the cursor: where it belongs, its time, its bytes.
    fn words(&self, peaks: Option<&Peaks>) -> String {
        let Some(call) = self.calls.get(self.cursor) else { return String::new() };
        let layer = call.layer.map_or(String::new(), |layer| format!("L{layer} → "));
        let name = self.names.get(call.op).map_or("", String::as_str);
        let (ns, start) = (units::nanos(call.ns as f64), units::nanos(call.start_ns as f64));
        let mut words = format!("{layer}{name} {ns} from {start}");
        if call.bytes > 0 && call.ns > 0 {
            let rate = call.bytes as f64 / call.ns as f64;
            words += &format!(" · {} · {rate:.1} GB/s", units::bytes(call.bytes));
            if let Some(peaks) = peaks {
                words += &format!(" · {} of the reading peak", units::percent(rate * 1e9 / peaks.read_bytes_per_s));
            }
        }
        words
    }

    pub fn draw(&self, area: Rect, buf: &mut Buffer, theme: &Theme, marks: &Marks, peaks: Option<&Peaks>) {
        if self.calls.is_empty() {
            put::note(buf, area, self.why_empty, theme.faint());
            return;
        }
        let view = self.view(area.width);
        let columns = self.columns(view);
        self.draw_layers(area, buf, theme, &columns);
        let mut x = 0;
        for cell in columns.chunk_by(|a, b| a == b) {
            if let Some(call) = cell[0] {
                let name = self.names.get(self.calls[call].op).map_or("", String::as_str);
                let (mark, mut style) = marks.block(name, theme);
                if call == self.cursor {
                    style = style.add_modifier(Modifier::REVERSED | Modifier::BOLD);
                }
                let label = match cell.len() {
                    wide @ 5.. => format!("▏{:<1$}", text::fit(name, wide - 1), wide - 1),
                    wide => format!("{mark:<wide$}"),
                };
                put::at(buf, area, x, 1, &label, style);
            }
            x += cell.len() as u16;
        }
        self.draw_cursor(area, buf, theme, view);
        put::at(buf, area, 0, 3, &self.words(peaks), theme.strong());
    }

    /// Each layer from its first column on, named where there is room.
    fn draw_layers(&self, area: Rect, buf: &mut Buffer, theme: &Theme, columns: &[Option<usize>]) {
        let layer = |column: &Option<usize>| column.and_then(|call| self.calls[call].layer);
        let (mut x, mut free) = (0u16, 0u16);
        for part in columns.chunk_by(|a, b| layer(a) == layer(b)) {
            if let Some(layer) = layer(&part[0]) {
                let label = format!("▏L{layer}");
                if x >= free && x + text::width(&label) as u16 <= area.width {
                    let chosen = layer as usize == self.layer;
                    free = put::at(buf, area, x, 0, &label, if chosen { theme.accent() } else { theme.soft() });
                }
            }
            x += part.len() as u16;
        }
    }

    fn draw_cursor(&self, area: Rect, buf: &mut Buffer, theme: &Theme, view: View) {
        let call = &self.calls[self.cursor];
        let middle = view.column(call.start_ns.midpoint(call.end_ns().saturating_sub(1).max(call.start_ns)));
        let (from, to) = (units::nanos(view.from as f64), units::nanos(view.to as f64));
        let end = units::nanos(self.calls.iter().map(Call::end_ns).max().unwrap_or(0) as f64);
        let range = match ZOOMS[self.zoom] {
            None => format!("0 … {end}"),
            Some(_) => format!("{from} … {to} of {end}"),
        };
        let room = area.width.saturating_sub(middle + 2);
        if text::width(&range) as u16 <= room {
            put::right(buf, area, area.width, 2, &range, theme.faint());
        } else if text::width(&range) as u16 + 1 < middle {
            put::at(buf, area, 0, 2, &range, theme.faint());
        }
        let style = if theme.depth == Depth::Mono { theme.strong() } else { theme.accent() };
        put::at(buf, area, middle, 2, "▲", style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frame::{OpSpan, OpTime, Timeline};

    /// Embedding, four layers of norm (1 µs) and down (3 µs), head (4 µs).
    fn strip() -> Strip {
        let mut spans = vec![OpSpan { name: "embed", layer: None, start_ns: 0, ns: 1000, bytes: 0 }];
        for layer in 0..4 {
            let start = 1000 + 4000 * u64::from(layer);
            spans.push(OpSpan { name: "norm", layer: Some(layer), start_ns: start, ns: 1000, bytes: 100 });
            spans.push(OpSpan { name: "down", layer: Some(layer), start_ns: start + 1000, ns: 3000, bytes: 60_000 });
        }
        spans.push(OpSpan { name: "head", layer: None, start_ns: 17_000, ns: 4000, bytes: 80_000 });
        let op = |name: &str, n: usize, ns: u32| OpTime {
            name: name.into(),
            calls: n as u32,
            total_ns: u64::from(ns) * n as u64,
            ns: vec![ns; n],
            bytes: 0,
            flops: 0,
            product: false,
        };
        let ops = [op("embed", 1, 1000), op("norm", 4, 1000), op("down", 4, 3000), op("head", 1, 4000)];
        let calls = Timeline::of(&spans, &ops).calls(&ops);
        Strip { calls, names: ops.iter().map(|op| op.name.to_string()).collect(), ..Strip::default() }
    }

    fn drawn(strip: &Strip, width: u16) -> Vec<String> {
        let mut buf = Buffer::empty(Rect::new(0, 0, width, ROWS));
        let marks = Marks::new(strip.names.iter().map(String::as_str));
        strip.draw(buf.area, &mut buf, &Theme::new(Depth::Mono), &marks, None);
        let row = |y: u16| (0..width).map(|x| buf[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..ROWS).map(row).collect()
    }

    #[test]
    fn a_step_is_drawn_along_its_time() {
        let strip = strip();
        let rows = drawn(&strip, 42);
        assert_eq!(rows[0], "  ▏L0     ▏L1     ▏L2     ▏L3");
        assert_eq!(rows[1], "e n ▏down n ▏down n ▏down n ▏down ▏head");
        assert_eq!(rows[2], "▲                              0 … 21.0 µs");
        assert_eq!(rows[3], "embed 1.00 µs from 0 ns");
    }

    #[test]
    fn the_cursor_goes_from_call_to_call_and_names_them() {
        let mut strip = strip();
        assert_eq!(strip.step(true, 42), Some(0));
        assert_eq!(strip.words(None), "L0 → norm 1.00 µs from 1.00 µs · 100 B · 0.1 GB/s");
        assert_eq!(strip.step(false, 42), None);
        assert_eq!(strip.step(false, 42), None);
        assert_eq!(strip.cursor, 0);
        assert_eq!(strip.point(41, 42), None);
        assert!(strip.words(None).starts_with("head 4.00 µs from 17.0 µs"));
        // four columns for ten calls: from one that can be seen to the next
        assert_eq!(strip.point(0, 4), Some(0));
        assert_eq!(strip.step(true, 4), Some(1));
        let peaks = Peaks { read_bytes_per_s: 4e10, flops_per_s: 1.0, product_flops_per_s: 1.0, how: "".into() };
        assert!(
            strip.words(Some(&peaks)).ends_with("20.0 GB/s · 50 % of the reading peak"),
            "{}",
            strip.words(Some(&peaks))
        );
    }

    #[test]
    fn layers_come_nearer() {
        let mut strip = strip();
        strip.follow(2);
        assert_eq!(strip.calls[strip.cursor].layer, Some(2));
        (0..9).for_each(|_| strip.zoom(true));
        let rows = drawn(&strip, 40);
        assert_eq!(rows[0], "▏L2");
        assert_eq!(rows[1], "▏norm     ▏down");
        assert!(rows[2].ends_with("9.00 µs … 13.0 µs of 21.0 µs"), "{rows:?}");
        strip.zoom(false);
        assert_eq!(strip.view(10), View { from: 5000, to: 17_000, width: 10 });
        strip.zoom_reset();
        assert_eq!(strip.view(10), View { from: 0, to: 21_000, width: 10 });
        // the head stands alone
        strip.point(9, 10);
        strip.zoom(true);
        assert_eq!(strip.view(10), View { from: 17_000, to: 21_000, width: 10 });
    }

    #[test]
    fn another_layer_is_met_at_the_same_operation() {
        let mut strip = strip();
        strip.point(8, 42);
        assert_eq!(strip.words(None), "L0 → down 3.00 µs from 2.00 µs · 58.6 KiB · 20.0 GB/s");
        strip.follow(3);
        assert!(strip.words(None).starts_with("L3 → down"));
        strip.follow(9);
        assert!(strip.words(None).starts_with("L3 → down"));
    }
}
