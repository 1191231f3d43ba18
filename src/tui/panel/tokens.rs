//! The text itself: prompt and generated tokens, coloured by what happened to them.

use std::rc::Rc;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::engine::frame::FindingKind;
use crate::engine::message::Query;
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Depth;
use crate::tui::widget::flow::Flow;
use crate::tui::widget::scale::{Fitted, Scale};
use crate::tui::widget::{legend, put};
use crate::tui::{text, units};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tint {
    Received,
    Row,
    Surprise,
    Kept,
    Massive,
}

impl Choice for Tint {
    const ALL: &'static [Self] = &[Tint::Received, Tint::Row, Tint::Surprise, Tint::Kept, Tint::Massive];

    fn name(self) -> &'static str {
        match self {
            Tint::Received => "received",
            Tint::Row => "row",
            Tint::Surprise => "surprise",
            Tint::Kept => "kept",
            Tint::Massive => "massive",
        }
    }
}

impl Tint {
    /// What the colour says, and its unit.
    fn meaning(self) -> &'static str {
        match self {
            Tint::Received => "attention received so far, mean of heads",
            Tint::Row => "attention of the newest query, mean of heads",
            Tint::Surprise => "surprise −ln p, nats",
            Tint::Kept => "share of caches that still hold it",
            Tint::Massive => "massive activations",
        }
    }

    fn ramp(self) -> RampName {
        match self {
            Tint::Kept => RampName::Cividis,
            Tint::Surprise => RampName::Magma,
            _ => RampName::Viridis,
        }
    }
}

/// Everything the flow of tokens depends on; while it is the same, nothing is laid out again.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    lane: usize,
    tint: Tint,
    scale: Scale,
    width: u16,
    nll: bool,
}

struct Item {
    shown: Rc<str>,
    width: u16,
    massive: bool,
}

pub struct Tokens {
    tint: Tint,
    scale: Scale,
    key: Option<Key>,
    items: Vec<Item>,
    /// Value of each position; NaN = unknown.
    values: Vec<f32>,
    fitted: Option<Fitted>,
    flow: Flow,
    /// First line on the screen.
    top: usize,
    height: u16,
    asked: Option<Arc<[u32]>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            tint: Tint::Received,
            scale: Scale::Log,
            key: None,
            items: Vec::new(),
            values: Vec::new(),
            fitted: None,
            flow: Flow::default(),
            top: 0,
            height: 0,
            asked: None,
        }
    }
}

/// Share of the chosen lane's caches that hold each position. Lane 0 holds everything: there, the mean of the
/// other lanes is told instead.
fn kept_share(seen: &Seen, positions: usize) -> Vec<f32> {
    let mut share = vec![0.0; positions];
    let Some(frame) = seen.frame() else { return share };
    let chosen = match seen.lane_index() {
        0 if frame.lanes.len() > 1 => &frame.lanes[1..],
        lane => frame.lanes.get(lane..=lane).unwrap_or_default(),
    };
    for lane in chosen {
        let all = (lane.kept.layers * lane.kept.kv_heads * chosen.len()).max(1) as f32;
        for (sum, depth) in share.iter_mut().zip(lane.kept.depth()) {
            *sum += depth as f32 / all;
        }
    }
    share
}

/// Rows for the text: the last row tells about the chosen token where there is room for it.
fn text_rows(area: Rect) -> u16 {
    if area.height >= 3 { area.height - 1 } else { area.height }
}

impl Tokens {
    fn refresh(&mut self, seen: &Seen) {
        let lane = seen.lane_index();
        let ids = seen.session.tokens(lane, seen.at.unwrap_or(0));
        let mut massive = vec![false; ids.len()];
        for finding in seen.session.findings(seen.at.unwrap_or(0)) {
            let hit = finding.position.filter(|_| finding.kind == FindingKind::MassiveActivation);
            if let Some(flag) = hit.and_then(|p| massive.get_mut(p as usize)) {
                *flag = true;
            }
        }
        self.items = ids
            .iter()
            .zip(&massive)
            .map(|(&id, &massive)| {
                let shown = seen.session.spell(id);
                Item { width: text::width(&shown).min(u16::MAX as usize) as u16, shown, massive }
            })
            .collect();
        self.values = (0..ids.len()).map(|p| self.value(seen, p, massive[p])).collect();
        if self.tint == Tint::Kept {
            self.values = kept_share(seen, ids.len());
        }
        let values = self.values.iter().copied();
        self.fitted = match self.tint {
            Tint::Kept | Tint::Massive => Some(Fitted::between(0.0, 1.0)),
            Tint::Surprise => Fitted::from_zero(values),
            Tint::Received | Tint::Row => Fitted::to(self.scale, values),
        };
    }

    fn value(&self, seen: &Seen, position: usize, massive: bool) -> f32 {
        let lane = seen.lane();
        match self.tint {
            Tint::Received => lane.and_then(|l| l.received.get(position).copied()),
            Tint::Row => lane.and_then(|l| l.row.get(position).copied()),
            Tint::Surprise => seen.session.nll(seen.lane_index(), position),
            Tint::Massive => Some(massive as u8 as f32),
            Tint::Kept => None,
        }
        .unwrap_or(f32::NAN)
    }

    fn readout<'a>(&self, seen: &Seen<'a>) -> Line<'a> {
        let theme = seen.theme;
        let position = seen.token();
        let Some(id) = seen.id(position) else { return Line::default() };
        let mut spans = vec![
            Span::styled(format!("{position} "), theme.accent()),
            Span::styled(seen.spelled(position), theme.strong()),
            Span::styled(format!(" id {id}"), theme.soft()),
        ];
        let mut fact = |name: &str, value: Option<f32>| {
            if let Some(value) = value {
                spans.push(Span::styled(format!(" · {name} "), theme.soft()));
                spans.push(Span::raw(units::number(value)));
            }
        };
        let lane = seen.lane();
        fact("received", lane.and_then(|l| l.received.get(position).copied()));
        fact("newest row", lane.and_then(|l| l.row.get(position).copied()));
        fact("−ln p", seen.session.nll(seen.lane_index(), position));
        if let Some(kept) = lane.map(|l| &l.kept).filter(|k| position < k.positions) {
            let all = kept.layers * kept.kv_heads;
            let held = (0..all).filter(|i| kept.contains(i / kept.kv_heads, i % kept.kv_heads, position)).count();
            spans.push(Span::styled(" · held ", theme.soft()));
            spans.push(Span::raw(format!("{held}/{all}")));
        }
        if self.items.get(position).is_some_and(|i| i.massive) {
            spans.push(Span::styled(" ▲ massive", Style::new().fg(theme.warn)));
        }
        Line::from(spans)
    }

    fn style(&self, seen: &Seen, position: usize) -> Style {
        let theme = seen.theme;
        let value = self.values.get(position).copied().unwrap_or(f32::NAN);
        let mut style = match &self.fitted {
            Some(_) if self.tint == Tint::Massive => match value {
                1.0 => Style::new().fg(theme.ground).bg(theme.warn),
                _ => theme.soft(),
            },
            Some(fitted) if !value.is_nan() => {
                let t = fitted.t(value);
                if theme.depth == Depth::Mono {
                    match t {
                        t if t > 0.75 => Style::new().add_modifier(Modifier::BOLD),
                        t if t < 0.25 => Style::new().add_modifier(Modifier::DIM),
                        _ => Style::new(),
                    }
                } else {
                    let ramp = theme.ramp(self.tint.ramp());
                    Style::new().bg(ramp.colour(t)).fg(ramp.ink(t))
                }
            }
            _ => theme.soft(),
        };
        if self.tint == Tint::Kept && value == 0.0 {
            style = theme.faint().add_modifier(Modifier::CROSSED_OUT);
        }
        if self.items[position].massive {
            style = style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD);
        }
        if seen.found.binary_search(&position).is_ok() {
            style = Style::new().fg(theme.ground).bg(theme.warn);
        }
        if seen.selection.token == Some(position) {
            style = theme.chosen();
        }
        style
    }
}

impl Panel for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["colour", "scale"])?;
        options.choose("colour", &mut self.tint)?;
        options.choose("scale", &mut self.scale)
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, asker: &mut Asker) {
        let prompt = &seen.session.prompt;
        let known = self.asked.as_ref().is_some_and(|asked| Arc::ptr_eq(asked, prompt));
        if self.tint == Tint::Surprise && !known && seen.session.prompt_nll.is_none() && seen.frame().is_some() {
            asker.ask(Query::PromptNll);
            self.asked = Some(prompt.clone());
        }
        let key = Key {
            revision: seen.session.revision,
            at: seen.at,
            lane: seen.lane_index(),
            tint: self.tint,
            scale: self.scale,
            width: area.width,
            nll: seen.session.prompt_nll.is_some(),
        };
        if self.key != Some(key) {
            self.refresh(seen);
            // The mark before the generated text takes a column.
            let mark = |i: usize| (i == prompt.len() && i > 0) as u16;
            let items = self.items.iter().enumerate();
            self.flow = Flow::new(area.width, items.map(|(i, t)| (t.width + mark(i), t.shown.contains('␊'))));
            self.key = Some(key);
        }
        self.height = text_rows(area).max(1);
        let (line, rows) = (self.flow.line_of(seen.token()), self.height as usize);
        self.top = self.top.min(line).max((line + 1).saturating_sub(rows));
        // No blank rows below the end while there is text above.
        self.top = self.top.min(self.flow.lines().saturating_sub(rows));
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let prompt = seen.session.prompt.len();
        let generated = self.items.len().saturating_sub(prompt);
        let mut facts = vec![Span::styled(format!("{prompt} prompt + {generated} generated "), theme.soft())];
        if seen.lane_index() > 0 {
            let spec = seen.lane().map(|l| text::line(&l.spec)).unwrap_or_default();
            facts.push(Span::styled(
                format!("lane {} {spec} ", seen.lane_index()),
                Style::new().fg(theme.lane(seen.lane_index())),
            ));
        }
        let lanes = seen.frame().map_or(0, |f| f.lanes.len());
        let whose = match (self.tint, seen.lane_index()) {
            (Tint::Kept, 0) if lanes > 1 => format!(", mean of lanes 1–{}", lanes - 1),
            _ => String::new(),
        };
        let mut spans = vec![Span::styled(format!(" {}{whose}", self.tint.meaning()), theme.soft())];
        match (&self.fitted, self.tint) {
            (_, Tint::Massive) => spans.push(Span::styled(" ▲ underlined ", Style::new().fg(theme.warn))),
            (Some(fitted), _) => {
                let (low, high) = fitted.ends();
                spans.extend(legend::ramp(theme, theme.ramp(self.tint.ramp()), &low, &high, fitted.scale.name()));
            }
            (None, _) => spans.push(Span::styled(" not measured ", theme.soft())),
        }
        Caption { facts: Line::from(facts), legend: put::whole_spans(spans, area.width as usize) }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        if self.items.is_empty() {
            put::note(buf, area, "the prompt is not known yet", theme.soft());
            return;
        }
        let rows = text_rows(area);
        let prompt = seen.session.prompt.len();
        let mut end = (0, 0);
        for row in 0..rows {
            let mut x = 0;
            for i in self.flow.items_of(self.top + row as usize) {
                if i == prompt && i > 0 {
                    x = put::at(buf, area, x, row, "▏", theme.accent());
                }
                x = put::at(buf, area, x, row, &self.items[i].shown, self.style(seen, i));
                end = (x, row);
            }
        }
        let next =
            seen.lane().and_then(|l| l.next).filter(|_| self.flow.line_of(self.items.len()) < self.top + rows as usize);
        if let Some(next) = next {
            let style = theme.accent().add_modifier(Modifier::ITALIC);
            put::at(buf, area, end.0, end.1, &format!("▸{}", seen.session.spell(next)), style);
        }
        if rows < area.height {
            put::line(buf, area, rows, &self.readout(seen));
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = self.items.len().checked_sub(1) else { return Reply::Ignored };
        let token = seen.token().min(last);
        let by_lines = |lines: isize| {
            let line = self.flow.line_of(token).saturating_add_signed(lines).min(self.flow.lines() - 1);
            self.flow.item_at(line, self.flow.column(token))
        };
        let page = self.height as isize;
        selection.token = match action {
            Action::Left => Some(token.saturating_sub(1)),
            Action::Right => Some((token + 1).min(last)),
            Action::Up => by_lines(-1),
            Action::Down => by_lines(1),
            Action::PageUp => by_lines(-page),
            Action::PageDown => by_lines(page),
            Action::First => Some(0),
            Action::Last => None,
            Action::Colour => {
                self.tint = self.tint.next();
                return Reply::Done;
            }
            Action::Scale => {
                self.scale = self.scale.next();
                return Reply::Done;
            }
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn click(&mut self, x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        if let Some(item) = self.flow.item_at(self.top + y as usize, x) {
            selection.token = Some(item);
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Left, "choose a token"),
            (Action::Colour, "colour by attention received, newest row, surprise, kept, massive"),
            (Action::Scale, "linear, log, percentile"),
            (Action::Search, "find a token"),
        ]
    }
}
