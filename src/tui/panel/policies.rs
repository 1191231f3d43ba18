//! Lanes under each other on one position axis: what each policy wrote, what it still holds, what that costs and
//! how far it is from lane 0.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::{Effect, Kept, LaneFrame, Reads};
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::judging::{Judging, Tone};
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Depth;
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::window::{Grid, Window};
use crate::tui::widget::{bar, legend, put};
use crate::tui::{effect, reading, text, units};

/// Columns of the strips' names.
const NAMES: u16 = 5;
/// Rows of lane 0 where the others need the rest: head, text, positions.
const FIRST: u16 = 3;
/// Rows that another lane gets before lane 0 gets more: head, what is left, text, three strips.
const WANTED: u16 = 6;

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
    /// Where steps read a part.
    reads: Option<Arc<Reads>>,
    /// Of its interventions, and what they cost since the prompt: see [`effect::since`].
    effect: Option<(Effect, Option<(f32, usize)>)>,
    /// KL per step, nats; `None` where lane 0 was fed other tokens.
    kl: Vec<Option<f32>>,
    agreed: usize,
    compared: usize,
    judging: Judging,
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
    height: u16,
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
        let against = |f: &Arc<crate::engine::frame::Frame>| f.lanes.get(lane).and_then(|l| l.against);
        let frames = &seen.session.frames()[..=at.min(seen.session.frames().len().saturating_sub(1))];
        let compared: Vec<_> = frames.iter().filter(|f| f.partial.is_none()).filter_map(against).collect();
        let newest = &frames[frames.len().saturating_sub(grid.window.count().max(256) as usize)..];
        Self {
            spec: text::line(&frame.title()),
            same: seen.session.text(same),
            other: seen.session.text(other),
            all,
            layer,
            held: frame.kv.held,
            full: frame.kv.full,
            reads: frame.reads.clone(),
            effect: frame.effect.map(|of| (of, effect::since(lane, frames.iter().map(|f| &**f)))),
            kl: newest.iter().map(|f| against(f).filter(|a| a.same_prefix).map(|a| a.kl)).collect(),
            agreed: compared.iter().filter(|a| a.top1_agrees).count(),
            compared: compared.len(),
            judging: if lane == 0 { Judging::default() } else { Judging::of(lane, frames.iter().map(|f| &**f)) },
        }
    }
}

/// Bytes of the first word, blanks before it included.
fn first_word(words: &str) -> usize {
    let blanks = words.len() - words.trim_start().len();
    words[blanks..].find(' ').map_or(words.len(), |end| blanks + end)
}

/// The last lines of a text, and how many characters stand before them. A single line is filled to its left end.
fn tail(words: &str, width: usize, height: usize) -> (usize, Vec<String>) {
    if height == 1 {
        let mut start = words.len();
        for (i, _) in words.char_indices().rev() {
            if text::width(&words[i..]) > width {
                break;
            }
            start = i;
        }
        return (words[..start].chars().count(), vec![words[start..].to_string()]);
    }
    let mut lines = text::wrap(words, width);
    let skip = lines.len().saturating_sub(height);
    let before = lines.drain(..skip).map(|l| l.chars().count()).sum();
    (before, lines)
}

/// What is left of each part of the prompt, and how well it was chosen; returns the rows it took.
fn draw_judging(place: Rect, buf: &mut Buffer, seen: &Seen, judging: &Judging) -> u16 {
    let mut x = 0;
    for (words, tone) in judging.line(place.width as usize) {
        let style = match tone {
            Tone::Words => seen.theme.soft(),
            Tone::Number => seen.theme.base(),
            Tone::Gone => Style::new().fg(seen.theme.bad),
        };
        x = put::at(buf, place, x, 0, &words, style);
    }
    (x > 0) as u16
}

impl Policies {
    /// Rows of lane 0: what the others leave.
    fn first(&self) -> u16 {
        let others = self.rows.len().saturating_sub(1) as u16;
        self.height.saturating_sub(others.saturating_mul(self.each)).max(1)
    }

    /// The place of a lane.
    fn block(&self, lane: usize, area: Rect) -> Option<Rect> {
        let place = lane.checked_sub(self.from)? as u16;
        let rows = |lane: usize| if lane == 0 { self.first() } else { self.each };
        let before = if place == 0 { 0 } else { rows(self.from) + (place - 1) * self.each };
        (before < area.height).then(|| Rect {
            y: area.y + before,
            height: rows(lane).min(area.height - before),
            ..area
        })
    }

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
            bar::draw(buf, put::part(area, x + 1, 0, 8), share, colour, theme.faint());
            x = put::at(buf, area, x + 10, 0, &format!("{:>5}", units::percent(share)), theme.soft());
        }
        let agrees = match row.compared {
            0 => String::new(),
            n => format!("top-1 {}/{n}", row.agreed),
        };
        let agree_width = text::width(&agrees) as u16 + 1;
        let kl = match row.kl.last() {
            Some(Some(kl)) => format!("  KL {:>6}", units::number(*kl)),
            Some(None) if row.compared > 0 => "  text differs".into(),
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

    /// The newest end of the text, the first difference marked; returns the rows it took.
    fn draw_text(&self, area: Rect, buf: &mut Buffer, seen: &Seen, lane: usize, row: &Row) -> u16 {
        let theme = seen.theme;
        let shared = row.same.chars().count();
        let (mut at, lines) = tail(&format!("{}{}", row.same, row.other), area.width as usize, area.height as usize);
        let colour = Style::new().fg(theme.lane(lane));
        for (y, line) in lines.iter().enumerate() {
            let n = line.chars().count();
            let split = shared.saturating_sub(at).min(n);
            let cut = line.char_indices().nth(split).map_or(line.len(), |(i, _)| i);
            let (same, other) = line.split_at(cut);
            let base = if lane == 0 { theme.base() } else { theme.soft() };
            let x = put::at(buf, area, 0, y as u16, same, base);
            // The first word that differs stands out.
            let first = at + split == shared && lane > 0;
            let word = if first { first_word(other) } else { 0 };
            let x = put::at(buf, area, x, y as u16, &other[..word], colour.add_modifier(Modifier::REVERSED));
            put::at(buf, area, x, y as u16, &other[word..], colour);
            at += n;
        }
        lines.len() as u16
    }

    fn draw_strips(&self, area: Rect, buf: &mut Buffer, seen: &Seen, row: &Row, layer_rows: u16) {
        let theme = seen.theme;
        let Some(grid) = self.grid else { return };
        let ramp = theme.ramp(RampName::Cividis);
        let ink = |share: Option<&f32>| match share {
            Some(0.0) => Ink::Gone,
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
        let generated = grid.of(prompt).map(|value| value * grid.zoom);
        let mut x = 0;
        while let Some(value) = grid.value(x) {
            let words = format!("╷{}", grid.cell(value));
            let end = x + words.chars().count() as u32;
            let touches = generated.is_some_and(|g| end > g && x < g + 11);
            if !touches && end <= grid.pixels() {
                put::at(buf, area, NAMES + x as u16, 0, &words, seen.theme.faint());
            }
            x += step;
        }
        if let Some(x) = generated {
            put::at(buf, area, NAMES + x as u16, 0, "▏generated", seen.theme.accent());
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
        let even = (area.height / lanes).max(1);
        let others = area.height.saturating_sub(FIRST).checked_div(lanes - 1).unwrap_or(0);
        self.each = if even < FIRST { even } else { even.max(others.min(WANTED)) };
        self.height = area.height;
        let fits = self.rows.len().min(area.height.max(1) as usize);
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
        spans.extend(legend::key(
            theme,
            Style::new().fg(theme.gone),
            if theme.depth == Depth::Mono { "·" } else { "█" },
            "evicted everywhere",
        ));
        spans.push(Span::styled("· KL(lane 0 ‖ lane), nats, while the text is the same ", theme.soft()));
        spans.push(Span::styled("· covers: of lane 0's attention in all steps ", theme.soft()));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let heads = self.rows.first().map_or(0, |r| r.layer.len()) as u16;
        for (i, row) in self.rows.iter().enumerate() {
            let Some(block) = self.block(i, area) else { continue };
            self.draw_head(block, buf, seen, i, row);
            let mut rest = block.height - 1;
            let mut y = block.y + 1;
            // Where there is a single row, it shows what is missing from the cache, or else from what is read.
            if let Some(reads) = row.reads.as_ref().filter(|_| rest > 1 || rest == 1 && row.held == row.full) {
                let indent = NAMES.min(area.width);
                let place = Rect { x: area.x + indent, y, width: area.width - indent, height: 1 };
                put::at(buf, place, 0, 0, &reading::line(reads, place.width as usize), seen.theme.soft());
                (y, rest) = (y + 1, rest - 1);
            }
            if let Some((of, since)) = row.effect.as_ref().filter(|_| rest > 1 || rest == 1 && row.held == row.full) {
                let indent = NAMES.min(area.width);
                let place = Rect { x: area.x + indent, y, width: area.width - indent, height: 1 };
                put::at(buf, place, 0, 0, &effect::line(of, *since, place.width as usize), seen.theme.base());
                (y, rest) = (y + 1, rest - 1);
            }
            if rest > 2 && i > 0 {
                let indent = NAMES.min(area.width);
                let place = Rect { x: area.x + indent, y, width: area.width - indent, height: 1 };
                let drawn = draw_judging(place, buf, seen, &row.judging);
                (y, rest) = (y + drawn, rest - drawn);
            }
            let strips = match rest {
                0 => 0,
                1 | 2 => 1,
                _ if i == 0 => 1,
                n => 1 + heads.div_ceil(2).clamp(1, n - 2),
            };
            // Lanes stay apart where there is plenty of room.
            let words = (rest - strips).min(if rest >= 6 { rest - strips - 1 } else { rest });
            if words > 0 {
                let indent = NAMES.min(area.width);
                let place = Rect { x: area.x + indent, y, width: area.width - indent, height: words };
                y += self.draw_text(place, buf, seen, i, row);
            }
            let place = Rect { y, height: strips, ..area };
            match (strips, i) {
                (0, _) => {}
                (_, 0) => self.draw_ruler(Rect { y: block.bottom() - 1, ..place }, buf, seen),
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
            // here + and − are about the lane under the cursor
            Action::Faster => return Reply::Then(Action::MoreBudget),
            Action::Slower => return Reply::Then(Action::LessBudget),
            Action::Choose => return Reply::Then(Action::EditPolicy),
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn click(&mut self, _x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let area = Rect { x: 0, y: 0, width: 1, height: self.height };
        let hit = |lane: &usize| self.block(*lane, area).is_some_and(|b| (b.y..b.bottom()).contains(&y));
        if let Some(lane) = (0..self.rows.len()).find(hit) {
            selection.lane = lane;
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Up, "choose a lane"),
            (Action::Faster, "more budget for it (the lane starts again)"),
            (Action::Slower, "less budget for it"),
            (Action::Choose, "another policy for it"),
            (Action::LayerNext, "strips of another layer"),
            (Action::Intervene, "knock out or change what is chosen, in a lane of its own"),
            (Action::Fork, "new lane from this one at this step"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_text_is_what_shows() {
        assert_eq!(tail("one two three", 5, 1), (8, vec!["three".to_string()]));
        let (before, lines) = tail("one two three four", 9, 1);
        assert_eq!((before, lines.concat().as_str()), (9, "hree four"));
        let (before, lines) = tail("aa bb cc dd", 5, 2);
        assert_eq!((before, lines.concat().as_str()), (0, "aa bb cc dd"));
    }

    #[test]
    fn a_word_keeps_its_blanks() {
        assert_eq!([first_word(" is Paris"), first_word("is"), first_word("")], [3, 2, 0]);
    }

    #[test]
    fn columns_tell_the_share_that_is_held() {
        let mut kept = Kept::new(2, 1, 4);
        [0, 1, 3].into_iter().for_each(|p| kept.set(0, 0, p));
        kept.set(1, 0, 0);
        let grid = Grid::new(Window { from: 0, to: 4 }, 2, 1);
        let (all, layer) = strips(&kept, grid, 0);
        assert_eq!(all, [0.75, 0.25]);
        assert_eq!(layer, [[1.0, 0.5]]);
    }
}
