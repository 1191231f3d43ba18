//! Operations and what they cost, one a row.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::marks::Marks;
use crate::engine::frame::{OpTime, Peaks};
use crate::meter::roofline::{Reached, reached};
use crate::tui::panel::Choice;
use crate::tui::theme::Theme;
use crate::tui::widget::{bar, put};
use crate::tui::{text, units};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Total,
    Calls,
    P50,
    P99,
    Bytes,
    Gbytes,
    Flops,
    Peak,
    Bound,
    Name,
}

impl Choice for Column {
    const ALL: &'static [Self] = &[
        Column::Total,
        Column::Calls,
        Column::P50,
        Column::P99,
        Column::Bytes,
        Column::Gbytes,
        Column::Flops,
        Column::Peak,
        Column::Bound,
        Column::Name,
    ];

    fn name(self) -> &'static str {
        match self {
            Column::Total => "total",
            Column::Calls => "calls",
            Column::P50 => "p50",
            Column::P99 => "p99",
            Column::Bytes => "bytes",
            Column::Gbytes => "GB/s",
            Column::Flops => "GFLOP/s",
            Column::Peak => "peak",
            Column::Bound => "bound by",
            Column::Name => "name",
        }
    }
}

/// One operation over the span.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub name: String,
    pub calls: u64,
    pub total_ns: u64,
    p50: u32,
    p99: u32,
    /// Of a call.
    bytes: u64,
    /// Per second, from bytes and operations that the shapes ask for.
    gbytes: f64,
    gflops: f64,
    /// `None` while peaks are unknown, and where nothing is counted.
    reached: Option<Reached>,
}

/// Value at a share of the sorted calls (nearest rank).
fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

pub fn add_up<'a>(ops: impl Iterator<Item = &'a OpTime>, peaks: Option<&Peaks>) -> Vec<Row> {
    #[derive(Default)]
    struct Sum {
        calls: u64,
        total_ns: u64,
        bytes: u64,
        flops: u64,
        product: bool,
        ns: Vec<u32>,
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for op in ops {
        let sum = sums.entry(&op.name).or_default();
        sum.calls += op.calls as u64;
        sum.total_ns = sum.total_ns.saturating_add(op.total_ns);
        sum.bytes = sum.bytes.saturating_add(op.bytes);
        sum.flops = sum.flops.saturating_add(op.flops);
        sum.product |= op.product;
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
            bytes: sum.bytes / sum.calls.max(1),
            gbytes: sum.bytes as f64 / ns,
            gflops: sum.flops as f64 / ns,
            reached: peaks.and_then(|peaks| reached(peaks, sum.product, sum.bytes, sum.flops, sum.total_ns)),
        }
    };
    sums.into_iter().map(row).collect()
}

/// Largest first; names in their order.
pub fn order(rows: &mut [Row], by: Column) {
    let peak = |row: &Row| row.reached.map_or(-1.0, |reached| reached.share);
    rows.sort_by(|a, b| match by {
        Column::Total => b.total_ns.cmp(&a.total_ns),
        Column::Calls => b.calls.cmp(&a.calls),
        Column::P50 => b.p50.cmp(&a.p50),
        Column::P99 => b.p99.cmp(&a.p99),
        Column::Bytes => b.bytes.cmp(&a.bytes),
        Column::Gbytes => b.gbytes.total_cmp(&a.gbytes),
        Column::Flops => b.gflops.total_cmp(&a.gflops),
        Column::Peak => peak(b).total_cmp(&peak(a)),
        Column::Bound => bound(a).cmp(bound(b)).then(b.total_ns.cmp(&a.total_ns)),
        Column::Name => a.name.cmp(&b.name),
    });
}

fn bound(row: &Row) -> &'static str {
    row.reached.map_or("–", |reached| reached.bound.name())
}

/// Columns after the name and the share, from left to right, and their widths.
const COLUMNS: [(Column, u16); 9] = [
    (Column::Total, 9),
    (Column::Calls, 7),
    (Column::P50, 9),
    (Column::P99, 9),
    (Column::Bytes, 9),
    (Column::Gbytes, 7),
    (Column::Flops, 9),
    (Column::Peak, 7),
    (Column::Bound, 11),
];

/// Which columns stay where there is no room for all, the first one last to go.
const DEAREST: [Column; 9] = [
    Column::Total,
    Column::P50,
    Column::Peak,
    Column::Bound,
    Column::Gbytes,
    Column::P99,
    Column::Calls,
    Column::Bytes,
    Column::Flops,
];

/// The mark and the name of an operation, the percentage behind the bar, and the shortest bar.
const NAMES: u16 = 22;
const FEWEST_NAMES: u16 = 15;
const PERCENT: u16 = 7;
const BAR: u16 = 6;

/// Columns that fit into `width` beside the names, from left to right.
fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut left = width.saturating_sub(FEWEST_NAMES + PERCENT);
    let mut chosen = Vec::new();
    for column in DEAREST {
        let Some(&(_, wide)) = COLUMNS.iter().find(|(other, _)| *other == column) else { continue };
        if wide > left {
            break;
        }
        left -= wide;
        chosen.push(column);
    }
    COLUMNS.into_iter().filter(|(column, _)| chosen.contains(column)).collect()
}

fn cell(row: &Row, column: Column) -> String {
    match column {
        Column::Total => units::nanos(row.total_ns as f64),
        Column::Calls => units::count(row.calls),
        Column::P50 => units::nanos(row.p50 as f64),
        Column::P99 => units::nanos(row.p99 as f64),
        Column::Bytes => units::bytes(row.bytes),
        Column::Gbytes => format!("{:.1}", row.gbytes),
        Column::Flops => format!("{:.1}", row.gflops),
        Column::Peak => row.reached.map_or("–".into(), |reached| units::percent(reached.share)),
        Column::Bound => bound(row).into(),
        Column::Name => row.name.clone(),
    }
}

/// What is drawn: the rows from `top` on, which took `all` nanoseconds together.
pub struct Table<'a> {
    pub rows: &'a [Row],
    pub top: usize,
    pub all: u64,
    pub by: Column,
    pub marks: &'a Marks,
}

impl Table<'_> {
    pub fn draw(&self, area: Rect, buf: &mut Buffer, theme: &Theme) {
        let columns = fitting(area.width);
        let numbers: u16 = columns.iter().map(|(_, width)| width).sum();
        let rest = area.width.saturating_sub(numbers + PERCENT);
        let names = NAMES.min(rest).max(4);
        let bars = if rest >= names + BAR { rest - names } else { 0 };
        let heading = |column: Column| {
            let style = if column == self.by { theme.accent() } else { theme.soft() };
            style.add_modifier(Modifier::BOLD)
        };
        put::at(buf, area, 2, 0, "operation", heading(Column::Name));
        let first = names + bars + PERCENT;
        put::right(buf, area, first, 0, "share", theme.soft().add_modifier(Modifier::BOLD));
        let mut end = first;
        for (column, width) in &columns {
            end += width;
            put::right(buf, area, end, 0, column.name(), heading(*column));
        }
        let rows = area.height.saturating_sub(1) as usize;
        let top = self.top.min(self.rows.len().saturating_sub(rows));
        for (i, row) in self.rows.iter().skip(top).take(rows).enumerate() {
            let y = i as u16 + 1;
            let (mark, style) = self.marks.of(&row.name, theme);
            put::at(buf, area, 0, y, mark.encode_utf8(&mut [0; 4]), style);
            put::at(buf, area, 2, y, &text::fit(&row.name, names as usize - 3), theme.base());
            let share = row.total_ns as f64 / self.all.max(1) as f64;
            if bars > 0 {
                bar::draw(buf, put::part(area, names, y, bars), share, theme.accent(), theme.faint());
            }
            put::right(buf, area, first, y, &format!("{:.1} %", share * 100.0), theme.soft());
            let mut end = first;
            for (column, width) in &columns {
                end += width;
                let style = if *column == self.by { theme.strong() } else { Style::new().fg(theme.text) };
                put::right(buf, area, end, y, &cell(row, *column), style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::roofline::Bound;

    fn op(name: &str, ns: &[u32], bytes: u64) -> OpTime {
        let total_ns = ns.iter().map(|&n| n as u64).sum();
        let calls = ns.len() as u32;
        OpTime { name: name.into(), calls, total_ns, ns: ns.to_vec(), bytes, flops: 2 * bytes, product: true }
    }

    #[test]
    fn operations_of_several_steps_add_up() {
        let ops = [op("qkv", &[10, 30], 80), op("mlp", &[100], 50), op("qkv", &[20], 40)];
        let mut rows = add_up(ops.iter(), None);
        order(&mut rows, Column::Total);
        assert_eq!(rows[0].name, "mlp");
        let qkv = &rows[1];
        assert_eq!((qkv.calls, qkv.total_ns, qkv.p50, qkv.p99, qkv.bytes), (3, 60, 20, 30, 40));
        assert!((qkv.gbytes - 2.0).abs() < 1e-9 && (qkv.gflops - 4.0).abs() < 1e-9);
        assert_eq!(qkv.reached, None);
        order(&mut rows, Column::Gbytes);
        assert_eq!(rows[0].name, "qkv");
    }

    #[test]
    fn shares_of_the_peak_are_of_the_whole_span() {
        // 2 GB/s of 2.5 and 4 GFLOP/s of 40
        let peaks = Peaks { read_bytes_per_s: 2.5e9, flops_per_s: 1e9, product_flops_per_s: 4e10, how: "".into() };
        let ops = [op("qkv", &[10, 30], 80), op("qkv", &[20], 40)];
        let rows = add_up(ops.iter(), Some(&peaks));
        let reached = rows[0].reached.unwrap();
        assert!((reached.share - 0.8).abs() < 1e-9);
        assert_eq!(reached.bound, Bound::Memory);
        assert_eq!([cell(&rows[0], Column::Peak), cell(&rows[0], Column::Bound)], ["80 %", "memory"]);
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let calls: Vec<u32> = (1..=100).collect();
        assert_eq!((quantile(&calls, 0.5), quantile(&calls, 0.99), quantile(&[], 0.5)), (50, 99, 0));
    }

    #[test]
    fn the_dearest_columns_stay() {
        let names = |width| fitting(width).iter().map(|(column, _)| column.name()).collect::<Vec<_>>();
        assert_eq!(names(78), ["total", "p50", "p99", "GB/s", "peak", "bound by"]);
        assert_eq!(names(118).len(), COLUMNS.len());
        assert_eq!(names(40), ["total", "p50"]);
        assert!(names(10).is_empty());
    }
}
