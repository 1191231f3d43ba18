//! Where the bytes are: by kind, by lane, and by layer of each lane.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use crate::engine::frame::{Frame, LaneFrame, Memory as Bytes};
use crate::tui::action::Action;
use crate::tui::panel::{Caption, Panel};
use crate::tui::ramp::RampName;
use crate::tui::seen::Seen;
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::{bar, legend, put};
use crate::tui::{text, units};

pub struct Memory;

const NAMES: u16 = 12;
const NUMBERS: u16 = 10;

fn total(m: &Bytes) -> u64 {
    [m.weights, m.kv, m.queries, m.activations, m.history].into_iter().fold(0, u64::saturating_add)
}

/// One line: name, bar, bytes, remark. Returns nothing; lines that do not fit are cut.
fn line(buf: &mut Buffer, area: Rect, y: u16, seen: &Seen, name: &str, bytes: u64, of: u64, fill: Style, remark: &str) {
    let theme = seen.theme;
    put::at(buf, area, 0, y, &text::fit(name, NAMES as usize - 1), theme.base());
    let remarks = if area.width >= 50 { 18 } else { 0 };
    let width = area.width.saturating_sub(NAMES + NUMBERS + remarks);
    bar::draw(buf, area, NAMES, y, width, bytes as f64 / of.max(1) as f64, fill, theme.faint());
    put::right(buf, area, NAMES + width + NUMBERS, y, &units::bytes(bytes), theme.strong());
    if remarks > 0 {
        put::right(buf, area, area.width, y, remark, theme.soft());
    }
}

fn kinds(buf: &mut Buffer, area: Rect, seen: &Seen, m: &Bytes) -> u16 {
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
        line(buf, area, y as u16, seen, name, *bytes, all, Style::new().fg(*colour), remark);
    }
    lines.len() as u16
}

fn lanes(buf: &mut Buffer, area: Rect, seen: &Seen, frame: &Frame) -> u16 {
    let most = frame.lanes.iter().map(|l| l.kv.held.max(l.kv.full)).max().unwrap_or(1);
    for (i, lane) in frame.lanes.iter().enumerate().take(area.height as usize) {
        let colour = Style::new().fg(seen.theme.lane(i));
        let share = lane.kv.held as f64 / lane.kv.full.max(1) as f64;
        let remark = if i == 0 { "all of it".into() } else { format!("{} of full", units::percent(share)) };
        let name = format!("{i} {}", text::line(&lane.spec));
        line(buf, area, i as u16, seen, &name, lane.kv.held, most, colour, &remark);
    }
    frame.lanes.len() as u16
}

/// Lanes down, layers across: bytes against what lane 0 holds in the same layer.
fn layers(buf: &mut Buffer, area: Rect, seen: &Seen, frame: &Frame) {
    let theme = seen.theme;
    let Some(full) = frame.lanes.first().map(|l| &l.kv.per_layer).filter(|l| !l.is_empty()) else { return };
    let wide = ((area.width.saturating_sub(NAMES)) / full.len() as u16).clamp(1, 4) as usize;
    let held = |lane: &LaneFrame, layer: usize| {
        Some(*lane.kv.per_layer.get(layer)? as f32 / (*full.get(layer)?).max(1) as f32)
    };
    let slots = |lane: &LaneFrame| lane.kv.slots_per_layer.get(seen.selection.layer).copied();
    put::at(buf, area, 0, 0, "by layer", theme.soft());
    let x = NAMES + (seen.selection.layer * wide) as u16;
    put::at(buf, area, x, 0, &format!("▾{}", seen.selection.layer), theme.accent());
    for (i, lane) in frame.lanes.iter().enumerate() {
        let y = i as u16 + 1;
        if y >= area.height {
            break;
        }
        let words = slots(lane).map_or(String::new(), |n| format!("{i} {n} slots"));
        put::at(buf, area, 0, y, &text::fit(&words, NAMES as usize - 1), Style::new().fg(theme.lane(i)));
        let strip = Rect {
            x: area.x + NAMES.min(area.width),
            y: area.y + y,
            height: 1,
            width: area.width.saturating_sub(NAMES),
        };
        heat::strip(buf, strip, theme, theme.ramp(RampName::Cividis), |x| {
            held(lane, x / wide).map_or(Ink::Clear, Ink::Value)
        });
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
        let below = |y: u16| Rect { y: area.y + y.min(area.height), height: area.height.saturating_sub(y), ..area };
        // A blank line between the parts where there is room for all of them.
        let needed = 5 + 2 * frame.lanes.len() as u16 + 3;
        let gap = (area.height >= needed) as u16;
        let mut y = kinds(buf, area, seen, &frame.memory) + gap;
        y += lanes(buf, below(y), seen, frame) + gap;
        layers(buf, below(y), seen, frame);
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::LayerNext, "slots of the next layer")]
    }
}
