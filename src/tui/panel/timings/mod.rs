//! What each operation costs, over one step, the last steps, or all of them; how near it comes to what the device does
//! at best; and one step along its time.

mod marks;
mod strip;
mod table;

use std::sync::Arc;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use crate::engine::frame::{Frame, Peaks};
use crate::engine::message::{Answer, Query};
use crate::meter::overhead::{Overhead, overhead};
use crate::tui::action::Action;
use crate::tui::asker::{Asked, Asker};
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::put;
use crate::tui::{text, units};
use marks::Marks;
use strip::Strip;
use table::{Column, Row, Table, add_up, order};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    Step,
    Last,
    All,
}

impl Choice for Steps {
    const ALL: &'static [Self] = &[Steps::Last, Steps::Step, Steps::All];

    fn name(self) -> &'static str {
        match self {
            Steps::Step => "step",
            Steps::Last => "last",
            Steps::All => "all",
        }
    }
}

/// Steps in the span "last".
const LAST: usize = 32;

#[derive(Debug, Clone, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    span: Steps,
    column: Column,
    peaks: Option<Arc<Peaks>>,
}

pub struct Timings {
    span: Steps,
    column: Column,
    key: Option<Key>,
    rows: Vec<Row>,
    marks: Marks,
    steps: usize,
    /// Wall time of the span, and what of it the operations explain, ns.
    wall: u64,
    ops: u64,
    top: usize,
    strip: Strip,
    /// Columns of the panel when it was last prepared.
    width: u16,
    /// Rows above the strip, where there is one.
    above: Option<u16>,
    overhead: Option<Overhead>,
    asked: Option<Asked>,
    /// What was answered: the peaks, or why there are none.
    peaks: Option<Result<Arc<Peaks>, String>>,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            span: Steps::Last,
            column: Column::Total,
            key: None,
            rows: Vec::new(),
            marks: Marks::default(),
            steps: 0,
            wall: 0,
            ops: 0,
            top: 0,
            strip: Strip::default(),
            width: 0,
            above: None,
            overhead: None,
            asked: None,
            peaks: None,
        }
    }
}

/// Least rows of the table, its heading included, and rows of the foot: two lines, more where there is room to tell how
/// peaks were measured.
const TABLE: u16 = 5;
const FOOT: u16 = 2;
const LONG_FOOT: u16 = 4;
const ROOMY: u16 = 24;

/// Rows of the table, the strip and the foot: what has no room is left out, the strip first.
fn parts(height: u16) -> [u16; 3] {
    let foot = match height {
        ROOMY.. => LONG_FOOT,
        h if h >= TABLE + FOOT => FOOT,
        _ => 0,
    };
    let strip = if height >= TABLE + FOOT + strip::ROWS { strip::ROWS } else { 0 };
    [height - foot - strip, strip, foot]
}

impl Timings {
    /// Those of the frames on the screen, else those that were asked for.
    fn known_peaks(&self, seen: &Seen) -> Option<Arc<Peaks>> {
        let answered = || self.peaks.as_ref()?.as_ref().ok().cloned();
        seen.frame().and_then(|frame| frame.peaks.clone()).or_else(answered)
    }

    fn refresh(&mut self, at: usize, seen: &Seen, peaks: Option<&Peaks>) {
        let frames = &seen.session.frames()[..=at];
        let spanned = match self.span {
            Steps::Step => &frames[at..],
            // Decoding only: the prompt's step would drown it.
            Steps::Last => {
                let decoded = &frames[frames.partition_point(|f| f.step == 0).min(at)..];
                &decoded[decoded.len().saturating_sub(LAST)..]
            }
            Steps::All => frames,
        };
        let timed: Vec<&Frame> = spanned.iter().map(|f| &**f).filter(|f| !f.ops.is_empty()).collect();
        self.rows = add_up(timed.iter().flat_map(|f| &f.ops), peaks);
        self.marks = Marks::new(self.rows.iter().map(|row| row.name.as_str()));
        order(&mut self.rows, self.column);
        self.steps = timed.len();
        self.wall = timed.iter().map(|f| f.wall_ns).fold(0, u64::saturating_add);
        self.ops = self.rows.iter().map(|r| r.total_ns).fold(0, u64::saturating_add);
        self.strip.take(seen.frame());
        self.overhead = overhead(frames.iter().map(|f| &**f));
    }

    /// What taking times costs.
    fn cost(&self) -> String {
        match &self.overhead {
            None => "timing costs: not measured yet; timing_cost takes 64 steps to tell".into(),
            Some(found) => {
                let percent = |share: f64| format!("{:.1}", share * 100.0);
                format!(
                    "timing costs {} % of a step: {} with, {} without · {} … {} % in the middle half of {} pairs",
                    percent(found.share),
                    units::nanos(found.with_ns as f64),
                    units::nanos(found.without_ns as f64),
                    percent(found.quartiles[0]),
                    percent(found.quartiles[1]),
                    found.pairs,
                )
            }
        }
    }

    /// What the device does at best, and how that is known.
    fn best(&self, seen: &Seen) -> String {
        match (self.known_peaks(seen), &self.peaks) {
            (Some(peaks), _) => format!(
                "peak: reads {:.1} GB/s, f32 {:.0}, products {:.0} GFLOP/s · {}",
                peaks.read_bytes_per_s / 1e9,
                peaks.flops_per_s / 1e9,
                peaks.product_flops_per_s / 1e9,
                text::line(&peaks.how),
            ),
            (None, Some(Err(why))) => format!("peak: not measured: {why}"),
            (None, _) => "peak: being measured".into(),
        }
    }

    fn foot(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        put::at(buf, area, 0, 0, &self.cost(), seen.theme.soft());
        let best = self.best(seen);
        let lines = if area.height > FOOT { text::wrap(&best, area.width as usize) } else { vec![best] };
        for (y, line) in (1..area.height).zip(&lines) {
            put::at(buf, area, 0, y, line, seen.theme.soft());
        }
    }
}

impl Panel for Timings {
    fn name(&self) -> &'static str {
        "timings"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["span", "sort"])?;
        options.choose("span", &mut self.span)?;
        options.choose("sort", &mut self.column)
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, asker: &mut Asker) {
        let [table, strip, _] = parts(area.height);
        (self.width, self.above) = (area.width, (strip > 0).then_some(table));
        let Some(at) = seen.at else {
            (self.key, self.rows) = (None, Vec::new());
            return;
        };
        let peaks = self.known_peaks(seen);
        if peaks.is_none() && self.peaks.is_none() && self.asked.is_none() {
            self.asked = asker.ask(Query::Peaks);
        }
        let key = Key { revision: seen.session.revision, at: seen.at, span: self.span, column: self.column, peaks };
        if self.key.as_ref() != Some(&key) {
            self.refresh(at, seen, key.peaks.as_deref());
            self.key = Some(key);
        }
        self.strip.follow(seen.selection.layer);
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let span = match self.span {
            Steps::Step => format!("step {} ", seen.frame().map_or(0, |f| f.step)),
            Steps::Last if self.steps == 1 => "1 step ".into(),
            Steps::Last => format!("last {} steps ", self.steps),
            Steps::All => format!("all {} steps ", self.steps),
        };
        let per = units::nanos(self.wall as f64 / self.steps.max(1) as f64);
        let graph = seen.frame().is_some_and(|frame| frame.graph);
        let facts = vec![
            Span::styled(span, theme.accent()),
            Span::styled(if graph { "· one graph " } else { "" }, theme.soft()),
            Span::styled(format!("· {per} a step "), theme.soft()),
            Span::styled(
                format!("· operations explain {} ", units::percent(self.ops as f64 / self.wall.max(1) as f64)),
                theme.soft(),
            ),
        ];
        let legend = vec![
            Span::styled(format!(" by {} ", self.column.name()), theme.soft()),
            Span::styled("· times, peak measured · bytes, rates derived from shapes ", theme.faint()),
            Span::styled("· p50, p99, bytes of a call ", theme.faint()),
        ];
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(legend, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        if put::waiting(buf, area, seen) {
            return;
        }
        if self.rows.is_empty() {
            put::note(buf, area, "no operation times in these steps", theme.soft());
            return;
        }
        let [table, strip, foot] = parts(area.height);
        let part = |y: u16, height: u16| Rect { y: area.y + y, height, ..area };
        let rows = Table { rows: &self.rows, top: self.top, all: self.ops, by: self.column, marks: &self.marks };
        rows.draw(part(0, table), buf, theme);
        if strip > 0 {
            self.strip.draw(part(table, strip), buf, theme, &self.marks, self.known_peaks(seen).as_deref());
        }
        if foot > 0 {
            self.foot(part(table + strip, foot), buf, seen);
        }
    }

    fn act(&mut self, action: Action, _seen: &Seen, selection: &mut Selection) -> Reply {
        let last = self.rows.len().saturating_sub(1);
        match action {
            Action::Sort => self.column = self.column.next(),
            Action::Span => self.span = self.span.next(),
            Action::Up => self.top = self.top.saturating_sub(1),
            Action::Down => self.top = (self.top + 1).min(last),
            Action::First => self.top = 0,
            Action::Last => self.top = last,
            Action::ZoomIn => self.strip.zoom(true),
            Action::ZoomOut => self.strip.zoom(false),
            Action::ZoomReset => self.strip.zoom_reset(),
            Action::Left | Action::Right if self.above.is_some() => {
                selection.layer = self.strip.step(action == Action::Right, self.width).unwrap_or(selection.layer);
            }
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn click(&mut self, x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        match self.above {
            Some(above) if (above..above + strip::ROWS).contains(&y) => {
                selection.layer = self.strip.point(x, self.width).unwrap_or(selection.layer);
                Reply::Done
            }
            _ => Reply::Ignored,
        }
    }

    fn answer(&mut self, asked: Asked, answer: &Answer, _took: Duration) -> bool {
        if self.asked != Some(asked) {
            return false;
        }
        self.asked = None;
        self.peaks = match answer {
            Answer::Peaks(peaks) => Some(Ok(peaks.clone())),
            Answer::Nothing(why) => Some(Err(text::line(why))),
            _ => None,
        };
        true
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Sort, "sort by the next column"),
            (Action::Span, "the last 32 steps, this step, all steps"),
            (Action::Up, "scroll; along the step's time"),
            (Action::ZoomIn, "the step's time: 8 layers, 3, 1"),
            (Action::ZoomOut, "more of the step's time"),
            (Action::ZoomReset, "the whole step"),
            (Action::TimingCost, "measure what taking times costs"),
        ]
    }
}
