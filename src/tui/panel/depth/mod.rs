//! What each sublayer reads is made of: sources over depth, as weights where the model mixes them, as contributions in any
//! model; of one token, of the prompt, of all steps, or as the difference from lane 0.

mod names;

use std::sync::Arc;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span as Words;

use crate::engine::frame::{Depth, PromptSpan};
use crate::engine::message::{Answer, DepthInfo, Query};
use crate::probe::depth::{distance, entropy};
use crate::tui::action::Action;
use crate::tui::asker::{Asked, Asker};
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::text;
use crate::tui::theme::Depth as Colours;
use crate::tui::units;
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::scale::Fitted;
use crate::tui::widget::{legend, put};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Weight,
    Share,
    Difference,
}

impl Choice for Measure {
    const ALL: &'static [Self] = &[Measure::Weight, Measure::Share, Measure::Difference];

    fn name(self) -> &'static str {
        match self {
            Measure::Weight => "weight",
            Measure::Share => "contribution",
            Measure::Difference => "difference",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Token,
    Prompt,
    Steps,
}

impl Choice for Over {
    const ALL: &'static [Self] = &[Over::Token, Over::Prompt, Over::Steps];

    fn name(self) -> &'static str {
        match self {
            Over::Token => "token",
            Over::Prompt => "prompt",
            Over::Steps => "steps",
        }
    }
}

/// Columns of the targets' names, and of what is told about each of them.
const NAMES: u16 = 5;
const TOLD: u16 = 15;
/// A cell that has room for its number.
const CELL: u16 = 6;

/// A question about positions of the prompt.
type Asking = (Arc<[u32]>, (u32, u32));

pub struct Map {
    measure: Measure,
    over: Over,
    /// Of the prompt, only this one of its named parts.
    part: Option<usize>,
    /// Target that the cursor is on.
    target: usize,
    asked: Option<(Asked, Asking)>,
    answered: Option<(Asking, Result<Arc<Depth>, String>)>,
    shown: Option<Arc<Depth>>,
    base: Option<Arc<Depth>>,
    /// Why nothing is shown.
    why: Option<String>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            measure: Measure::Weight,
            over: Over::Token,
            part: None,
            target: usize::MAX,
            asked: None,
            answered: None,
            shown: None,
            base: None,
            why: None,
        }
    }
}

/// What is told about a target: from its weights, or from the sizes of its contributions.
struct Told {
    entropy: f32,
    /// Weight of the embedding.
    embedding: f32,
    distance: f32,
    most: (usize, f32),
}

fn told(values: &[f32], info: &DepthInfo) -> Option<Told> {
    let sum: f32 = values.iter().map(|v| v.abs()).sum();
    let most = values.iter().copied().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    let sizes: Vec<f32> = values.iter().map(|v| v.abs() / sum).collect();
    let embedding = values.get(usize::from(info.null)).copied().unwrap_or(f32::NAN);
    Some(Told { entropy: entropy(&sizes), embedding, distance: distance(&sizes), most })
}

/// Mean of `all`, which have the same sources.
fn mean(all: &[Arc<Depth>]) -> Option<Arc<Depth>> {
    let first = all.first()?;
    let mut sum = Depth { counts: first.counts.clone(), ..Depth::default() };
    let same: Vec<&Arc<Depth>> = all.iter().filter(|d| d.counts == first.counts).collect();
    let over = |of: fn(&Depth) -> &Vec<f32>| -> Vec<f32> {
        let at = |i: usize| same.iter().filter_map(|d| of(d).get(i)).sum::<f32>() / same.len() as f32;
        (0..of(first).len()).map(at).collect()
    };
    (sum.share, sum.weight) = (over(|d| &d.share), over(|d| &d.weight));
    Some(Arc::new(sum))
}

impl Map {
    /// Weights where the model has them, unless something else is wanted.
    fn measure(&self) -> Measure {
        let weighed = self.shown.as_ref().is_some_and(|depth| !depth.weight.is_empty());
        if self.measure == Measure::Weight && !weighed { Measure::Share } else { self.measure }
    }

    fn row(&self, target: usize) -> Vec<f32> {
        let Some(depth) = &self.shown else { return Vec::new() };
        match self.measure() {
            Measure::Weight => depth.row(&depth.weight, target).to_vec(),
            Measure::Share => depth.row(&depth.share, target).to_vec(),
            Measure::Difference => {
                let Some(base) = self.base.as_ref().filter(|base| base.counts == depth.counts) else {
                    return Vec::new();
                };
                let of = |d: &Depth| {
                    let values = if d.weight.is_empty() { &d.share } else { &d.weight };
                    d.row(values, target).to_vec()
                };
                of(depth).iter().zip(of(base)).map(|(a, b)| a - b).collect()
            }
        }
    }

    fn targets(&self) -> usize {
        self.shown.as_ref().map_or(0, |depth| depth.counts.len())
    }

    fn across(&self) -> usize {
        self.shown.as_ref().and_then(|depth| depth.counts.iter().max().copied()).unwrap_or(0) as usize
    }

    fn cursor(&self) -> usize {
        self.target.min(self.targets().saturating_sub(1))
    }

    /// Of the prompt's positions, from the engine, once.
    fn ask(&mut self, seen: &Seen, asker: &mut Asker, positions: std::ops::Range<u32>) -> Option<Arc<Depth>> {
        let positions = (positions.start, positions.end);
        let wanted: Asking = (seen.session.prompt.clone(), positions);
        let same = |a: &Asking| a.1 == wanted.1 && Arc::ptr_eq(&a.0, &wanted.0);
        if let Some((of, answer)) = self.answered.as_ref().filter(|(of, _)| same(of)) {
            debug_assert!(same(of));
            self.why = answer.as_ref().err().cloned();
            return answer.as_ref().ok().cloned();
        }
        self.why = Some("the prompt is being read once more".into());
        if !self.asked.as_ref().is_some_and(|(_, of)| same(of)) {
            let (from, to) = positions;
            self.asked = asker.ask(Query::Depth { from, to }).map(|asked| (asked, wanted));
        }
        None
    }

    /// Of steps up to the one that is shown.
    fn steps(seen: &Seen, lane: usize) -> Option<Arc<Depth>> {
        let frames = seen.session.frames().iter().take(seen.at.unwrap_or(0) + 1);
        let of = |frame: &Arc<crate::engine::frame::Frame>| seen.session.lane(frame, lane)?.depth.clone();
        mean(&frames.filter(|frame| frame.step > 0 && frame.partial.is_none()).filter_map(of).collect::<Vec<_>>())
    }

    fn of_token(&mut self, seen: &Seen, asker: &mut Asker, lane: usize) -> Option<Arc<Depth>> {
        let token = seen.token();
        let last_of_prompt = seen.session.prompt.len().saturating_sub(1);
        if token < last_of_prompt {
            return self.ask(seen, asker, token as u32..token as u32 + 1);
        }
        let place = seen.session.place(token)?;
        seen.session.lane(seen.session.frames().get(place.frame)?, lane)?.depth.clone()
    }

    /// The named part of the prompt that is chosen.
    fn part<'a>(&self, seen: &Seen<'a>) -> Option<&'a PromptSpan> {
        seen.frame()?.spans.get(self.part?)
    }

    fn refresh(&mut self, seen: &Seen, asker: &mut Asker) {
        let lane = seen.lane_index();
        self.why = None;
        self.shown = match self.over {
            Over::Token => self.of_token(seen, asker, lane),
            Over::Prompt => {
                self.ask(seen, asker, self.part(seen).map_or(0..seen.session.prompt.len() as u32, |p| p.from..p.to))
            }
            Over::Steps => Self::steps(seen, lane),
        };
        self.base = match (self.over, lane) {
            (_, 0) | (Over::Prompt, _) => None,
            (Over::Token, _) => self.of_token(seen, asker, 0),
            (Over::Steps, _) => Self::steps(seen, 0),
        };
        if self.shown.is_none() && self.why.is_none() {
            self.why = Some(match self.over {
                Over::Steps => "no step has been made yet: n makes one".into(),
                _ => "not measured: the residual probe is off, or more lanes run than are copied".into(),
            });
        } else if self.measure == Measure::Difference && self.base.is_none() {
            self.why = Some("the difference is that of another lane from lane 0: choose one with )".into());
        }
    }

    fn fitted(&self) -> Fitted {
        match self.measure() {
            Measure::Weight => Fitted::between(0.0, 1.0),
            _ => {
                let all = (0..self.targets()).flat_map(|target| self.row(target));
                // the output of a sublayer may cancel what was there: the scale is that of all but such extremes
                let most = all.map(f32::abs).fold(0.0f32, f32::max).clamp(0.05, 1.0);
                Fitted::between(-most, most)
            }
        }
    }

    fn ramp(&self) -> RampName {
        if self.measure() == Measure::Weight { RampName::Viridis } else { RampName::Berlin }
    }

    /// Targets under each other with a number in each cell.
    fn draw_cells(&self, area: Rect, buf: &mut Buffer, seen: &Seen, info: &DepthInfo, width: u16) {
        let (theme, fitted) = (seen.theme, self.fitted());
        let ramp = theme.ramp(self.ramp());
        let (targets, across) = (self.targets(), self.across());
        let named = self.shown.as_ref().map_or(0, |depth| depth.counts.last().copied().unwrap_or(0) as usize);
        for source in 0..across.min(named) {
            let words = names::source(source, named, info, true);
            put::right(buf, area, NAMES + (source as u16 + 1) * width - 1, 0, &words, theme.soft());
        }
        let rows = area.height.saturating_sub(1) as usize;
        let from = self.cursor().saturating_sub(rows / 2).min(targets.saturating_sub(rows));
        for (y, target) in (from..targets).take(rows).enumerate() {
            let y = y as u16 + 1;
            self.draw_name(area, buf, seen, info, target, y);
            for (source, value) in self.row(target).iter().enumerate() {
                let (x, t) = (NAMES + source as u16 * width, fitted.t(*value));
                let style = match theme.depth {
                    Colours::Mono => Style::new(),
                    _ => Style::new().bg(ramp.colour(t)).fg(ramp.ink(t)),
                };
                let words = format!("{value:>0$.2}", width as usize - 1);
                put::at(buf, area, x, y, &format!("{words} "), style);
            }
            self.draw_told(area, buf, seen, info, target, y);
        }
    }

    /// The same in pixels, two targets in a row.
    fn draw_pixels(&self, area: Rect, buf: &mut Buffer, seen: &Seen, info: &DepthInfo) {
        let (theme, fitted) = (seen.theme, self.fitted());
        let (targets, across) = (self.targets(), self.across());
        let header = Rect { height: 1, ..area };
        let area = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        let rows = area.height as usize;
        let from = (self.cursor() / 2).saturating_sub(rows / 2).min(targets.div_ceil(2).saturating_sub(rows));
        let room = area.width.saturating_sub(NAMES + TOLD).max(1) as usize;
        // several sources in a pixel, or several pixels for a source
        let (fold, zoom) = (across.div_ceil(room).max(1), (room / across.max(1)).clamp(1, 3));
        let mut next = 0;
        for source in 0..across {
            let x = NAMES + (source / fold * zoom) as u16;
            if x >= next && source.is_multiple_of(10) {
                let words = format!("╵{}", names::source(source, usize::MAX, info, true));
                next = put::at(buf, header, x, 0, &words, theme.faint()) + 2;
            }
        }
        let all: Vec<Vec<f32>> = (0..targets).map(|target| self.row(target)).collect();
        let place = Rect { x: area.x + NAMES, width: (across.div_ceil(fold) * zoom) as u16, ..area };
        heat::halves(buf, place, theme, theme.ramp(self.ramp()), |x, y| {
            let Some(row) = all.get(2 * from + y) else { return Ink::Clear };
            let first = x / zoom * fold;
            let part = row.get(first..(first + fold).min(row.len())).unwrap_or(&[]);
            match part.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())) {
                Some(value) => Ink::Value(fitted.t(value)),
                None => Ink::Clear,
            }
        });
        for y in 0..rows {
            let target = 2 * (from + y);
            if target < targets {
                let at = if self.cursor() / 2 == from + y { self.cursor() } else { target };
                self.draw_name(area, buf, seen, info, at, y as u16);
                self.draw_told(area, buf, seen, info, at, y as u16);
            }
        }
    }

    fn draw_name(&self, area: Rect, buf: &mut Buffer, seen: &Seen, info: &DepthInfo, target: usize, y: u16) {
        let theme = seen.theme;
        let edge = info.edges.len() < self.targets() - 1 && info.edges.contains(&(target as u32));
        let style = match (target == self.cursor(), edge) {
            (true, _) => theme.accent(),
            (false, true) => theme.strong(),
            (false, false) => theme.soft(),
        };
        put::right(buf, area, NAMES - 1, y, &names::target_short(target, self.targets()), style);
        if edge {
            put::at(buf, area, NAMES - 1, y, "┌", theme.faint());
        }
    }

    /// Effective number of sources and the embedding's part.
    fn draw_told(&self, area: Rect, buf: &mut Buffer, seen: &Seen, info: &DepthInfo, target: usize, y: u16) {
        if self.measure() == Measure::Difference || area.width < NAMES + TOLD + 10 {
            return;
        }
        let Some(told) = told(&self.row(target), info) else { return };
        let style = if target == self.cursor() { seen.theme.strong() } else { seen.theme.soft() };
        let words = format!("{:>4.1} {:>5}", told.entropy.exp(), units::percent(f64::from(told.embedding)));
        put::right(buf, area, area.width, y, &words, style.remove_modifier(Modifier::BOLD));
    }
}

impl Panel for Map {
    fn name(&self) -> &'static str {
        "depth"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["measure", "over"])?;
        options.choose("measure", &mut self.measure)?;
        options.choose("over", &mut self.over)
    }

    fn prepare(&mut self, _area: Rect, seen: &Seen, asker: &mut Asker) {
        self.refresh(seen, asker);
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Some(info) = seen.model().map(|model| &model.depth) else { return Caption::default() };
        let mut facts = vec![Words::styled(format!("{} ", info.residual), theme.strong())];
        facts.push(match self.over {
            Over::Token => Words::styled(format!("{} {} ", seen.token(), seen.spelled(seen.token())), theme.accent()),
            over => match self.part(seen).filter(|_| over == Over::Prompt) {
                Some(part) => Words::styled(format!("mean over {} ", text::line(&part.name)), theme.accent()),
                None => Words::styled(format!("mean over the {} ", over.name()), theme.accent()),
            },
        });
        let (target, row) = (self.cursor(), self.row(self.cursor()));
        if self.targets() > 0
            && self.measure() != Measure::Difference
            && let Some(told) = told(&row, info)
        {
            let (source, value) = told.most;
            let most = names::source(source, row.len(), info, false);
            facts.extend([
                Words::styled(format!("{}: ", names::target(target, self.targets())), theme.soft()),
                Words::styled(format!("{most} {value:.2} "), theme.strong()),
                Words::styled(format!("entropy {:.2} nats ", told.entropy), theme.soft()),
                Words::styled(format!("{:.1} of {} sources ", told.entropy.exp(), row.len()), theme.soft()),
                Words::styled(format!("distance {:.1} ", told.distance), theme.soft()),
            ]);
        }
        let fitted = self.fitted();
        let (low, high) = fitted.ends();
        let what = match self.measure() {
            Measure::Weight => " weight α",
            Measure::Share => " contribution ⟨v,h⟩/‖h‖², not attention",
            Measure::Difference => " difference from lane 0",
        };
        let mut spans = vec![Words::styled(what, theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(self.ramp()), &low, &high, "linear"));
        if self.measure() != Measure::Difference {
            spans.push(Words::styled("right: effective sources, embedding ", theme.soft()));
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
        if let Some(why) = &self.why {
            put::note(buf, area, why, seen.theme.soft());
            return;
        }
        let Some(info) = seen.model().map(|model| &model.depth) else { return };
        let room = area.width.saturating_sub(NAMES + TOLD);
        match room.checked_div(self.across() as u16) {
            Some(width) if width >= CELL => self.draw_cells(area, buf, seen, info, width.min(9)),
            _ => self.draw_pixels(area, buf, seen, info),
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = seen.positions().checked_sub(1) else { return Reply::Ignored };
        match action {
            Action::Up => self.target = self.cursor().saturating_sub(1),
            Action::Down => self.target = (self.cursor() + 1).min(self.targets().saturating_sub(1)),
            Action::Left => selection.token = Some(seen.token().saturating_sub(1)),
            Action::Right => selection.token = Some(seen.token() + 1).filter(|t| *t < last),
            Action::Colour => self.measure = self.measure().next(),
            Action::Span => self.over = self.over.next(),
            Action::Fold if self.over == Over::Prompt => {
                let parts = seen.frame().map_or(0, |frame| frame.spans.len());
                self.part = Some(self.part.map_or(0, |part| part + 1)).filter(|&part| part < parts);
            }
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn answer(&mut self, asked: Asked, answer: &Answer, _took: Duration) -> bool {
        let Some((_, of)) = self.asked.take_if(|(mine, _)| *mine == asked) else { return false };
        let found = match answer {
            Answer::Depth(depth) => Ok(depth.clone()),
            Answer::Nothing(why) => Err(why.clone()),
            _ => Err("the engine answered something else".into()),
        };
        self.answered = Some((of, found));
        true
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Colour, "weights, contributions, or the difference from lane 0"),
            (Action::Span, "of one token, of the prompt, or of all steps"),
            (Action::Fold, "of the prompt: all of it, or one of its named parts"),
            (Action::Down, "next target"),
            (Action::Right, "next token"),
        ]
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "Rows are targets: what attention (a) and MLP (m) of a layer read, and the output; columns are sources.",
            "Weights α are the model's own, softmax over depth. Contributions ⟨v,h⟩/‖h‖² are worked out, sum to 1, and may be negative.",
            "Effective sources: e to the entropy (of contributions: of their sizes). Distance: sources back from the newest.",
            "┌ begins a block: its sum starts again from zero.",
        ]
    }
}
