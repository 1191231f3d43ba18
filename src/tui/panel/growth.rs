//! How the residual stream grows: the chosen token over depth, and every token over depth.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;

use crate::engine::frame::{FindingKind, LaneFrame, ResidualStats};
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Theme;
use crate::tui::units;
use crate::tui::widget::chart::{self, Chart, Series};
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::scale::{Fitted, Scale};
use crate::tui::widget::window::{Grid, Window};
use crate::tui::widget::{legend, put};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Absmax,
    L2,
    Rms,
    Median,
}

impl Choice for Measure {
    const ALL: &'static [Self] = &[Measure::Absmax, Measure::L2, Measure::Rms, Measure::Median];

    fn name(self) -> &'static str {
        match self {
            Measure::Absmax => "absmax",
            Measure::L2 => "l2",
            Measure::Rms => "rms",
            Measure::Median => "median",
        }
    }
}

impl Measure {
    fn of(self, stats: &ResidualStats) -> &[f32] {
        match self {
            Measure::Absmax => &stats.absmax,
            Measure::L2 => &stats.l2,
            Measure::Rms => &stats.rms,
            Measure::Median => &stats.median,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Measure::Absmax => "max |x|",
            Measure::L2 => "L2",
            Measure::Rms => "RMS",
            Measure::Median => "median |x|",
        }
    }

    fn colour(self, theme: &Theme) -> Color {
        theme.lane(match self {
            Measure::Absmax => 1,
            Measure::L2 => 2,
            Measure::Rms => 3,
            Measure::Median => 6,
        })
    }
}

/// Where a residual point stands: `embedding`, `L3 attention`, `L3 MLP`.
fn spot(point: usize) -> String {
    match point {
        0 => "the embedding".into(),
        p if p % 2 == 1 => format!("L{} attention", p / 2),
        p => format!("L{} MLP", p / 2 - 1),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    lane: usize,
    token: usize,
    measure: Measure,
    read: bool,
    area: Rect,
}

pub struct Growth {
    measure: Measure,
    /// Of a model that mixes depth: what sublayers read, not the stream that they write to.
    read: bool,
    key: Option<Key>,
    /// The chosen token over depth, one line for each measure, in their order.
    lines: Vec<Vec<f32>>,
    points: usize,
    /// Largest |x| of the chosen token: (value, point, channel).
    peak: Option<(f32, usize, u32)>,
    /// Largest value in each pixel, `[points][columns]`; NaN = nothing there.
    heat: Vec<f32>,
    fitted: Option<Fitted>,
    across: Option<Grid>,
    down: Option<Grid>,
    /// Massive activations found: (point, position).
    massive: Vec<(usize, usize)>,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            measure: Measure::Absmax,
            read: false,
            key: None,
            lines: Vec::new(),
            points: 0,
            peak: None,
            heat: Vec::new(),
            fitted: None,
            across: None,
            down: None,
            massive: Vec::new(),
        }
    }
}

/// Columns of the layer numbers beside the heat map: those of the chart's axis.
const GUTTER: u16 = chart::AXIS;

/// Rows of the chart; the heat map gets the rest.
fn chart_rows(area: Rect) -> u16 {
    match area.height {
        0..6 => area.height,
        h => (h * 2 / 5).max(3),
    }
}

impl Growth {
    fn stats<'a>(&self, lane: &'a LaneFrame) -> &'a ResidualStats {
        if self.read || lane.stream.l2.is_empty() { &lane.residual } else { &lane.stream }
    }

    fn refresh_lines(&mut self, seen: &Seen) {
        self.lines.clear();
        self.peak = None;
        let Some((lane, row)) = seen.session.fed(seen.lane_index(), seen.token()) else { return };
        let stats = self.stats(lane);
        if row >= stats.rows {
            return;
        }
        let at = |values: &[f32]| -> Vec<f32> {
            (0..stats.points).filter_map(|p| values.get(stats.at(p, row)).copied()).collect()
        };
        self.lines = Measure::ALL.iter().map(|m| at(m.of(stats))).collect();
        let peak = self.lines[0].iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        self.peak = peak.map(|(p, v)| (v, p, stats.argmax.get(stats.at(p, row)).copied().unwrap_or(0)));
    }

    fn refresh_heat(&mut self, area: Rect, seen: &Seen) {
        self.points = seen.model().map_or(0, |m| 1 + 2 * m.layers);
        let rows = area.height.saturating_sub(chart_rows(area) + 1);
        let width = area.width.saturating_sub(GUTTER);
        self.heat.clear();
        if rows == 0 || width == 0 || self.points == 0 || seen.positions() == 0 {
            (self.across, self.down) = (None, None);
            return;
        }
        let across = Grid::new(Window { from: 0, to: seen.positions() as u32 }, width as u32, 8);
        let down = Grid::new(Window { from: 0, to: self.points as u32 }, 2 * rows as u32, 2);
        self.heat = vec![f32::NAN; (across.values * down.values) as usize];
        for frame in seen.session.frames().iter().take(seen.at.unwrap_or(0) + 1) {
            let Some(lane) = seen.session.lane(frame, seen.lane_index()) else { continue };
            let (stats, values) = (self.stats(lane), self.measure.of(self.stats(lane)));
            for row in 0..stats.rows {
                let Some(x) = across.of(lane.pos + row as u32) else { continue };
                for point in 0..stats.points.min(self.points) {
                    let (Some(y), Some(&value)) = (down.of(point as u32), values.get(stats.at(point, row))) else {
                        continue;
                    };
                    let pixel = &mut self.heat[(y * across.values + x) as usize];
                    *pixel = pixel.max(value);
                }
            }
        }
        self.fitted = Fitted::to(Scale::Log, self.heat.iter().copied());
        (self.across, self.down) = (Some(across), Some(down));
    }

    fn refresh_massive(&mut self, seen: &Seen) {
        self.massive.clear();
        let Some(at) = seen.at else { return };
        for finding in seen.session.findings(at).filter(|f| f.kind == FindingKind::MassiveActivation) {
            if let (Some(layer), Some(position)) = (finding.layer, finding.position) {
                self.massive.push((2 * layer as usize + 2, position as usize));
            }
        }
    }

    fn draw_chart(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let series: Vec<Series> = Measure::ALL
            .iter()
            .zip(&self.lines)
            .map(|(m, values)| Series { values, colour: m.colour(theme) })
            .collect();
        let lines = if area.height >= 5 { Rect { height: area.height - 1, ..area } } else { area };
        Chart { series: &series, total: self.points, log: true, axis: theme.faint() }.draw(lines, buf);
        if lines != area {
            self.draw_depths(Rect { y: area.bottom() - 1, height: 1, ..area }, buf, seen);
        }
        let mut x = GUTTER + 1;
        for measure in Measure::ALL {
            let style = Style::new().fg(measure.colour(theme));
            let words = format!("━ {}  ", measure.label());
            // The lines start low on the left: their names stand in the empty corner above.
            x = put::at(buf, Rect { height: 1, ..area }, x, 0, &words, style);
        }
        if let Some((value, point, _)) = self.peak.filter(|_| self.points > 1) {
            let plot = area.width.saturating_sub(GUTTER + 1) as usize;
            let at = GUTTER + (point * plot / (self.points - 1)) as u16;
            let words = format!("▼{}", units::number(value));
            let end = (at + words.chars().count() as u16).min(area.width);
            let row = if area.height > 3 { 1 } else { 0 };
            put::right(buf, area, end.max(1), row, &words, Style::new().fg(Measure::Absmax.colour(theme)));
        }
    }

    /// Under the chart: the layers.
    fn draw_depths(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        put::right(buf, area, GUTTER - 1, 0, "layer", seen.theme.faint());
        let (plot, last) = ((area.width.saturating_sub(GUTTER + 1)) as usize, self.points.saturating_sub(1).max(1));
        // Every fifth layer, or fewer where they would touch.
        let layers = self.points / 2;
        let every = (5..layers.max(6)).step_by(5).find(|n| n * 2 * plot / last >= 6).unwrap_or(layers.max(1));
        for layer in (0..layers).step_by(every) {
            let x = GUTTER + ((2 * layer + 2) * plot / last) as u16;
            put::at(buf, area, x, 0, &format!("╵L{layer}"), seen.theme.faint());
        }
        let edges = seen.model().map_or(&[][..], |model| &model.depth.edges);
        for &edge in edges.iter().filter(|_| edges.len() < last) {
            put::at(buf, area, GUTTER + (edge as usize * plot / last) as u16, 0, "┌", seen.theme.accent());
        }
    }

    fn draw_heat(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let (Some(across), Some(down)) = (self.across, self.down) else { return };
        let place = Rect {
            x: area.x + GUTTER,
            width: (area.width - GUTTER).min(across.pixels() as u16),
            height: area.height.min((down.pixels() as u16).div_ceil(2)),
            ..area
        };
        let chosen = across.of(seen.token() as u32).filter(|_| seen.selection.token.is_some());
        heat::halves(buf, place, theme, theme.ramp(RampName::Magma), |x, y| {
            let (Some(col), Some(row)) = (across.value(x as u32), down.value(y as u32)) else { return Ink::Clear };
            match (&self.fitted, self.heat.get((row * across.values + col) as usize)) {
                (Some(fitted), Some(value)) if !value.is_nan() => Ink::Value(fitted.t(*value)),
                _ if chosen == Some(col) => Ink::Gone,
                _ => Ink::Clear,
            }
        });
        let mut last = None;
        for y in 0..place.height {
            let Some(value) = down.value(2 * y as u32) else { break };
            let layer = (down.cell(value) as usize).saturating_sub(1) / 2;
            if last != Some(layer / 5) {
                put::right(buf, area, GUTTER - 1, y, &format!("L{layer}"), theme.faint());
                last = Some(layer / 5);
            }
        }
        for &(point, position) in &self.massive {
            if let (Some(col), Some(row)) = (across.of(position as u32), down.of(point as u32)) {
                let (x, y) = (GUTTER + (col * across.zoom) as u16, (row * down.zoom / 2) as u16);
                let ground = buf.cell((area.x + x, area.y + y)).map_or(Color::Reset, |c| c.bg);
                put::at(buf, area, x, y, "▲", Style::new().fg(theme.accent).bg(ground));
            }
        }
    }

    /// Under the heat map: the chosen token.
    fn draw_axis(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let Some(across) = self.across else { return };
        put::right(buf, area, GUTTER - 1, 0, "token", theme.faint());
        let mut x = 0;
        let step = 10u32.next_multiple_of(across.zoom);
        while let Some(value) = across.value(x) {
            put::at(buf, area, GUTTER + x as u16, 0, &format!("╵{}", across.cell(value)), theme.faint());
            x += step;
        }
        if let Some(value) = across.of(seen.token() as u32) {
            let words = format!("▴{} ", seen.token());
            let at = GUTTER + (value * across.zoom) as u16;
            let at = at.min(area.width.saturating_sub(words.chars().count() as u16));
            put::at(buf, area, at, 0, &words, theme.accent());
        }
    }
}

impl Panel for Growth {
    fn name(&self) -> &'static str {
        "growth"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["measure"])?;
        options.choose("measure", &mut self.measure)
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, _asker: &mut Asker) {
        let key = Key {
            revision: seen.session.revision,
            at: seen.at,
            lane: seen.lane_index(),
            token: seen.token(),
            measure: self.measure,
            read: self.read,
            area,
        };
        let old = self.key.replace(key);
        if old == Some(key) {
            return;
        }
        self.refresh_lines(seen);
        // Choosing another token does not change the map of all of them.
        if old.map(|old| Key { token: key.token, ..old }) != Some(key) {
            self.refresh_heat(area, seen);
            self.refresh_massive(seen);
        }
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let mut facts = vec![Span::styled(format!("{} {} ", seen.token(), seen.spelled(seen.token())), theme.accent())];
        if seen.model().is_some_and(|model| !model.depth.edges.is_empty()) {
            let what = if self.read { "what is read: " } else { "sums of blocks: " };
            facts.push(Span::styled(what, theme.soft()));
        }
        if let Some((value, point, channel)) = self.peak {
            facts.push(Span::styled(format!("max |x| {} ", units::number(value)), theme.strong()));
            facts.push(Span::styled(format!("after {} ", spot(point)), theme.soft()));
            facts.push(Span::styled(format!("channel {channel} "), theme.soft()));
        }
        let mut spans = Vec::new();
        if let Some(fitted) = &self.fitted {
            let (low, high) = fitted.ends();
            spans.push(Span::styled(format!(" {}", self.measure.label()), theme.soft()));
            spans.extend(legend::ramp(theme, theme.ramp(RampName::Magma), &low, &high, "log"));
            spans.extend(legend::key(theme, theme.accent(), "▲", "massive"));
            if seen.model().is_some_and(|model| !model.depth.edges.is_empty()) {
                spans.extend(legend::key(theme, theme.accent(), "┌", "block"));
            }
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
        if self.lines.is_empty() {
            put::note(buf, area, "no residual statistics for this token: the probe is off", seen.theme.soft());
            return;
        }
        let rows = chart_rows(area);
        self.draw_chart(Rect { height: rows, ..area }, buf, seen);
        if rows < area.height && area.width > GUTTER {
            let heat = Rect { y: area.y + rows, height: area.height - rows - 1, ..area };
            self.draw_heat(heat, buf, seen);
            self.draw_axis(Rect { y: area.bottom() - 1, height: 1, ..area }, buf, seen);
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = seen.positions().checked_sub(1) else { return Reply::Ignored };
        let step = self.across.map_or(1, |g| g.folded() as usize);
        match action {
            Action::Left => selection.token = Some(seen.token().saturating_sub(step)),
            Action::Right => selection.token = Some((seen.token() + step).min(last)).filter(|t| *t < last),
            Action::Colour => self.measure = self.measure.next(),
            Action::Span => self.read = !self.read,
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn click(&mut self, x: u16, _y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let value = self.across.and_then(|g| Some(g.cell(g.value(x.checked_sub(GUTTER)? as u32)?)));
        if let Some(position) = value {
            selection.token = Some(position as usize);
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Left, "choose a token"),
            (Action::Colour, "map of max |x|, L2, RMS, median |x|"),
            (Action::Span, "where depth is mixed: sums of blocks, or what is read"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named_by_their_sublayer() {
        assert_eq!([spot(0), spot(1), spot(2), spot(7)], ["the embedding", "L0 attention", "L0 MLP", "L3 attention"]);
    }
}
