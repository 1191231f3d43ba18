//! Attention map of one head of lane 0: queries down, keys across. The engine computes the pixels on request;
//! the last tile stays on the screen until the next one is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::engine::message::{Answer, Fold, State};
use crate::tui::action::Action;
use crate::tui::asker::{Asked, Asker};
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::scale::{Fitted, Scale};
use crate::tui::widget::spot::{Cell, Spot};
use crate::tui::widget::window::{Grid, Zoom};
use crate::tui::widget::{legend, put};
use crate::tui::{text, units};

struct Tile {
    spot: Spot,
    values: Arc<[f32]>,
    fitted: Option<Fitted>,
    micros: u32,
    took: Duration,
    since: Instant,
}

/// A tile that took t is followed by the next one, of a few tokens more, after this many t at the earliest.
const FOLLOWING: u32 = 10;

/// A question without an answer is asked again after this long.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Map {
    fold: Fold,
    scale: Scale,
    without_sink: bool,
    row_zoom: Zoom,
    col_zoom: Zoom,
    /// What the screen has room for now.
    spot: Option<Spot>,
    tile: Option<Tile>,
    waiting: Option<(Asked, Spot, Instant)>,
    exact: Option<(Cell, f32)>,
    waiting_exact: Option<(Asked, Cell, Instant)>,
    /// Why there was no answer, to which question, at which revision of the history.
    nothing: Option<(Spot, u64, String)>,
    revision: u64,
    /// Columns of the tile whose positions the chosen lane still holds, 0..=1 [values]; empty for lane 0.
    held: Vec<f32>,
    gutter: u16,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            fold: Fold::Max,
            scale: Scale::Log,
            without_sink: false,
            row_zoom: Zoom::default(),
            col_zoom: Zoom::default(),
            spot: None,
            tile: None,
            waiting: None,
            exact: None,
            waiting_exact: None,
            nothing: None,
            revision: 0,
            held: Vec::new(),
            gutter: 0,
        }
    }
}

/// Pixels across from which on a cell has room for its number.
const DIGITS: u32 = 5;
/// Widest column of row labels.
const LABELS: u16 = 12;

impl Map {
    /// The pixels inside the axes: right of the labels, above the kept strip and the readout.
    fn plot(&self, area: Rect) -> Rect {
        let below = if area.height >= 6 { 2 } else { 0 };
        let gutter = self.gutter.min(area.width);
        Rect { x: area.x + gutter, width: area.width - gutter, height: area.height - below, ..area }
    }

    fn lay_out(&mut self, area: Rect, seen: &Seen) -> Option<Spot> {
        let end = u32::try_from(seen.positions()).ok().filter(|&n| n > 0)?;
        let first = (self.without_sink && end > 1) as u32;
        let row = self.row_zoom.window(seen.token() as u32, 0, end);
        let col = self.col_zoom.window(seen.selection.key as u32, first, end);
        let digits = end.to_string().len() as u16 + 1;
        let rows_fit = row.count() <= area.height.saturating_sub(2) as u32;
        self.gutter = match area.width {
            0..24 => 0,
            24..60 => digits,
            _ if rows_fit => LABELS,
            _ => digits,
        };
        let plot = self.plot(area);
        if plot.width == 0 || plot.height == 0 {
            return None;
        }
        Some(Spot {
            layer: seen.selection.layer as u32,
            head: seen.selection.head as u32,
            rows: Grid::new(row, 2 * plot.height as u32, 8),
            cols: Grid::new(col, plot.width as u32, 12),
            fold: self.fold,
            zoom: self.row_zoom.steps,
            plot: (plot.width, plot.height),
        })
    }

    fn ask(&mut self, spot: Spot, seen: &Seen, asker: &mut Asker) {
        let open = |since: Instant| since.elapsed() < PATIENCE;
        // While the run goes on, following it may cost the engine a tenth of its time; a key is answered at once.
        let running = seen.session.state == State::Running;
        let fresh = |t: &Tile| {
            let early = t.since.elapsed() < FOLLOWING * Duration::from_micros(t.micros as u64);
            t.spot == spot || (running && spot.grown_from(&t.spot) && early)
        };
        self.revision = seen.session.revision;
        // The same question at the same moment has no other answer.
        let refused = self.nothing.as_ref().is_some_and(|(s, at, _)| (*s, *at) == (spot, self.revision));
        let shown = refused || self.tile.as_ref().is_some_and(fresh);
        if !shown && !self.waiting.is_some_and(|(_, _, since)| open(since)) {
            self.waiting = asker.ask(spot.query()).map(|asked| (asked, spot, Instant::now()));
        }
        let (row, col) = (seen.token() as u32, seen.selection.key.min(seen.token()) as u32);
        let cell = Cell { layer: spot.layer, head: spot.head, row, col };
        let known = self.exact.is_some_and(|(c, _)| c == cell);
        if !known && !self.waiting_exact.is_some_and(|(_, _, since)| open(since)) {
            self.waiting_exact = asker.ask(cell.query()).map(|asked| (asked, cell, Instant::now()));
        }
    }

    fn refresh_held(&mut self, seen: &Seen) {
        self.held.clear();
        let (Some(tile), Some(lane)) = (&self.tile, seen.lane().filter(|_| seen.lane_index() > 0)) else { return };
        let (grid, kept, head) = (tile.spot.cols, &lane.kept, seen.kv_head());
        if tile.spot.layer as usize >= kept.layers || head >= kept.kv_heads {
            return;
        }
        let held = |value: u32| {
            let cells = grid.cell(value)..if value + 1 < grid.values { grid.cell(value + 1) } else { grid.window.to };
            let all = cells.len().max(1) as f32;
            cells.filter(|&p| kept.contains(tile.spot.layer as usize, head, p as usize)).count() as f32 / all
        };
        self.held = (0..grid.values).map(held).collect();
    }

    fn draw_pixels(&self, plot: Rect, buf: &mut Buffer, seen: &Seen, tile: &Tile) {
        let theme = seen.theme;
        let Spot { rows, cols, .. } = tile.spot;
        let cross = (rows.of(seen.token() as u32), cols.of(seen.selection.key.min(seen.token()) as u32));
        let inside = Rect {
            width: plot.width.min(cols.pixels() as u16),
            height: plot.height.min((rows.pixels() as u16).div_ceil(2)),
            ..plot
        };
        heat::halves(buf, inside, theme, theme.ramp(RampName::Magma), |x, y| {
            let (Some(col), Some(row)) = (cols.value(x as u32), rows.value(y as u32)) else { return Ink::Clear };
            let on = (cross.0 == Some(row), cross.1 == Some(col));
            if on == (true, true) && seen.focused {
                return Ink::Mark;
            }
            let value = tile.values.get((row * cols.values + col) as usize).copied().unwrap_or(f32::NAN);
            match &tile.fitted {
                Some(fitted) if !value.is_nan() => match self.held.get(col as usize) {
                    Some(0.0) => Ink::Dim(fitted.t(value)),
                    _ => Ink::Value(fitted.t(value)),
                },
                _ if on != (false, false) && seen.focused => Ink::Gone,
                _ => Ink::Clear,
            }
        });
        if cols.zoom >= DIGITS && rows.zoom >= 2 {
            self.draw_numbers(plot, buf, seen, tile);
        }
    }

    /// The values themselves, where every cell has room for its number.
    fn draw_numbers(&self, plot: Rect, buf: &mut Buffer, seen: &Seen, tile: &Tile) {
        let Spot { rows, cols, .. } = tile.spot;
        let ramp = seen.theme.ramp(RampName::Magma);
        for row in 0..rows.values {
            for col in 0..cols.values {
                let value = tile.values.get((row * cols.values + col) as usize).copied().unwrap_or(f32::NAN);
                let Some(t) = tile.fitted.as_ref().filter(|_| !value.is_nan()).map(|f| f.t(value)) else { continue };
                let y = (row * rows.zoom + rows.zoom / 2) / 2;
                let end = (col + 1) * cols.zoom - 1;
                let ink = match self.held.get(col as usize) {
                    Some(0.0) => seen.theme.soft(),
                    _ => Style::new().fg(ramp.ink(t)),
                };
                let number = units::number(value);
                let short = number.strip_prefix('0').filter(|n| n.starts_with('.')).unwrap_or(&number);
                put::right(buf, plot, end as u16, y as u16, short, ink);
            }
        }
    }

    fn draw_labels(&self, area: Rect, buf: &mut Buffer, seen: &Seen, tile: &Tile) {
        let rows = tile.spot.rows;
        let plot = self.plot(area);
        let words = self.gutter >= LABELS;
        let every = if words { 1 } else { 4 };
        let chosen = rows.of(seen.token() as u32);
        let mut last = None;
        for y in 0..plot.height {
            let Some(value) = rows.value(2 * y as u32) else { break };
            let here = Some(value) == chosen || (rows.zoom == 1 && chosen == Some(value + 1));
            if last == Some(value) || (y % every != 0 && !here) {
                continue;
            }
            last = Some(value);
            let position = if here { seen.token() } else { rows.cell(value) as usize };
            let style = if here { seen.theme.accent() } else { seen.theme.faint() };
            let label = match seen.id(position).filter(|_| words) {
                Some(id) => seen.session.spell(id).to_string(),
                None => position.to_string(),
            };
            // In the middle of a tall cell.
            let y = if rows.zoom >= 2 { y + (rows.zoom as u16 - 1) / 4 } else { y };
            put::right(buf, area, self.gutter.saturating_sub(1), y, &text::fit(&label, LABELS as usize - 1), style);
        }
    }

    /// Under the map: what the chosen lane still holds, and the columns' positions.
    fn draw_axis(&self, area: Rect, buf: &mut Buffer, seen: &Seen, tile: &Tile) {
        let theme = seen.theme;
        let cols = tile.spot.cols;
        let y = area.height - 2;
        let plot = Rect { height: area.height, ..self.plot(area) };
        if !self.held.is_empty() {
            let strip = Rect { y: area.y + y, height: 1, width: plot.width.min(cols.pixels() as u16), ..plot };
            put::right(buf, area, self.gutter.saturating_sub(1), y, "has", theme.soft());
            heat::strip(buf, strip, theme, theme.ramp(RampName::Cividis), |x| {
                let held = cols.value(x as u32).and_then(|v| self.held.get(v as usize));
                held.map_or(Ink::Clear, |&h| if h > 0.0 { Ink::Value(h) } else { Ink::Gone })
            });
            return;
        }
        let chosen = seen.selection.key.min(seen.token());
        let width = cols.window.to.to_string().len() as u32 + 3;
        let mut x = 0;
        while let Some(value) = cols.value(x) {
            let words = format!("╵{}", cols.cell(value));
            if x + words.chars().count() as u32 <= plot.width as u32 {
                put::at(buf, plot, x as u16, y, &words, theme.faint());
            }
            x += width.next_multiple_of(cols.zoom).max(8);
        }
        if let Some(value) = cols.of(chosen as u32).filter(|_| seen.focused) {
            put::at(buf, plot, (value * cols.zoom) as u16, y, &format!("▴{chosen} "), theme.accent());
        }
    }

    fn readout<'a>(&self, seen: &Seen<'a>) -> Line<'a> {
        let theme = seen.theme;
        let (row, col) = (seen.token(), seen.selection.key.min(seen.token()));
        let cell = Cell {
            layer: seen.selection.layer as u32,
            head: seen.selection.head as u32,
            row: row as u32,
            col: col as u32,
        };
        let value = match self.exact {
            Some((known, value)) if known == cell => units::number(value),
            _ => "…".into(),
        };
        Line::from(vec![
            Span::styled(value, theme.accent()),
            Span::styled(format!("  {row} "), theme.soft()),
            Span::styled(seen.spelled(row), theme.strong()),
            Span::styled(format!(" looks at {col} "), theme.soft()),
            Span::styled(seen.spelled(col), theme.strong()),
        ])
    }
}

impl Panel for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["fold", "scale"])?;
        options.choose("fold", &mut self.fold)?;
        options.choose("scale", &mut self.scale)
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, asker: &mut Asker) {
        self.spot = self.lay_out(area, seen);
        if let Some(spot) = self.spot.filter(|_| seen.frame().is_some()) {
            self.ask(spot, seen, asker);
        }
        self.refresh_held(seen);
    }

    fn answer(&mut self, asked: Asked, answer: &Answer, took: Duration) -> bool {
        if let Some((_, spot, _)) = self.waiting.filter(|(a, ..)| *a == asked) {
            self.waiting = None;
            match answer {
                Answer::Tile { height, width, values, micros, .. }
                    if (*height, *width) == (spot.rows.values, spot.cols.values) =>
                {
                    let fitted = Fitted::to(self.scale, values.iter().copied());
                    let since = Instant::now();
                    self.tile = Some(Tile { spot, values: values.clone(), fitted, micros: *micros, took, since });
                    self.nothing = None;
                }
                Answer::Nothing(why) => self.nothing = Some((spot, self.revision, text::line(why))),
                _ => {}
            }
            return true;
        }
        if let Some((_, cell, _)) = self.waiting_exact.filter(|(a, ..)| *a == asked) {
            self.waiting_exact = None;
            let value = match answer {
                Answer::Tile { values, .. } => values.first().copied(),
                _ => None,
            };
            self.exact = Some((cell, value.unwrap_or(f32::NAN)));
            return true;
        }
        false
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Selection { layer, head, .. } = *seen.selection;
        let mut facts = vec![Span::styled(format!("layer {layer} head {head} "), theme.accent())];
        if let Some(model) = seen.model() {
            let window = match model.windows.get(layer) {
                Some(Some(window)) => format!("· window {window} "),
                _ => String::new(),
            };
            facts.push(Span::styled(format!("· kv head {} {window}", seen.kv_head()), theme.soft()));
        }
        let mut spans = Vec::new();
        if let Some(tile) = &self.tile {
            let (down, across) = (tile.spot.rows.folded(), tile.spot.cols.folded());
            let fold = if down * across > 1 {
                format!("{} of {down}×{across}", tile.spot.fold.name())
            } else {
                "cells".into()
            };
            facts.push(Span::styled(format!("· {fold} "), theme.soft()));
            if let Some(fitted) = &tile.fitted {
                let (low, high) = fitted.ends();
                spans = legend::ramp(theme, theme.ramp(RampName::Magma), &low, &high, fitted.scale.name());
            }
            if self.without_sink {
                spans.push(Span::styled("· position 0 left out ", Style::new().fg(theme.warn)));
            }
            if !self.held.is_empty() {
                spans.extend(legend::key(theme, theme.faint(), "▒", "evicted"));
            }
            let stale = self.spot != Some(tile.spot);
            let note = if stale { "… ".into() } else { format!("{} ", units::nanos(tile.took.as_nanos() as f64)) };
            spans.push(Span::styled(
                format!("· {note}({} engine) ", units::nanos(tile.micros as f64 * 1e3)),
                theme.faint(),
            ));
        }
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let Some(tile) = &self.tile else {
            let why = self.nothing.as_ref().map_or("the map is asked for", |(_, _, why)| why);
            put::note(buf, area, why, seen.theme.soft());
            return;
        };
        if self.gutter > 0 {
            self.draw_labels(area, buf, seen, tile);
        }
        self.draw_pixels(self.plot(area), buf, seen, tile);
        if area.height >= 6 {
            self.draw_axis(area, buf, seen, tile);
            put::line(buf, area, area.height - 1, &self.readout(seen));
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = seen.positions().checked_sub(1) else { return Reply::Ignored };
        let down = self.spot.map_or(1, |s| s.rows.folded() as usize);
        let across = self.spot.map_or(1, |s| s.cols.folded() as usize);
        let (row, key) = (seen.token(), seen.selection.key);
        match action {
            Action::Up => selection.token = Some(row.saturating_sub(down)),
            Action::Down => selection.token = Some((row + down).min(last)).filter(|t| *t < last),
            Action::Left => selection.key = key.saturating_sub(across),
            Action::Right => selection.key = (key + across).min(row),
            Action::First => selection.key = 0,
            Action::Last => selection.key = row,
            Action::ZoomIn => {
                self.row_zoom.closer(last as u32 + 1);
                self.col_zoom.closer(last as u32 + 1);
            }
            Action::ZoomOut => {
                self.row_zoom.farther();
                self.col_zoom.farther();
            }
            Action::ZoomReset => {
                self.row_zoom.reset();
                self.col_zoom.reset();
            }
            Action::Fold => self.fold = self.fold.next(),
            Action::ToggleSink => self.without_sink = !self.without_sink,
            Action::Scale => {
                self.scale = self.scale.next();
                if let Some(tile) = &mut self.tile {
                    tile.fitted = Fitted::to(self.scale, tile.values.iter().copied());
                }
            }
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn click(&mut self, x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(Spot { rows, cols, .. }) = self.spot else { return Reply::Ignored };
        let row = rows.value(2 * y as u32).map(|v| rows.cell(v) as usize);
        let col = x.checked_sub(self.gutter).and_then(|x| cols.value(x as u32)).map(|v| cols.cell(v) as usize);
        if let (Some(row), Some(col)) = (row, col) {
            (selection.token, selection.key) = (Some(row), col.min(row));
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Left, "move the crosshair"),
            (Action::ZoomIn, "zoom in; close enough, the numbers stand in the cells"),
            (Action::ZoomReset, "the whole map"),
            (Action::Fold, "a pixel is the max, mean or sum of its cells"),
            (Action::Scale, "linear, log, percentile"),
            (Action::ToggleSink, "leave out position 0"),
            (Action::LaneNext, "grey what this lane evicted"),
        ]
    }
}
