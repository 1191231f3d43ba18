//! The next token: what the model finds probable, what the sampler left of it, what was drawn, and by how much.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::LaneFrame;
use crate::tui::action::Action;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::widget::{bar, put};
use crate::tui::{text, units};

#[derive(Default)]
pub struct Candidates {
    at: usize,
}

/// Columns of the numbers: probability, logit, probability after truncation.
const PROB: u16 = 7;
const LOGIT: u16 = 8;
const SAMPLED: u16 = 8;

/// Columns of a token's text in the lines below the table.
const TOKEN: usize = 12;

/// What was drawn, before what and by how much; what became of the logits. Empty where nothing is known.
fn story(lane: &LaneFrame, seen: &Seen) -> Vec<String> {
    let (Some(pick), Some(next)) = (lane.pick, lane.next) else { return Vec::new() };
    let token = |id| text::fit(&seen.session.spell(id), TOKEN);
    let drawn = match pick.runner_up {
        Some(id) => format!("{} before {} by {} nats", token(next), token(id), units::number(pick.margin)),
        None => format!("{}, nothing else was left", token(next)),
    };
    let logits = match pick.dropped {
        0 => "all logits kept".into(),
        bytes => format!("{} of logits not kept", units::bytes(bytes)),
    };
    let vocab = seen.model().map_or(0, |model| model.vocab as u64);
    match u64::from(pick.survivors) {
        left if left > 1 && left < vocab => vec![drawn, logits, format!("{} left to draw from", units::count(left))],
        _ => vec![drawn, logits],
    }
}

/// Rows of the panel that the story takes, as much of it in each as fits.
fn below(area: Rect, story: Vec<String>) -> Vec<String> {
    let most = match area.height {
        0..5 => 0,
        5..8 => 1,
        _ => 3,
    };
    let mut lines: Vec<String> = Vec::new();
    for words in story {
        match lines.last_mut() {
            Some(line) if text::width(line) + 3 + text::width(&words) <= area.width as usize => {
                line.push_str(" · ");
                line.push_str(&words);
            }
            _ => lines.push(words),
        }
    }
    lines.truncate(most);
    lines
}

fn share(p: f32) -> String {
    match p {
        0.0 => "cut".into(),
        p if p < 0.0005 => "<0.1 %".into(),
        p => format!("{:.1} %", p * 100.0),
    }
}

impl Panel for Candidates {
    fn name(&self) -> &'static str {
        "candidates"
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let Some(lane) = seen.lane() else { return Caption::default() };
        let mut facts = vec![Span::styled(format!("entropy {} nats ", units::number(lane.entropy)), theme.soft())];
        if seen.lane_index() > 0 {
            let colour = Style::new().fg(theme.lane(seen.lane_index()));
            facts.push(Span::styled(format!("lane {} ", seen.lane_index()), colour));
        }
        let legend = vec![Span::styled(" p at temperature 1 · logit · p drawn from ", theme.faint())];
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
        let Some(lane) = seen.lane().filter(|l| !l.candidates.is_empty()) else {
            put::note(buf, area, "no candidates before the pass is complete", theme.soft());
            return;
        };
        let with_sampled = area.width >= 44;
        let numbers = PROB + if area.width >= 32 { LOGIT } else { 0 } + if with_sampled { SAMPLED } else { 0 };
        let widest = lane.candidates.iter().map(|c| text::width(&seen.session.spell(c.id))).max().unwrap_or(0) as u16;
        let names = widest.clamp(4, (area.width.saturating_sub(numbers) / 2).max(4));
        let below = below(area, story(lane, seen));
        let whole = area;
        let area = Rect { height: area.height - below.len() as u16, ..area };
        for (y, words) in (area.height..).zip(&below) {
            put::at(buf, whole, 0, y, words, theme.soft());
        }
        let runner_up = lane.pick.and_then(|pick| pick.runner_up);
        let rows = area.height as usize;
        let at = self.at.min(lane.candidates.len() - 1);
        let top = (at + 1).saturating_sub(rows);
        let most = lane.candidates.iter().map(|c| c.prob).fold(0.0, f32::max).max(1e-9);
        for (i, candidate) in lane.candidates.iter().enumerate().skip(top).take(rows) {
            let y = (i - top) as u16;
            let drawn = lane.next == Some(candidate.id);
            if i == at && seen.focused {
                buf.set_style(Rect { y: area.y + y, height: 1, ..area }, theme.row());
            }
            let style = if drawn { theme.accent().add_modifier(Modifier::BOLD) } else { theme.base() };
            let style = if candidate.sampled_prob == 0.0 && !drawn { theme.soft() } else { style };
            let mark = match () {
                () if drawn => "▸",
                () if runner_up == Some(candidate.id) => "▹",
                () => " ",
            };
            put::at(buf, area, 0, y, mark, theme.accent());
            put::at(buf, area, 2, y, &text::fit(&seen.session.spell(candidate.id), names as usize), style);
            let bar_width = area.width.saturating_sub(names + 3 + numbers);
            if bar_width > 2 {
                let fill = if drawn { theme.accent() } else { Style::new().fg(theme.soft) };
                let share = (candidate.prob / most) as f64;
                bar::draw(buf, put::part(area, names + 3, y, bar_width), share, fill, theme.faint());
            }
            let mut end = area.width;
            if with_sampled {
                put::right(buf, area, end, y, &share(candidate.sampled_prob), theme.soft());
                end -= SAMPLED;
            }
            if area.width >= 32 {
                put::right(buf, area, end, y, &format!("{:.2}", candidate.logit), theme.soft());
                end -= LOGIT;
            }
            put::right(buf, area, end, y, &share(candidate.prob), style);
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, _selection: &mut Selection) -> Reply {
        let Some(lane) = seen.lane().filter(|l| !l.candidates.is_empty()) else { return Reply::Ignored };
        let last = lane.candidates.len() - 1;
        let at = self.at.min(last);
        self.at = match action {
            Action::Up => at.saturating_sub(1),
            Action::Down => (at + 1).min(last),
            Action::First => 0,
            Action::Last => last,
            Action::Choose => return Reply::Then(Action::Force(lane.candidates[at].id)),
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn click(&mut self, _x: u16, y: u16, _seen: &Seen, _selection: &mut Selection) -> Reply {
        self.at = y as usize;
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::Up, "choose a candidate"), (Action::Choose, "feed it in the next step instead")]
    }

    fn notes(&self) -> &'static [&'static str] {
        &["▸ drawn  ▹ runner-up  margin: nats that it fell short", "score: logit / temperature + noise (greedy: logit)"]
    }
}
