//! When each token is settled: over depth, how probable the logit lens finds the token that the last layer finds most
//! probable, for the newest tokens and, as lines, for the chosen one.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;

use crate::engine::frame::LensLayer;
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Theme;
use crate::tui::units;
use crate::tui::widget::chart::{self, Chart, Series};
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::window::{Grid, Window};
use crate::tui::widget::{legend, put};

/// A token over depth.
#[derive(Debug, Clone, PartialEq)]
struct Course {
    position: usize,
    exit: usize,
    /// Probability of the token [L + 1].
    probability: Vec<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    lane: usize,
    token: usize,
    area: Rect,
}

#[derive(Default)]
pub struct Exits {
    key: Option<Key>,
    /// The newest tokens that the lens was taken of, oldest first.
    courses: Vec<Course>,
    /// Of the chosen token, which may be another one.
    chosen: Option<(Course, Vec<LensLayer>)>,
    across: Option<Grid>,
    down: Option<Grid>,
}

/// Columns of the layer numbers beside the map: those of the chart's axis.
const GUTTER: u16 = chart::AXIS;
/// Widest column of a token.
const WIDEST: u32 = 4;

/// Rows of the chart; the map gets the rest.
fn chart_rows(area: Rect) -> u16 {
    match area.height {
        0..8 => 0,
        h => (h * 2 / 5).max(4),
    }
}

fn colours(theme: &Theme) -> [Color; 2] {
    [theme.lane(2), theme.lane(3)]
}

/// Of the frame at index `at`, whose lens is that of its newest token.
fn course<'a>(at: usize, seen: &Seen<'a>) -> Option<(Course, &'a [LensLayer])> {
    let lane = seen.session.lane(seen.session.frames().get(at)?, seen.lane_index())?;
    let exit = lane.exit_depth()?;
    let probability = lane.lens.iter().map(|layer| layer.token_prob).collect();
    Some((Course { position: lane.pos as usize + lane.fed.len().checked_sub(1)?, exit, probability }, &lane.lens))
}

impl Exits {
    fn refresh(&mut self, area: Rect, seen: &Seen) {
        let newest = seen.at.map_or(0, |at| at + 1);
        let room = area.width.saturating_sub(GUTTER) as usize;
        let courses = (0..newest).rev().filter_map(|at| course(at, seen).map(|(course, _)| course));
        self.courses = courses.take(room).collect();
        self.courses.reverse();
        let place = seen.session.place(seen.token());
        let chosen = place.and_then(|place| course(place.frame, seen)).filter(|(c, _)| c.position == seen.token());
        self.chosen = chosen.map(|(course, lens)| (course, lens.to_vec()));
        let points = self.courses.last().map_or(0, |course| course.probability.len());
        let rows = area.height.saturating_sub(chart_rows(area) + 1);
        if self.courses.is_empty() || rows == 0 || room == 0 {
            (self.across, self.down) = (None, None);
            return;
        }
        self.across = Some(Grid::new(Window { from: 0, to: self.courses.len() as u32 }, room as u32, WIDEST));
        self.down = Some(Grid::new(Window { from: 0, to: points as u32 }, 2 * rows as u32, 2));
    }

    fn draw_chart(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let Some((course, lens)) = &self.chosen else {
            put::note(buf, area, "the lens was not taken of this token", theme.soft());
            return;
        };
        let best: Vec<f32> = lens.iter().map(|layer| layer.top.first().map_or(f32::NAN, |best| best.1)).collect();
        let [own, token] = colours(theme);
        let series = [Series { values: &best, colour: own }, Series { values: &course.probability, colour: token }];
        let total = course.probability.len();
        Chart { series: &series, total, log: false, axis: theme.faint() }.draw(area, buf);
        // The lines start low on the left: their names stand in the empty corner above.
        let x = put::at(buf, area, GUTTER + 1, 0, "━ settled token  ", Style::new().fg(token));
        put::at(buf, area, x, 0, "━ layer's best", Style::new().fg(own));
        let plot = area.width.saturating_sub(GUTTER + 1) as usize;
        let at = GUTTER + (course.exit * plot / total.saturating_sub(1).max(1)) as u16;
        put::at(buf, area, at.min(area.width.saturating_sub(1)), area.height - 1, "▲", theme.accent());
    }

    fn draw_map(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let (Some(across), Some(down)) = (self.across, self.down) else { return };
        let place = Rect {
            x: area.x + GUTTER,
            width: (area.width - GUTTER).min(across.pixels() as u16),
            height: area.height.min((down.pixels() as u16).div_ceil(2)),
            ..area
        };
        heat::halves(buf, place, theme, theme.ramp(RampName::Viridis), |x, y| {
            let (Some(col), Some(row)) = (across.value(x as u32), down.value(y as u32)) else { return Ink::Clear };
            let Some(course) = self.courses.get(col as usize) else { return Ink::Clear };
            let cells = down.cell(row) as usize
                ..if row + 1 < down.values { down.cell(row + 1) } else { down.window.to } as usize;
            match cells.contains(&course.exit) {
                true => Ink::Mark,
                false => course
                    .probability
                    .get(cells)
                    .map_or(Ink::Clear, |p| Ink::Value(p.iter().copied().fold(0.0, f32::max))),
            }
        });
        let mut last = None;
        for y in 0..place.height {
            let Some(value) = down.value(2 * y as u32) else { break };
            let layers = down.cell(value) as usize;
            if last != Some(layers / 5) {
                put::right(buf, area, GUTTER - 1, y, &layers.to_string(), theme.faint());
                last = Some(layers / 5);
            }
        }
    }

    /// Under the map: the exit depths where there is room, and the chosen token.
    fn draw_axis(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        let Some(across) = self.across else { return };
        put::right(buf, area, GUTTER - 1, 0, "exit", theme.faint());
        for (i, course) in self.courses.iter().enumerate().filter(|_| across.zoom >= 3) {
            put::at(buf, area, GUTTER + (i as u32 * across.zoom) as u16, 0, &course.exit.to_string(), theme.soft());
        }
        let chosen = self.courses.iter().position(|course| course.position == seen.token());
        if let Some((i, course)) = chosen.zip(chosen.and_then(|i| self.courses.get(i))) {
            let words = if across.zoom >= 3 { course.exit.to_string() } else { format!("▴{} ", course.exit) };
            let at = GUTTER + (i as u32 * across.zoom) as u16;
            let at = at.min(area.width.saturating_sub(words.chars().count() as u16));
            put::at(buf, area, at, 0, &words, theme.accent());
        }
    }
}

impl Panel for Exits {
    fn name(&self) -> &'static str {
        "exits"
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, _asker: &mut Asker) {
        let (revision, at, lane, token) = (seen.session.revision, seen.at, seen.lane_index(), seen.token());
        let key = Key { revision, at, lane, token, area };
        if self.key.replace(key) != Some(key) {
            self.refresh(area, seen);
        }
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let mut facts = vec![Span::styled(format!("after {} ", seen.spelled(seen.token())), theme.accent())];
        if let Some((course, lens)) = &self.chosen {
            let layers = course.probability.len().saturating_sub(1);
            facts.push(Span::styled(format!("settled after {} of {layers} ", course.exit), theme.strong()));
            if let Some((id, p)) = lens.last().and_then(|last| last.top.first()) {
                let words = format!("‹{}› {} ", seen.session.spell(*id), units::percent(*p as f64));
                facts.push(Span::styled(words, theme.soft()));
            }
            let half = &lens[layers / 2];
            let words = format!("half way: rank {}, KL {}", half.token_rank, units::number(half.kl));
            facts.push(Span::styled(words, theme.faint()));
        }
        let mut spans = vec![Span::styled(" p of the settled token", theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(RampName::Viridis), "0", "1", "linear"));
        spans.extend(legend::key(theme, theme.accent(), "◆", "settled"));
        let depths = self.courses.iter().map(|course| course.exit as f32);
        let mean = depths.sum::<f32>() / self.courses.len().max(1) as f32;
        spans.push(Span::styled(format!("mean {} ", units::number(mean)), theme.soft()));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        if self.courses.is_empty() {
            let why = "the logit lens is off: L switches it on from the next step (one head product for each layer)";
            put::note(buf, area, why, seen.theme.soft());
            return;
        }
        let rows = chart_rows(area);
        if rows > 0 {
            self.draw_chart(Rect { height: rows, ..area }, buf, seen);
        }
        if area.height > rows + 1 && area.width > GUTTER {
            self.draw_map(Rect { y: area.y + rows, height: area.height - rows - 1, ..area }, buf, seen);
            self.draw_axis(Rect { y: area.bottom() - 1, height: 1, ..area }, buf, seen);
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = seen.positions().checked_sub(1) else { return Reply::Ignored };
        match action {
            Action::Left => selection.token = Some(seen.token().saturating_sub(1)),
            Action::Right => selection.token = Some((seen.token() + 1).min(last)).filter(|t| *t < last),
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn click(&mut self, x: u16, _y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let column = self.across.and_then(|grid| grid.value(x.checked_sub(GUTTER)? as u32));
        if let Some(course) = column.and_then(|column| self.courses.get(column as usize)) {
            selection.token = Some(course.position);
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::Left, "choose a token"), (Action::ToggleLens, "switch the lens on or off")]
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "settled: the lens's best token is the last layer's from there on",
            "p = softmax(head(norm(h))) after so many layers; 0 is the embedding",
        ]
    }
}
