//! Lanes under each other on one position axis: what each policy wrote, what it still holds, what that costs and
//! how far it is from lane 0.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::{Kept, LaneFrame};
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::window::{Grid, Window};
use crate::tui::widget::{bar, legend, put};
use crate::tui::{text, units};

/// Columns of the strips' names.
const NAMES: u16 = 5;

/// Everything the panel shows of one lane.
struct Row {
    spec: String,
    /// Generated text in pieces: shared with lane 0, and from the first difference on.
    same: String,
    other: String,
    /// Share of all caches that hold the positions of each column [columns].
    all: Vec<f32>,
    /// The same for each kv head of the chosen layer [kv heads][columns].
    layer: Vec<Vec<f32>>,
    held: u64,
    full: u64,
    /// KL per step, nats; `None` where lane 0 was fed other tokens.
    kl: Vec<Option<f32>>,
    agreed: usize,
    compared: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    layer: usize,
    width: u16,
}

#[derive(Default)]
pub struct Policies {
    key: Option<Key>,
    rows: Vec<Row>,
    grid: Option<Grid>,
    /// First lane on the screen, and the rows of a lane.
    from: usize,
    each: u16,
}

/// Share of `flags` in every column of the grid.
fn fold(grid: Grid, share: impl Fn(usize) -> f32) -> Vec<f32> {
    (0..grid.values)
        .map(|v| {
            let end = if v + 1 < grid.values { grid.cell(v + 1) } else { grid.window.to };
            let cells = grid.cell(v)..end;
            let n = cells.len().max(1) as f32;
            cells.map(|p| share(p as usize)).sum::<f32>() / n
        })
        .collect()
}

fn strips(kept: &Kept, grid: Grid, layer: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let caches = (kept.layers * kept.kv_heads).max(1) as f32;
    let depth = kept.depth();
    let all = fold(grid, |p| depth.get(p).map_or(0.0, |&d| d as f32 / caches));
    let heads = if layer < kept.layers { kept.kv_heads } else { 0 };
    let one = |head| fold(grid, |p| kept.contains(layer, head, p) as u8 as f32);
    (all, (0..heads).map(one).collect())
}

impl Row {
    fn new(seen: &Seen, lane: usize, frame: &LaneFrame, base: &[u32], grid: Grid) -> Self {
        let at = seen.at.unwrap_or(0);
        let prompt = seen.session.prompt.len();
        let ids = seen.session.tokens(lane, at);
        let ids = ids.get(prompt..).unwrap_or_default();
        let split = ids.iter().zip(base).take_while(|(a, b)| a == b).count();
        let (same, other) = ids.split_at(if ids.len() <= base.len() || split < base.len() { split } else { ids.len() });
        let (all, layer) = strips(&frame.kept, grid, seen.selection.layer);
        let against = |f: &std::sync::Arc<crate::engine::frame::Frame>| f.lanes.get(lane).and_then(|l| l.against);
        let frames = &seen.session.frames()[..=at.min(seen.session.frames().len().saturating_sub(1))];
        let compared: Vec<_> = frames.iter().filter(|f| f.partial.is_none()).filter_map(against).collect();
        let newest = &frames[frames.len().saturating_sub(grid.window.len().max(256) as usize)..];
        Self {
            spec: text::line(&frame.spec),
            same: seen.session.text(same),
            other: seen.session.text(other),
            all,
            layer,
            held: frame.kv.held,
            full: frame.kv.full,
            kl: newest.iter().map(|f| against(f).filter(|a| a.same_prefix).map(|a| a.kl)).collect(),
            agreed: compared.iter().filter(|a| a.top1_agrees).count(),
            compared: compared.len(),
        }
    }
}

impl Policies {
    fn draw_head(&self, area: Rect, buf: &mut Buffer, seen: &Seen, lane: usize, row: &Row) {
        let theme = seen.theme;
        let colour = Style::new().fg(theme.lane(lane));
        let chosen = lane == seen.lane_index();
        let mark = if chosen { "▶" } else { "●" };
        let widest = self.rows.iter().map(|r| text::width(&r.spec)).max().unwrap_or(0) as u16;
        let names = widest.min(area.width / 3).max(4);
        let bold = if chosen { colour.add_modifier(Modifier::BOLD) } else { colour };
        put::at(buf, area, 0, 0, mark, colour);
        put::at(buf, area, 2, 0, &format!("{lane} {}", text::fit(&row.spec, names as usize)), bold);
        let mut x = names + 5;
        let size = format!("{:>8}", units::bytes(row.held));
        x = put::at(buf, area, x, 0, &size, theme.base());
        if lane == 0 {
            put::at(buf, area, x + 2, 0, "the yardstick: every other lane is compared with it", theme.faint());
            return;
        }
        let share = row.held as f64 / row.full.max(1) as f64;
        if area.width > x + 14 {
            bar::draw(buf, area, x + 1, 0, 8, share, colour, theme.faint());
            x = put::at(buf, area, x + 10, 0, &format!("{:>5}", units::percent(share)), theme.soft());
        }
        let agrees = match row.compared {
            0 => String::new(),
            n => format!("top-1 {}/{n}", row.agreed),
        };
        let agree_width = text::width(&agrees) as u16 + 1;
        let kl = match row.kl.last() {
            Some(Some(kl)) => format!("  KL {:>6}", units::number(*kl)),
            Some(None) if row.compared > 0 => "  other text".into(),
            _ => String::new(),
        };
        x = put::at(buf, area, x, 0, &kl, theme.base());
        let room = area.width.saturating_sub(x + agree_width + 2);
        if room >= 4 && !row.kl.is_empty() {
            let spark = bar::spark(&row.kl, room.min(32) as usize);
            put::at(buf, area, x + 1, 0, &spark, colour);
        }
        if area.width > x + agree_width {
            let style = if row.agreed == row.compared { theme.good } else { theme.warn };
            put::right(buf, area, area.width, 0, &agrees, Style::new().fg(style));
        }
    }

    /// The newest end of the text in `rows` lines, the first difference marked.
    fn draw_text(&self, area: Rect, buf: &mut Buffer, seen: &Seen, lane: usize, row: &Row) {
        let theme = seen.theme;
        let width = area.width as usize;
        let shared = row.same.chars().count();
        let whole = format!("{}{}", row.same, row.other);
        let lines = text::wrap(&whole, width);
        let skip = lines.len().saturating_sub(area.height as usize);
        let mut at: usize = lines[..skip].iter().map(|l| l.chars().count()).sum();
        for (y, line) in lines[skip..].iter().enumerate() {
            let n = line.chars().count();
            let split = shared.saturating_sub(at).min(n);
            let cut = line.char_indices().nth(split).map_or(line.len(), |(i, _)| i);
            let (same, other) = line.split_at(cut);
            let base = if lane == 0 { theme.base() } else { theme.soft() };
            let x = put::at(buf, area, 0, y as u16, same, base);
            let first = at + split == shared && !other.is_empty() && lane > 0;
            let colour = Style::new().fg(theme.lane(lane));
            let mut rest = other.char_indices();
            rest.next();
            let head = rest.next().map_or(other.len(), |(i, _)| i);
            let style = if first { colour.add_modifier(Modifier::REVERSED) } else { colour };
            let x = put::at(buf, area, x, y as u16, &other[..head], style);
            put::at(buf, area, x, y as u16, &other[head..], colour);
            at += n;
        }
    }

    fn draw_strips(&self, area: Rect, buf: &mut Buffer, seen: &Seen, row: &Row, layer_rows: u16) {
        let theme = seen.theme;
        let Some(grid) = self.grid else { return };
        let ramp = theme.ramp(RampName::Cividis);
        let ink = |share: Option<&f32>| match share {
            Some(0.0) => Ink::Plain(theme.raised),
            Some(&share) => Ink::Value(share),
            None => Ink::Clear,
        };
        let body = Rect { x: area.x + NAMES.min(area.width), width: area.width.saturating_sub(NAMES), ..area };
        put::at(buf, area, 0, 0, "all", theme.soft());
        heat::strip(buf, body, theme, ramp, |x| ink(grid.value(x as u32).and_then(|v| row.all.get(v as usize))));
        if layer_rows == 0 || area.height < 2 {
            return;
        }
        put::at(buf, area, 0, 1, &format!("L{}", seen.selection.layer), theme.accent());
        let below = Rect { y: body.y + 1, height: layer_rows.min(body.height - 1), ..body };
        heat::halves(buf, below, theme, ramp, |x, y| {
            let head = row.layer.get(y);
            ink(head.and_then(|h| grid.value(x as u32).and_then(|v| h.get(v as usize))))
        });
    }

    /// Positions along the strips.
    fn draw_ruler(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let Some(grid) = self.grid else { return };
        let prompt = seen.session.prompt.len() as u32;
        put::at(buf, area, 0, 0, "pos", seen.theme.soft());
        let step = 12u32.next_multiple_of(grid.zoom);
        let mut x = 0;
        while let Some(value) = grid.value(x) {
            put::at(buf, area, NAMES + x as u16, 0, &format!("╷{}", grid.cell(value)), seen.theme.faint());
            x += step;
        }
        if let Some(value) = grid.of(prompt) {
            put::at(buf, area, NAMES + (value * grid.zoom) as u16, 0, "▏generated", seen.theme.accent());
        }
        if let Some(value) = seen.selection.token.and_then(|t| grid.of(t as u32)) {
            put::at(buf, area, NAMES + (value * grid.zoom) as u16, 0, "▾", seen.theme.chosen());
        }
    }
}

impl Panel for Policies {
    fn name(&self) -> &'static str {
        "policies"
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, _asker: &mut Asker) {
        let key = Key { revision: seen.session.revision, at: seen.at, layer: seen.selection.layer, width: area.width };
        let Some(frame) = seen.frame() else {
            (self.rows, self.key) = (Vec::new(), None);
            return;
        };
        if self.key != Some(key) {
            let window = Window { from: 0, to: seen.positions() as u32 };
            let grid = Grid::new(window, area.width.saturating_sub(NAMES).max(1) as u32, 4);
            let prompt = seen.session.prompt.len();
            let base = seen.session.tokens(0, seen.at.unwrap_or(0));
            let base = base.get(prompt..).unwrap_or_default();
            let lanes = frame.lanes.iter().enumerate();
            self.rows = lanes.map(|(i, lane)| Row::new(seen, i, lane, base, grid)).collect();
            self.grid = Some(grid);
            self.key = Some(key);
        }
        let lanes = self.rows.len().max(1) as u16;
        // A lane needs a row at least; more lanes than rows scroll.
        self.each = (area.height / lanes).max(1);
        let fits = (area.height / self.each).max(1) as usize;
        let lane = seen.lane_index();
        self.from = self.from.min(lane).max((lane + 1).saturating_sub(fits));
        self.from = self.from.min(self.rows.len().saturating_sub(fits));
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let lanes = self.rows.len();
        let mut facts =
            vec![Span::styled(format!("{lanes} {} ", if lanes == 1 { "lane" } else { "lanes" }), theme.soft())];
        if let Some(row) = self.rows.iter().skip(1).max_by(|a, b| {
            let last = |r: &Row| r.kl.iter().rev().flatten().next().copied().unwrap_or(0.0);
            last(a).total_cmp(&last(b))
        }) {
            facts.push(Span::styled(format!("· farthest from lane 0: {} ", row.spec), theme.soft()));
        }
        let mut spans = vec![Span::styled(" held, share of layers × kv heads", theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(RampName::Cividis), "few", "all", ""));
        spans.extend(legend::key(theme, Style::new().fg(theme.raised), "█", "evicted everywhere"));
        spans.push(Span::styled("· KL(lane 0 ‖ lane), nats, while the text is the same ", theme.soft()));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if self.rows.is_empty() {
            put::note(buf, area, "lanes appear with the first step", seen.theme.soft());
            return;
        }
        let heads = self.rows.first().map_or(0, |r| r.layer.len()) as u16;
        for (i, row) in self.rows.iter().enumerate().skip(self.from) {
            let top = (i - self.from) as u16 * self.each;
            if top >= area.height {
                break;
            }
            let block = Rect { y: area.y + top, height: self.each.min(area.height - top), ..area };
            self.draw_head(block, buf, seen, i, row);
            let mut rest = block.height - 1;
            // A blank line between lanes where there is plenty of room.
            rest -= (rest >= 6) as u16;
            let strips = match rest {
                0 => 0,
                1 | 2 => 1,
                _ if i == 0 => 1,
                n => 1 + heads.div_ceil(2).clamp(1, (n - 2).max(1)),
            };
            let words = rest - strips;
            let indent = Rect { x: area.x + NAMES.min(area.width), width: area.width.saturating_sub(NAMES), ..area };
            if words > 0 {
                self.draw_text(Rect { y: block.y + 1, height: words, ..indent }, buf, seen, i, row);
            }
            let place = Rect { y: block.y + 1 + words, height: strips, ..area };
            match (strips, i) {
                (0, _) => {}
                (_, 0) => self.draw_ruler(place, buf, seen),
                _ => self.draw_strips(place, buf, seen, row, strips - 1),
            }
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = self.rows.len().checked_sub(1) else { return Reply::Ignored };
        selection.lane = match action {
            Action::Up => seen.lane_index().saturating_sub(1),
            Action::Down => (seen.lane_index() + 1).min(last),
            Action::First => 0,
            Action::Last => last,
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn click(&mut self, _x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let lane = self.from + (y / self.each.max(1)) as usize;
        if lane < self.rows.len() {
            selection.lane = lane;
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Up, "choose a lane"),
            (Action::LayerNext, "strips of another layer"),
            (Action::Fork, "new lane from this one at this step"),
        ]
    }
}
