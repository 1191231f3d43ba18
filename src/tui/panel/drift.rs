//! What attention of each layer would lose in f16, in bf16, or in flash order: the newest query of lane 0 against f64.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use crate::engine::message::{Answer, LayerDrift, Query, State};
use crate::probe::numerics::Arithmetic;
use crate::tui::action::Action;
use crate::tui::asker::{Asked, Asker};
use crate::tui::panel::{Caption, Choice, OptionError, Options, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::text;
use crate::tui::widget::chart::{self, Chart, Series};
use crate::tui::widget::put;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Measure {
    #[default]
    Output,
    Probability,
}

impl Choice for Measure {
    const ALL: &'static [Self] = &[Measure::Output, Measure::Probability];

    fn name(self) -> &'static str {
        match self {
            Measure::Output => "output",
            Measure::Probability => "probability",
        }
    }
}

impl Measure {
    fn of(self, layer: &LayerDrift) -> [f32; Arithmetic::ALL.len()] {
        match self {
            Measure::Output => layer.output,
            Measure::Probability => layer.probs,
        }
    }

    fn formula(self) -> &'static str {
        match self {
            Measure::Output => " ‖o − o'‖ / ‖o‖, all heads, log ",
            Measure::Probability => " max |p − p'|, all heads, log ",
        }
    }
}

/// An answer that took t is followed by the next question after this many t at the earliest while the run goes on.
const FOLLOWING: u32 = 20;

#[derive(Default)]
pub struct Drift {
    measure: Measure,
    asked: Option<Asked>,
    /// The history's revision that was asked about last.
    revision: Option<u64>,
    since: Option<(Instant, Duration)>,
    layers: Arc<[LayerDrift]>,
    /// Newest position when it was asked, and of what is shown.
    asked_at: usize,
    position: usize,
    nothing: Option<String>,
}

fn number(x: f32) -> String {
    if x.is_finite() { format!("{x:.1e}") } else { "overflow".into() }
}

impl Panel for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn configure(&mut self, options: &Options) -> Result<(), OptionError> {
        options.only(&["measure"])?;
        options.choose("measure", &mut self.measure)
    }

    fn prepare(&mut self, _area: Rect, seen: &Seen, asker: &mut Asker) {
        let revision = seen.session.revision;
        let running = seen.session.state == State::Running;
        let early = self.since.is_some_and(|(when, took)| when.elapsed() < FOLLOWING * took);
        if seen.frame().is_none() || self.asked.is_some() || self.revision == Some(revision) || (running && early) {
            return;
        }
        if let Some(asked) = asker.ask(Query::Drift) {
            (self.asked, self.revision) = (Some(asked), Some(revision));
            let newest = seen.session.frames().last().and_then(|frame| frame.lanes.first());
            self.asked_at = newest.map_or(0, |lane| (lane.pos as usize + lane.fed.len()).saturating_sub(1));
        }
    }

    fn answer(&mut self, asked: Asked, answer: &Answer, took: Duration) -> bool {
        if self.asked != Some(asked) {
            return false;
        }
        (self.asked, self.since) = (None, Some((Instant::now(), took)));
        match answer {
            Answer::Drift(layers) => {
                (self.layers, self.position, self.nothing) = (layers.clone(), self.asked_at, None);
            }
            Answer::Nothing(why) => self.nothing = Some(text::line(why)),
            _ => {}
        }
        true
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let mut facts = Vec::new();
        if let Some(layer) = self.layers.get(seen.selection.layer) {
            facts.push(Span::styled(format!("query {} ", self.position), theme.soft()));
            facts.push(Span::styled(format!("L{} ", seen.selection.layer), theme.accent()));
            for (arithmetic, error) in Arithmetic::ALL.iter().zip(self.measure.of(layer)) {
                facts.push(Span::styled(format!("{} {} ", arithmetic.name(), number(error)), theme.strong()));
            }
        }
        let legend = vec![Span::styled(self.measure.formula(), theme.faint())];
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(legend, area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let theme = seen.theme;
        if self.layers.is_empty() {
            let why = self.nothing.as_deref().unwrap_or("computing attention in f64 …");
            put::note(buf, area, why, theme.soft());
            return;
        }
        let lines: [Vec<f32>; Arithmetic::ALL.len()] =
            std::array::from_fn(|a| self.layers.iter().map(|layer| self.measure.of(layer)[a]).collect());
        let colour = |a: usize| theme.lane(a + 1);
        let series: Vec<Series> =
            lines.iter().enumerate().map(|(a, values)| Series { values, colour: colour(a) }).collect();
        let (head, depths) = (1, (area.height >= 6) as u16);
        let plot = Rect { y: area.y + head, height: area.height.saturating_sub(head + depths), ..area };
        Chart { series: &series, total: self.layers.len(), log: true, axis: theme.faint() }.draw(plot, buf);
        let mut x = chart::AXIS;
        for (a, arithmetic) in Arithmetic::ALL.iter().enumerate() {
            let over = lines[a].iter().filter(|error| !error.is_finite()).count();
            let over = if over > 0 { format!(" ({over} layers overflow)") } else { String::new() };
            let words = format!("━ {}{over}  ", arithmetic.name());
            x = put::at(buf, area, x, 0, &words, Style::new().fg(colour(a)));
        }
        if depths > 0 {
            let width = area.width.saturating_sub(chart::AXIS + 1) as usize;
            let at = |layer: usize| chart::AXIS + (layer * width / (self.layers.len() - 1).max(1)) as u16;
            for layer in (0..self.layers.len()).step_by(5) {
                put::at(buf, area, at(layer), area.height - 1, &format!("╵L{layer}"), theme.faint());
            }
            let chosen = seen.selection.layer.min(self.layers.len() - 1);
            let words = format!("▴L{chosen} ");
            let x = at(chosen).min(area.width.saturating_sub(words.chars().count() as u16));
            put::at(buf, area, x, area.height - 1, &words, theme.accent());
        }
    }

    fn act(&mut self, action: Action, _seen: &Seen, _selection: &mut Selection) -> Reply {
        match action {
            Action::Left => Reply::Then(Action::LayerPrevious),
            Action::Right => Reply::Then(Action::LayerNext),
            Action::Colour => {
                self.measure = self.measure.next();
                Reply::Done
            }
            _ => Reply::Ignored,
        }
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::Colour, "error of outputs or of probabilities"), (Action::Left, "choose a layer")]
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "16 bits: q, k, v, scores, probabilities, outputs rounded; sums and softmax in f32",
            "flash: f32, softmax over tiles of 64 keys",
        ]
    }
}
