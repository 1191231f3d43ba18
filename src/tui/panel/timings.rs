//! What each operation costs: over one step, the last steps, or all of them.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::OpTime;
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::{bar, put};
use crate::tui::{text, units};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Total,
    Calls,
    P50,
    P99,
    Bytes,
    Flops,
    Name,
}

impl Choice for Column {
    const ALL: &'static [Self] =
        &[Column::Total, Column::Calls, Column::P50, Column::P99, Column::Bytes, Column::Flops, Column::Name];

    fn name(self) -> &'static str {
        match self {
            Column::Total => "total",
            Column::Calls => "calls",
            Column::P50 => "p50",
            Column::P99 => "p99",
            Column::Bytes => "GB/s",
            Column::Flops => "GFLOP/s",
            Column::Name => "name",
        }
    }
}

/// One operation over the span.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    name: String,
    calls: u64,
    total_ns: u64,
    p50: u32,
    p99: u32,
    /// Per second, from bytes and operations that the shapes ask for.
    gbytes: f64,
    gflops: f64,
}

/// Value at a share of the sorted calls (nearest rank).
fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn add_up<'a>(ops: impl Iterator<Item = &'a OpTime>) -> Vec<Row> {
    #[derive(Default)]
    struct Sum {
        calls: u64,
        total_ns: u64,
        bytes: u64,
        flops: u64,
        ns: Vec<u32>,
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for op in ops {
        let sum = sums.entry(&op.name).or_default();
        sum.calls += op.calls as u64;
        sum.total_ns = sum.total_ns.saturating_add(op.total_ns);
        sum.bytes = sum.bytes.saturating_add(op.bytes);
        sum.flops = sum.flops.saturating_add(op.flops);
        sum.ns.extend_from_slice(&op.ns);
    }
    let row = |(name, mut sum): (&str, Sum)| {
        sum.ns.sort_unstable();
        let ns = sum.total_ns.max(1) as f64;
        Row {
            name: text::line(name),
            calls: sum.calls,
            total_ns: sum.total_ns,
            p50: quantile(&sum.ns, 0.5),
            p99: quantile(&sum.ns, 0.99),
            // Bytes per nanosecond are GB/s.
            gbytes: sum.bytes as f64 / ns,
            gflops: sum.flops as f64 / ns,
        }
    };
    sums.into_iter().map(row).collect()
}

fn order(rows: &mut [Row], column: Column) {
    match column {
        Column::Total => rows.sort_by_key(|r| std::cmp::Reverse(r.total_ns)),
        Column::Calls => rows.sort_by_key(|r| std::cmp::Reverse(r.calls)),
        Column::P50 => rows.sort_by_key(|r| std::cmp::Reverse(r.p50)),
        Column::P99 => rows.sort_by_key(|r| std::cmp::Reverse(r.p99)),
        Column::Bytes => rows.sort_by(|a, b| b.gbytes.total_cmp(&a.gbytes)),
        Column::Flops => rows.sort_by(|a, b| b.gflops.total_cmp(&a.gflops)),
        Column::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    span: Steps,
    column: Column,
}

pub struct Timings {
    span: Steps,
    column: Column,
    key: Option<Key>,
    rows: Vec<Row>,
    steps: usize,
    /// Wall time of the span, and what of it the operations explain, ns.
    wall: u64,
    ops: u64,
    top: usize,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            span: Steps::Last,
            column: Column::Total,
            key: None,
            rows: Vec::new(),
            steps: 0,
            wall: 0,
            ops: 0,
            top: 0,
        }
    }
}

/// Columns after the name: heading, width, and the least width of the panel that shows them.
const COLUMNS: [(Column, u16, u16); 6] = [
    (Column::Total, 10, 0),
    (Column::Calls, 7, 48),
    (Column::P50, 9, 56),
    (Column::P99, 9, 64),
    (Column::Bytes, 8, 40),
    (Column::Flops, 9, 72),
];

const NAMES: u16 = 16;

fn cell(row: &Row, column: Column) -> String {
    match column {
        Column::Total => units::nanos(row.total_ns as f64),
        Column::Calls => units::count(row.calls),
        Column::P50 => units::nanos(row.p50 as f64),
        Column::P99 => units::nanos(row.p99 as f64),
        Column::Bytes => format!("{:.1}", row.gbytes),
        Column::Flops => format!("{:.1}", row.gflops),
        Column::Name => row.name.clone(),
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

    fn prepare(&mut self, _area: Rect, seen: &Seen, _asker: &mut Asker) {
        let key = Key { revision: seen.session.revision, at: seen.at, span: self.span, column: self.column };
        let Some(at) = seen.at else {
            (self.key, self.rows) = (None, Vec::new());
            return;
        };
        if self.key == Some(key) {
            return;
        }
        let frames = &seen.session.frames()[..=at];
        let frames = match self.span {
            Steps::Step => &frames[at..],
            // Decoding only: the prompt's step would drown it.
            Steps::Last => {
                let decoded = &frames[frames.partition_point(|f| f.step == 0).min(at)..];
                &decoded[decoded.len().saturating_sub(LAST)..]
            }
            Steps::All => frames,
        };
        self.rows = add_up(frames.iter().flat_map(|f| &f.ops));
        order(&mut self.rows, self.column);
        self.steps = frames.len();
        self.wall = frames.iter().map(|f| f.wall_ns).fold(0, u64::saturating_add);
        self.ops = self.rows.iter().map(|r| r.total_ns).fold(0, u64::saturating_add);
        self.key = Some(key);
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
        let facts = vec![
            Span::styled(span, theme.accent()),
            Span::styled(format!("· {per} a step "), theme.soft()),
            Span::styled(
                format!("· operations explain {} ", units::percent(self.ops as f64 / self.wall.max(1) as f64)),
                theme.soft(),
            ),
        ];
        let legend = vec![
            Span::styled(format!(" by {} ", self.column.name()), theme.soft()),
            Span::styled("· times measured · GB/s, GFLOP/s derived from shapes ", theme.faint()),
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
        let columns: Vec<_> = COLUMNS.iter().filter(|(_, _, least)| area.width >= *least).collect();
        let numbers: u16 = columns.iter().map(|(_, width, _)| width).sum();
        let names = NAMES.min(area.width.saturating_sub(numbers)).max(4);
        let bars = area.width.saturating_sub(names + numbers + 8);
        let heading = |column: Column| {
            let style = if column == self.column { theme.accent() } else { theme.soft() };
            style.add_modifier(Modifier::BOLD)
        };
        put::at(buf, area, 0, 0, "operation", heading(Column::Name));
        let first = names + if bars >= 4 { bars + 7 } else { 0 };
        if bars >= 4 {
            put::at(buf, area, names, 0, "share", theme.soft().add_modifier(Modifier::BOLD));
        }
        let mut end = first;
        for (column, width, _) in &columns {
            end += width;
            put::right(buf, area, end, 0, column.name(), heading(*column));
        }
        let rows = area.height.saturating_sub(1) as usize;
        let top = self.top.min(self.rows.len().saturating_sub(rows));
        for (i, row) in self.rows.iter().skip(top).take(rows).enumerate() {
            let y = i as u16 + 1;
            put::at(buf, area, 0, y, &text::fit(&row.name, names as usize - 1), theme.base());
            let share = row.total_ns as f64 / self.ops.max(1) as f64;
            if bars >= 4 {
                bar::draw(buf, put::part(area, names, y, bars), share, theme.accent(), theme.faint());
                put::right(buf, area, names + bars + 6, y, &format!("{:.1} %", share * 100.0), theme.soft());
            }
            let mut end = first;
            for (column, width, _) in &columns {
                end += width;
                let style = if *column == self.column { theme.strong() } else { Style::new().fg(theme.text) };
                put::right(buf, area, end, y, &cell(row, *column), style);
            }
        }
    }

    fn act(&mut self, action: Action, _seen: &Seen, _selection: &mut Selection) -> Reply {
        let last = self.rows.len().saturating_sub(1);
        match action {
            Action::Sort => self.column = self.column.next(),
            Action::Span => self.span = self.span.next(),
            Action::Up => self.top = self.top.saturating_sub(1),
            Action::Down => self.top = (self.top + 1).min(last),
            Action::First => self.top = 0,
            Action::Last => self.top = last,
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Sort, "sort by the next column"),
            (Action::Span, "the last 32 steps, this step, all steps"),
            (Action::Up, "scroll"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, ns: &[u32], bytes: u64) -> OpTime {
        let total_ns = ns.iter().map(|&n| n as u64).sum();
        OpTime { name: name.into(), calls: ns.len() as u32, total_ns, ns: ns.to_vec(), bytes, flops: 2 * bytes }
    }

    #[test]
    fn operations_of_several_steps_add_up() {
        let ops = [op("qkv", &[10, 30], 80), op("mlp", &[100], 50), op("qkv", &[20], 40)];
        let mut rows = add_up(ops.iter());
        order(&mut rows, Column::Total);
        assert_eq!(rows[0].name, "mlp");
        let qkv = &rows[1];
        assert_eq!((qkv.calls, qkv.total_ns, qkv.p50, qkv.p99), (3, 60, 20, 30));
        assert!((qkv.gbytes - 2.0).abs() < 1e-9 && (qkv.gflops - 4.0).abs() < 1e-9);
        order(&mut rows, Column::Bytes);
        assert_eq!(rows[0].name, "qkv");
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let calls: Vec<u32> = (1..=100).collect();
        assert_eq!((quantile(&calls, 0.5), quantile(&calls, 0.99), quantile(&[], 0.5)), (50, 99, 0));
    }
}
