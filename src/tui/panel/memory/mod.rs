//! Where the bytes are: by kind, by lane, and by layer of each lane; and where they would be with another cache.

mod what_if;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use crate::engine::frame::{Frame, LaneFrame, Memory as Bytes};
use crate::tui::action::Action;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::{bar, legend, put};
use crate::tui::{reading, text, units};
use what_if::WhatIf;

#[derive(Debug, Default)]
pub struct Memory {
    what_if: WhatIf,
}

const NUMBERS: u16 = 10;
const REMARKS: u16 = 14;

/// Columns for the names: those of the lanes where there is room.
fn names(area: Rect, frame: &Frame) -> u16 {
    let widest = frame.lanes.iter().map(|l| text::width(&text::line(&l.spec)) + 3).max().unwrap_or(0) as u16;
    widest.clamp(12, (area.width / 3).max(12))
}

fn total(m: &Bytes) -> u64 {
    [m.weights, m.kv, m.queries, m.activations, m.history].into_iter().fold(0, u64::saturating_add)
}

struct Entry<'a> {
    name: &'a str,
    bytes: u64,
    /// What the bar is measured against.
    of: u64,
    fill: Style,
    remark: &'a str,
}

/// One row: name, bar, bytes, remark; what has no room is left out.
fn draw_entry(buf: &mut Buffer, area: Rect, y: u16, names: u16, seen: &Seen, entry: &Entry) {
    let theme = seen.theme;
    put::at(buf, area, 0, y, &text::fit(entry.name, names as usize - 1), theme.base());
    let remarks = if area.width >= names + NUMBERS + REMARKS + 6 { REMARKS } else { 0 };
    let width = area.width.saturating_sub(names + NUMBERS + remarks);
    let share = entry.bytes as f64 / entry.of.max(1) as f64;
    bar::draw(buf, put::part(area, names, y, width), share, entry.fill, theme.faint());
    put::right(buf, area, names + width + NUMBERS, y, &units::bytes(entry.bytes), theme.strong());
    if remarks > 0 {
        put::right(buf, area, area.width, y, entry.remark, theme.soft());
    }
}

fn kinds(buf: &mut Buffer, area: Rect, names: u16, seen: &Seen, m: &Bytes) -> u16 {
    let all = total(m);
    let theme = seen.theme;
    let share = |n: u64| units::percent(n as f64 / all.max(1) as f64);
    let budget = format!("of {}", units::bytes(m.queries_budget));
    let lines = [
        ("weights", m.weights, share(m.weights), theme.lane(2)),
        ("KV caches", m.kv, share(m.kv), theme.lane(1)),
        ("queries", m.queries, budget, theme.lane(3)),
        ("activations", m.activations, share(m.activations), theme.lane(6)),
        ("history", m.history, share(m.history), theme.lane(5)),
    ];
    for (y, (name, bytes, remark, colour)) in lines.iter().enumerate() {
        let entry = Entry { name, bytes: *bytes, of: all, fill: Style::new().fg(*colour), remark };
        draw_entry(buf, area, y as u16, names, seen, &entry);
    }
    lines.len() as u16
}

fn lanes(buf: &mut Buffer, area: Rect, names: u16, seen: &Seen, frame: &Frame) -> u16 {
    let most = frame.lanes.iter().map(|l| l.kv.held.max(l.kv.full)).max().unwrap_or(1);
    for (i, lane) in frame.lanes.iter().enumerate().take(area.height as usize) {
        let share = lane.kv.held as f64 / lane.kv.full.max(1) as f64;
        let remark = if i == 0 { "all of it".into() } else { format!("{} of full", units::percent(share)) };
        let name = format!("{i} {}", text::line(&lane.spec));
        let fill = Style::new().fg(seen.theme.lane(i));
        draw_entry(
            buf,
            area,
            i as u16,
            names,
            seen,
            &Entry { name: &name, bytes: lane.kv.held, of: most, fill, remark: &remark },
        );
    }
    frame.lanes.len() as u16
}

/// A line for each lane that reads a part of its cache. Returns the rows taken.
fn reads(buf: &mut Buffer, area: Rect, names: u16, seen: &Seen, frame: &Frame) -> u16 {
    let room = area.width.saturating_sub(names) as usize;
    let reading = frame.lanes.iter().enumerate().filter_map(|(i, lane)| Some((i, lane, lane.reads.as_ref()?)));
    let mut y = 0;
    for (i, lane, reads) in reading.take(area.height as usize) {
        let name = text::fit(&format!("{i} {}", text::line(&lane.spec)), names as usize - 1);
        put::at(buf, area, 0, y, &name, Style::new().fg(seen.theme.lane(i)));
        put::at(buf, area, names, y, &reading::line(reads, room), seen.theme.base());
        y += 1;
    }
    y
}

/// Lanes down, layers across: bytes against what lane 0 holds in the same layer. Returns the rows taken.
fn layers(buf: &mut Buffer, area: Rect, names: u16, seen: &Seen, frame: &Frame) -> u16 {
    let theme = seen.theme;
    let Some(full) = frame.lanes.first().map(|l| &l.kv.per_layer).filter(|l| !l.is_empty()) else { return 0 };
    let room = area.width.saturating_sub(names);
    let wide = (room / full.len().min(u16::MAX as usize) as u16).clamp(1, 4) as usize;
    let held = |lane: &LaneFrame, layer: usize| {
        Some(*lane.kv.per_layer.get(layer)? as f32 / (*full.get(layer)?).max(1) as f32)
    };
    put::at(buf, area, 0, 0, "by layer", theme.soft());
    let x = names.saturating_add((seen.selection.layer * wide).min(u16::MAX as usize) as u16);
    put::at(buf, area, x, 0, &format!("▾{}", seen.selection.layer), theme.accent());
    for (i, lane) in frame.lanes.iter().enumerate() {
        let y = i as u16 + 1;
        if y >= area.height {
            break;
        }
        let name = text::fit(&format!("{i} {}", text::line(&lane.spec)), names as usize - 1);
        put::at(buf, area, 0, y, &name, Style::new().fg(theme.lane(i)));
        let strip = Rect { x: area.x + names.min(area.width), y: area.y + y, height: 1, width: room };
        let ramp = theme.ramp(RampName::Cividis);
        heat::strip(buf, strip, theme, ramp, |x| held(lane, x / wide).map_or(Ink::Clear, Ink::Value));
    }
    frame.lanes.len() as u16 + 1
}

/// Columns of a layer's name, and most columns of a lane, in the table of slots.
const LAYER: u16 = 10;
const SLOTS: u16 = 10;

/// Layers down, lanes across: entries held. The chosen layer stays in sight.
fn slots(buf: &mut Buffer, area: Rect, seen: &Seen, frame: &Frame) {
    let theme = seen.theme;
    let layers = frame.lanes.first().map_or(0, |l| l.kv.slots_per_layer.len());
    let rows = area.height.saturating_sub(1) as usize;
    if rows < 3 || layers == 0 {
        return;
    }
    let wide = (area.width.saturating_sub(LAYER) / frame.lanes.len().max(1) as u16).min(SLOTS);
    let end = |lane: usize| LAYER + (lane as u16 + 1) * wide;
    put::at(buf, area, 0, 0, "slots held", theme.soft());
    for i in 0..frame.lanes.len() {
        put::right(buf, area, end(i), 0, &format!("lane {i}"), Style::new().fg(theme.lane(i)));
    }
    let top = seen.selection.layer.saturating_sub(rows / 2).min(layers.saturating_sub(rows));
    for (y, layer) in (top..layers).take(rows).enumerate() {
        let y = y as u16 + 1;
        let here = layer == seen.selection.layer;
        let style = if here { theme.accent() } else { theme.base() };
        put::at(buf, area, 0, y, &format!("layer {layer}"), if here { style } else { theme.soft() });
        for (i, lane) in frame.lanes.iter().enumerate() {
            let n = lane.kv.slots_per_layer.get(layer).map_or("–".into(), |n| units::count(*n as u64));
            put::right(buf, area, end(i), y, &n, style);
        }
    }
}

impl Panel for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Some(frame) = seen.frame() else { return Caption::default() };
        let mut facts = vec![Span::styled(format!("{} ", units::bytes(total(&frame.memory))), theme.accent())];
        if let Some(model) = seen.model() {
            let positions = seen.positions().max(1) as u64;
            let full = frame.lanes.first().map_or(0, |l| l.kv.held);
            let each = format!("· KV {} a token, {} ", units::bytes(full / positions), text::line(&model.kv_type));
            facts.push(Span::styled(each, theme.soft()));
        }
        let mut spans = vec![Span::styled(" held against lane 0", theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(RampName::Cividis), "0", "all", "linear"));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let Some(frame) = seen.frame() else {
            put::note(buf, area, "nothing has been computed yet", seen.theme.soft());
            return;
        };
        let names = names(area, frame);
        let below = |y: u16| Rect { y: area.y + y.min(area.height), height: area.height.saturating_sub(y), ..area };
        // A blank line between the parts where there is room for all of them.
        let reading = frame.lanes.iter().filter(|lane| lane.reads.is_some()).count() as u16;
        let needed = 5 + 2 * frame.lanes.len() as u16 + 1 + reading;
        // Blank lines give way to what would not fit beside them.
        let gap = match area.height.checked_sub(needed) {
            Some(rest) if rest >= what_if::ROWS => rest > what_if::ROWS + 2,
            Some(rest) => rest > 1,
            None => false,
        } as u16;
        let mut y = kinds(buf, area, names, seen, &frame.memory) + gap;
        y += lanes(buf, below(y), names, seen, frame);
        y += reads(buf, below(y), names, seen, frame) + gap;
        y += layers(buf, below(y), names, seen, frame) + gap;
        let rows = self.what_if.draw(buf, below(y), names, seen);
        y += rows + gap * (rows > 0) as u16;
        slots(buf, below(y), seen, frame);
    }

    fn act(&mut self, action: Action, seen: &Seen, _selection: &mut Selection) -> Reply {
        match seen.model() {
            Some(model) if self.what_if.act(action, model) => Reply::Done,
            _ => Reply::Ignored,
        }
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::LayerNext, "slots of the next layer"),
            (Action::Faster, "what if: twice as long a text"),
            (Action::Slower, "what if: half as long a text"),
            (Action::ZoomReset, "what if: as long as the model was made for"),
            (Action::Scale, "what if: next number type"),
            (Action::Fold, "what if: more texts at once"),
        ]
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "what if: sizes by arithmetic, nothing is run: Σ over layers of rows × numbers × bytes",
            "window: no layer looks back further; share: the last layers read an earlier one of their kind",
            "latent: one row of 512 + 64 numbers for all heads (MLA); 1 for 4/128: rows made of so many positions (CSA, HCA)",
        ]
    }
}
