//! All heads at once: one small grid (layers down, heads across) for each statistic; choose a head by it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use crate::engine::frame::AttentionStats;
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::ramp::RampName;
use crate::tui::seen::{Seen, Selection};
use crate::tui::units;
use crate::tui::widget::heat::{self, Ink};
use crate::tui::widget::scale::{Fitted, Scale};
use crate::tui::widget::{legend, put};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Entropy,
    Sink,
    Recent,
    Distance,
}

impl Choice for Measure {
    const ALL: &'static [Self] = &[Measure::Entropy, Measure::Sink, Measure::Recent, Measure::Distance];

    fn name(self) -> &'static str {
        match self {
            Measure::Entropy => "entropy",
            Measure::Sink => "sink",
            Measure::Recent => "recent",
            Measure::Distance => "distance",
        }
    }
}

impl Measure {
    fn of(self, stats: &AttentionStats) -> &[f32] {
        match self {
            Measure::Entropy => &stats.entropy,
            Measure::Sink => &stats.first,
            Measure::Recent => &stats.recent,
            Measure::Distance => &stats.distance,
        }
    }

    fn unit(self, recent: usize) -> String {
        match self {
            Measure::Entropy => "nats".into(),
            Measure::Sink => "mass on position 0".into(),
            Measure::Recent => format!("mass on the last {recent}"),
            Measure::Distance => "tokens back".into(),
        }
    }

    fn ramp(self) -> RampName {
        match self {
            Measure::Sink => RampName::Magma,
            _ => RampName::Viridis,
        }
    }
}

/// One statistic of one query, `[layers][heads]`.
struct Grid {
    measure: Measure,
    values: Vec<f32>,
    fitted: Option<Fitted>,
}

#[derive(Default)]
pub struct Heads {
    chosen: usize,
    grids: Vec<Grid>,
    layers: usize,
    heads: usize,
    recent: usize,
    /// (value, layer, head) of the chosen statistic, largest first.
    top: Vec<(f32, usize, usize)>,
    /// First layer on the screen, layers on the screen, columns of a head.
    from: usize,
    fits: usize,
    wide: u16,
    /// Two layers share a row.
    halved: bool,
    /// Grids beside each other.
    beside: usize,
}

/// Columns for the layer numbers.
const GUTTER: u16 = 3;
/// Columns of the sorted list.
const LIST: u16 = 18;

impl Heads {
    fn measure(&self) -> Measure {
        Measure::ALL[self.chosen % Measure::ALL.len()]
    }

    fn refresh(&mut self, seen: &Seen) {
        self.grids.clear();
        self.top.clear();
        let Some((stats, row)) = seen.session.attention(seen.lane_index(), seen.token()) else { return };
        (self.layers, self.heads, self.recent) = (stats.layers, stats.heads, stats.recent_window);
        for &measure in Measure::ALL {
            let all = measure.of(stats);
            let values: Vec<f32> = (0..stats.layers * stats.heads)
                .map(|i| all.get(i * stats.rows + row).copied().unwrap_or(f32::NAN))
                .collect();
            let fitted = match measure {
                Measure::Sink | Measure::Recent => Some(Fitted::between(0.0, 1.0)),
                Measure::Entropy => Fitted::from_zero(values.iter().copied()),
                Measure::Distance => Fitted::to(Scale::Log, values.iter().copied()),
            };
            self.grids.push(Grid { measure, values, fitted });
        }
        if let Some(grid) = self.grids.get(self.chosen) {
            let heads = self.heads.max(1);
            let places = grid.values.iter().enumerate().filter(|(_, v)| !v.is_nan());
            self.top = places.map(|(i, &v)| (v, i / heads, i % heads)).collect();
            self.top.sort_by(|a, b| b.0.total_cmp(&a.0));
        }
    }

    fn grid_width(&self) -> u16 {
        (self.heads as u16).saturating_mul(self.wide)
    }

    /// How many grids of which width, and whether two layers share a row.
    fn lay_out(&mut self, area: Rect, seen: &Seen) {
        let (heads, room) = (self.heads.max(1) as u16, area.width.saturating_sub(GUTTER));
        self.wide = (room / heads).clamp(1, 2);
        let each = self.grid_width() + 2;
        self.beside = ((room + 2) / each.max(1)).clamp(1, Measure::ALL.len() as u16) as usize;
        if self.beside == 1 {
            self.wide = (room / heads).clamp(1, 4);
        }
        let rows = area.height.saturating_sub(1).max(1) as usize;
        self.halved = self.layers > rows;
        self.fits = if self.halved { rows * 2 } else { rows }.min(self.layers.max(1));
        let layer = seen.selection.layer.min(self.layers.saturating_sub(1));
        self.from = self.from.min(layer).max((layer + 1).saturating_sub(self.fits));
        self.from = self.from.min(self.layers.saturating_sub(self.fits)) & !(self.halved as usize);
    }

    /// Grids on the screen: the chosen one first where not all fit.
    fn shown(&self) -> impl Iterator<Item = &Grid> {
        let start = if self.beside == Measure::ALL.len() { 0 } else { self.chosen };
        (0..self.beside).filter_map(move |i| self.grids.get((start + i) % Measure::ALL.len()))
    }

    fn draw_grid(&self, area: Rect, buf: &mut Buffer, seen: &Seen, grid: &Grid) {
        let theme = seen.theme;
        let chosen = grid.measure == self.measure();
        let style = if chosen { theme.accent() } else { theme.soft() };
        put::at(buf, area, 0, 0, grid.measure.name(), style);
        let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        let body = body.intersection(area);
        let ramp = theme.ramp(grid.measure.ramp());
        heat::halves(buf, body, theme, ramp, |x, y| {
            let layer = self.from + if self.halved { y } else { y / 2 };
            let head = x / self.wide.max(1) as usize;
            if layer >= self.layers || head >= self.heads {
                return Ink::Clear;
            }
            if self.halved && (layer, head) == (seen.selection.layer, seen.selection.head) {
                return Ink::Mark;
            }
            let value = grid.values.get(layer * self.heads + head).copied().unwrap_or(f32::NAN);
            match &grid.fitted {
                Some(fitted) if !value.is_nan() => Ink::Value(fitted.t(value)),
                _ => Ink::Clear,
            }
        });
        if !self.halved && (self.from..self.from + self.fits).contains(&seen.selection.layer) {
            let (x, y) = (seen.selection.head as u16 * self.wide, (seen.selection.layer - self.from) as u16);
            let mark = ["◆", "◆ ", "◆  ", "◆   "][(self.wide.clamp(1, 4) - 1) as usize];
            if seen.selection.head < self.heads {
                put::at(buf, body, x, y, mark, theme.chosen());
            }
        }
    }

    fn draw_list(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        put::at(buf, area, 0, 0, &format!("most {}", self.measure().name()), theme.soft());
        let rows = area.height.saturating_sub(1).max(1) as usize;
        let columns = (area.width / LIST).max(1) as usize;
        for (i, &(value, layer, head)) in self.top.iter().take(rows * columns).enumerate() {
            let (x, y) = ((i / rows) as u16 * LIST, (i % rows) as u16 + 1);
            let here = (layer, head) == (seen.selection.layer, seen.selection.head);
            let style = if here { theme.accent() } else { theme.base() };
            let place = Rect { x: area.x + x, width: LIST - 2, ..area };
            put::at(buf, place, 0, y, &format!("L{layer:<3}H{head:<3}"), style);
            put::right(buf, place, place.width, y, &units::number(value), style);
        }
    }
}

impl Panel for Heads {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["measure"])?;
        let mut measure = self.measure();
        options.choose("measure", &mut measure)?;
        self.chosen = Measure::ALL.iter().position(|m| *m == measure).unwrap_or(0);
        Ok(())
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, _asker: &mut Asker) {
        self.refresh(seen);
        self.lay_out(area, seen);
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Selection { layer, head, .. } = *seen.selection;
        let mut facts = vec![
            Span::styled(format!("layer {layer} head {head} "), theme.accent()),
            Span::styled(format!("query {} {} ", seen.token(), seen.spelled(seen.token())), theme.soft()),
        ];
        let mut spans = Vec::new();
        if let Some(grid) = self.grids.get(self.chosen) {
            if let Some(value) = grid.values.get(layer * self.heads + head).filter(|_| head < self.heads) {
                let unit = self.measure().unit(self.recent);
                facts.insert(1, Span::styled(format!("{} {unit} ", units::number(*value)), theme.strong()));
            }
            if let Some(fitted) = &grid.fitted {
                let (low, high) = fitted.ends();
                let scale = format!("{} {}", fitted.scale.name(), self.measure().unit(self.recent));
                spans = legend::ramp(theme, theme.ramp(self.measure().ramp()), &low, &high, &scale);
            }
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
        if self.grids.is_empty() {
            put::note(buf, area, "no attention statistics for this token: the probe is off", seen.theme.soft());
            return;
        }
        let per_row = if self.halved { 2 } else { 1 };
        for y in 0..self.fits.div_ceil(per_row) as u16 {
            let layer = self.from + y as usize * per_row;
            let here = (layer..layer + per_row).contains(&seen.selection.layer);
            if here || layer.is_multiple_of(5) || (self.halved && layer % 10 < 2) {
                let style = if here { seen.theme.accent() } else { seen.theme.faint() };
                let number = if here { seen.selection.layer } else { layer };
                put::right(buf, area, GUTTER - 1, y + 1, &number.to_string(), style);
            }
        }
        let mut x = GUTTER.min(area.width);
        for grid in self.shown() {
            let width = self.grid_width().min(area.width.saturating_sub(x));
            let name = width.max((grid.measure.name().len() as u16).min(area.width.saturating_sub(x)));
            self.draw_grid(Rect { x: area.x + x, width: name, ..area }, buf, seen, grid);
            x = (x + name.max(width) + 2).min(area.width);
        }
        let below = self.fits.div_ceil(per_row) as u16 + 2;
        if area.width >= x + LIST {
            let width = (area.width - x).min(LIST + 4);
            self.draw_list(Rect { x: area.x + area.width - width, width, ..area }, buf, seen);
        } else if area.height >= below + 3 {
            let list = Rect { x: area.x + GUTTER, width: area.width.saturating_sub(GUTTER), ..area };
            self.draw_list(Rect { y: area.y + below, height: area.height - below, ..list }, buf, seen);
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let (layers, heads) = (self.layers.max(1), self.heads.max(1));
        match action {
            Action::Up => selection.layer = selection.layer.saturating_sub(1),
            Action::Down => selection.layer = (selection.layer + 1).min(layers - 1),
            Action::Left => selection.head = selection.head.saturating_sub(1),
            Action::Right => selection.head = (selection.head + 1).min(heads - 1),
            Action::First => (selection.layer, selection.head) = (0, 0),
            Action::Last => (selection.layer, selection.head) = (layers - 1, heads - 1),
            Action::Colour => self.chosen = (self.chosen + 1) % Measure::ALL.len(),
            // Down the sorted list, so that the extreme heads can be visited one by one.
            Action::Sort => {
                let here = (seen.selection.layer, seen.selection.head);
                let rank = self.top.iter().position(|&(_, l, h)| (l, h) == here).map_or(0, |r| r + 1);
                if let Some(&(_, layer, head)) = self.top.get(rank).or(self.top.first()) {
                    (selection.layer, selection.head) = (layer, head);
                }
            }
            _ => return Reply::Ignored,
        }
        Reply::Done
    }

    fn click(&mut self, x: u16, y: u16, _seen: &Seen, selection: &mut Selection) -> Reply {
        let (Some(x), Some(y)) = (x.checked_sub(GUTTER), y.checked_sub(1)) else { return Reply::Done };
        let layer = self.from + y as usize * if self.halved { 2 } else { 1 };
        let widest = self.shown().map(|g| g.measure.name().len() as u16).max().unwrap_or(0);
        let head = (x % (self.grid_width().max(widest) + 2)) / self.wide.max(1);
        if layer < self.layers && (head as usize) < self.heads {
            (selection.layer, selection.head) = (layer, head as usize);
        }
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Left, "choose a layer and head"),
            (Action::Colour, "entropy, sink mass, recent mass, mean distance"),
            (Action::Sort, "next head in the sorted list"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::session::Session;
    use crate::tui::theme::{Depth, Theme};

    /// `heads` laid out for 30 layers × `n` heads in a panel of the given size.
    fn laid_out(n: usize, layer: usize, width: u16, height: u16) -> Heads {
        let (session, theme) = (Session::default(), Theme::new(Depth::Mono));
        let selection = Selection { layer, ..Selection::default() };
        let seen = Seen {
            session: &session,
            selection: &selection,
            theme: &theme,
            at: None,
            live: true,
            focused: true,
            found: &[],
        };
        let mut heads = Heads { layers: 30, heads: n, ..Heads::default() };
        heads.lay_out(Rect::new(0, 0, width, height), &seen);
        heads
    }

    #[test]
    fn all_layers_show_where_they_can_and_the_chosen_one_always() {
        let all = laid_out(9, 0, 60, 40);
        assert!(!all.halved && all.fits == 30 && all.beside >= 2);
        let half = laid_out(9, 0, 60, 16);
        assert!(half.halved && half.fits == 30);
        let few = laid_out(9, 29, 60, 6);
        assert!(few.from <= 29 && 29 < few.from + few.fits);
    }

    #[test]
    fn a_narrow_panel_shows_one_grid() {
        assert_eq!((laid_out(32, 0, 40, 40).beside, laid_out(32, 0, 40, 40).wide), (1, 1));
    }
}
