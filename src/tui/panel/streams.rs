//! The residual streams of a model with hyper-connections, in the newest token of a step: what each sublayer reads from
//! them and writes to them, and how they are mixed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::Gates;
use crate::probe::hyper::{concentration, running_gains, sinkhorn_residual};
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Depth;
use crate::tui::units;
use crate::tui::widget::{bar, legend, put};

/// What decides when gains have to be multiplied again.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    at: Option<usize>,
    lane: usize,
}

#[derive(Debug, Default)]
pub struct Streams {
    /// The MLP of the chosen layer, not its attention.
    mlp: bool,
    key: Option<Key>,
    /// Of the product of H_res so far, after each sublayer.
    gains: Vec<[f64; 2]>,
}

fn gates<'a>(seen: &Seen<'a>) -> Option<&'a Gates> {
    seen.lane()?.depth.as_ref()?.gates.as_ref()
}

/// Columns of a number with a blank behind it.
const NUMBER: u16 = 7;
/// Columns of a sublayer's name.
const NAME: u16 = 11;
const COLUMNS: [&str; 5] = ["row−1", "col−1", "gain", "conc", "branch"];

fn name(target: usize, targets: usize) -> String {
    match target {
        t if t + 1 == targets => "output".into(),
        t => format!("L{} {}", t / 2, ["attention", "MLP"][t % 2]),
    }
}

impl Streams {
    fn target(&self, seen: &Seen, gates: &Gates) -> usize {
        (2 * seen.selection.layer + usize::from(self.mlp)).min(gates.targets().saturating_sub(1))
    }

    /// H_pre and H_post as bars, one line for each stream, and H_res beside them. Returns the rows taken.
    fn draw_chosen(&self, area: Rect, buf: &mut Buffer, seen: &Seen, gates: &Gates) -> u16 {
        let (theme, n, target) = (seen.theme, gates.streams as usize, self.target(seen, gates));
        let (pre, post, matrix, norms) =
            (gates.pre(target), gates.post(target), gates.matrix(target), gates.norms(target));
        let last = target + 1 == gates.targets();
        let cells = if last { 0 } else { n as u16 * NUMBER };
        let bars = area.width.saturating_sub(4 + cells + 2) / 3;
        let columns = [4, 4 + bars, 4 + 2 * bars, area.width.saturating_sub(cells)];
        for (x, words) in columns.into_iter().zip(["reads", if last { "" } else { "writes" }, "‖x‖", "H_res out of in"])
        {
            if x != columns[3] || !last {
                put::at(buf, area, x, 0, words, theme.soft());
            }
        }
        let longest = norms.iter().copied().fold(0.0, f32::max).max(f32::MIN_POSITIVE);
        let ramp = theme.ramp(RampName::Cividis);
        for i in 0..n {
            let y = i as u16 + 1;
            put::at(buf, area, 0, y, &format!("{i}"), theme.strong());
            let mut bar = |column: usize, value: f32, of: f32, lane: usize| {
                let x = columns[column];
                let width = bars.saturating_sub(NUMBER + 1);
                let share = f64::from(value / of);
                bar::draw(buf, put::part(area, x, y, width), share, Style::new().fg(theme.lane(lane)), theme.faint());
                put::right(buf, area, x + width + NUMBER, y, &units::number(value), theme.base());
            };
            bar(0, pre.get(i).copied().unwrap_or(f32::NAN), 1.0, 1);
            if !last {
                bar(1, post.get(i).copied().unwrap_or(f32::NAN), 2.0, 3);
            }
            bar(2, norms.get(i).copied().unwrap_or(f32::NAN), longest, 2);
            for (j, &value) in matrix.iter().skip(i * n).take(if last { 0 } else { n }).enumerate() {
                let style = match theme.depth {
                    Depth::Mono => {
                        Style::new().add_modifier(if value > 0.5 { Modifier::BOLD } else { Modifier::empty() })
                    }
                    _ => Style::new().bg(ramp.colour(value)).fg(ramp.ink(value)),
                };
                put::at(buf, area, columns[3] + j as u16 * NUMBER, y, &format!(" {value:.3} "), style);
            }
        }
        n as u16 + 1
    }

    /// A line for each sublayer, the chosen one in sight.
    fn draw_all(&self, area: Rect, buf: &mut Buffer, seen: &Seen, gates: &Gates) {
        let rows = area.height.saturating_sub(1) as usize;
        if rows == 0 {
            return;
        }
        let (theme, targets, chosen) = (seen.theme, gates.targets(), self.target(seen, gates));
        let end = |column: usize| NAME + (column as u16 + 1) * (NUMBER + 1);
        for (column, words) in COLUMNS.iter().enumerate() {
            put::right(buf, area, end(column), 0, words, theme.soft());
        }
        let top = chosen.saturating_sub(rows / 2).min(targets.saturating_sub(rows));
        for (y, target) in (top..targets).take(rows).enumerate() {
            let y = y as u16 + 1;
            let style = if target == chosen { theme.accent() } else { theme.base() };
            put::at(buf, area, 0, y, &name(target, targets), style);
            let concentration = concentration(gates.norms(target));
            put::right(buf, area, end(3), y, &units::number(concentration), style);
            if target + 1 == targets {
                continue;
            }
            let [row, column] = sinkhorn_residual(gates.matrix(target), gates.streams as usize);
            let gain = self.gains.get(target).map_or(f64::NAN, |gain| gain[0].max(gain[1]));
            let numbers = [(0, row), (1, column), (2, gain as f32), (4, gates.branch_share(target))];
            for (column, value) in numbers {
                put::right(buf, area, end(column), y, &units::number(value), style);
            }
        }
    }
}

impl Panel for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn prepare(&mut self, _area: Rect, seen: &Seen, _asker: &mut Asker) {
        let key = Some(Key { revision: seen.session.revision, at: seen.at, lane: seen.lane_index() });
        if self.key != key {
            self.key = key;
            self.gains = gates(seen).map(running_gains).unwrap_or_default();
        }
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Some(gates) = gates(seen) else { return Caption::default() };
        let newest = seen.positions().saturating_sub(1);
        let target = self.target(seen, gates);
        let facts = vec![
            Span::styled(format!("{} ", name(target, gates.targets())), theme.accent()),
            Span::styled(format!("{} streams ", gates.streams), theme.strong()),
            Span::styled(format!("at {newest} {} ", seen.spelled(newest)), theme.soft()),
        ];
        let mut spans = vec![Span::styled(" H_res", theme.soft())];
        spans.extend(legend::ramp(theme, theme.ramp(RampName::Cividis), "0", "1", "linear"));
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(spans, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let Some(gates) = gates(seen) else {
            let why = "this model has one residual stream: hyper-connections have several";
            put::note(buf, area, why, seen.theme.soft());
            return;
        };
        let y = self.draw_chosen(area, buf, seen, gates) + 1;
        let y = y.min(area.height);
        self.draw_all(Rect { y: area.y + y, height: area.height - y, ..area }, buf, seen, gates);
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let layers = seen.model().map_or(0, |model| model.layers);
        match action {
            Action::Down if self.mlp && selection.layer + 1 < layers => {
                (selection.layer, self.mlp) = (selection.layer + 1, false)
            }
            Action::Down => self.mlp = true,
            Action::Up if !self.mlp && selection.layer > 0 => (selection.layer, self.mlp) = (selection.layer - 1, true),
            Action::Up => self.mlp = false,
            Action::First => (selection.layer, self.mlp) = (0, false),
            Action::Last => (selection.layer, self.mlp) = (layers.saturating_sub(1), true),
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::Down, "next sublayer"), (Action::Up, "previous sublayer"), (Action::LayerNext, "next layer")]
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "a sublayer F reads H_pre x and leaves H_res x + H_postᵀ F, x being the streams (mHC, arXiv 2512.24880)",
            "row−1, col−1: how far the sums of H_res are from 1 at most; gain: largest row or column sum of all H_res so far,",
            "multiplied; conc: longest over mean stream, 1 to n; branch: ‖H_postᵀ F‖ over that and ‖H_res x‖",
        ]
    }
}
