//! Why the chosen token stays or goes: in each lane, layer and kv head its score, its rank and what decided.

use std::sync::Arc;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::message::{Answer, Fate, Query, Why as Verdict};
use crate::tui::action::Action;
use crate::tui::asker::{Asked, Asker};
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::theme::Theme;
use crate::tui::widget::{bar, legend, put};
use crate::tui::{judging, text, units};

#[derive(Default)]
pub struct Why {
    /// What the answers are about: history and position.
    key: Option<(u64, usize)>,
    /// [lane]
    asked: Vec<Option<Asked>>,
    answers: Vec<Option<Arc<[Verdict]>>>,
}

/// Mark and colour of a verdict, and the words of the legend.
fn mark(theme: &Theme, verdict: &Verdict) -> (&'static str, Style) {
    let (mark, colour) = match verdict.fate {
        Fate::Stays if verdict.forced => ("◆", theme.accent),
        Fate::Stays => ("●", theme.good),
        Fate::Left => ("○", theme.bad),
        Fate::LeftBefore => ("·", theme.soft),
        Fate::Later | Fate::Undecided => ("●", theme.soft),
    };
    (mark, Style::new().fg(colour))
}

/// What decided, in one sentence.
fn sentence(v: &Verdict) -> String {
    let when = match v.step {
        Some(0) => " · decided after the prompt".into(),
        Some(step) => format!(" · decided after step {step}"),
        None => String::new(),
    };
    let (score, threshold) = (units::number(v.score), units::number(v.threshold));
    let what = match v.fate {
        Fate::Stays if v.forced => format!("protected: it stays whatever its score ({score})"),
        Fate::Stays if v.threshold.is_nan() => format!("score {score}, rank {} of {}: {} stay", v.rank, v.of, v.kept),
        Fate::Stays => {
            format!("score {score}, rank {} of {}: {} stay, the lowest with {threshold}", v.rank, v.of, v.kept)
        }
        Fate::Left if v.threshold.is_nan() => {
            format!("score {score}, rank {} of {}: protected entries take all {} places", v.rank, v.of, v.kept)
        }
        Fate::Left => {
            format!("left: score {score}, rank {} of {}; {} stay, the lowest with {threshold}", v.rank, v.of, v.kept)
        }
        Fate::LeftBefore => "it had left before the newest decision".into(),
        Fate::Later => "it came after the newest decision: kept so far".into(),
        Fate::Undecided => "nothing has been decided here: all entries fit, or policies leave the layer alone".into(),
    };
    format!("{what}{when}")
}

/// As much of a verdict as fits `width` columns.
fn cell(verdict: &Verdict, width: usize) -> String {
    if verdict.rank == 0 {
        return String::new();
    }
    let rank = format!("#{}/{}", verdict.rank, verdict.kept);
    let long = format!("{:>8} {rank}", units::number(verdict.score));
    [long, rank].into_iter().find(|words| text::width(words) + 3 <= width).unwrap_or_default()
}

impl Why {
    fn of(&self, lane: usize) -> Option<&[Verdict]> {
        self.answers.get(lane)?.as_deref()
    }

    /// The named part of the prompt that the token lies in, and what the lane has left of it.
    fn span(&self, seen: &Seen, lane: usize) -> Option<(String, f32)> {
        let frame = seen.frame()?;
        judging::left(&frame.spans, &frame.lanes.get(lane)?.survival, seen.token())
    }

    /// One lane: how many caches hold the token, and by what.
    fn draw_lane(&self, area: Rect, buf: &mut Buffer, seen: &Seen, lane: usize, spec: &str) {
        let theme = seen.theme;
        let chosen = lane == seen.lane_index();
        let colour = Style::new().fg(theme.lane(lane));
        let name = if chosen { colour.add_modifier(Modifier::BOLD) } else { colour };
        let names = (area.width / 3).clamp(12, 44);
        put::at(buf, area, 0, 0, if chosen { "▶" } else { "●" }, colour);
        put::at(buf, area, 2, 0, &text::fit(&format!("{lane} {}", text::line(spec)), names as usize), name);
        let Some(verdicts) = self.of(lane) else { return };
        let held = verdicts.iter().filter(|v| v.held).count();
        let share = held as f64 / verdicts.len().max(1) as f64;
        bar::draw(buf, put::part(area, names + 3, 0, 10), share, colour, theme.faint());
        let count = |fate| verdicts.iter().filter(|v| v.fate == fate).count();
        let protected = verdicts.iter().filter(|v| v.forced).count();
        let mut words = format!("held in {held} of {} caches", verdicts.len());
        for (n, what) in [(protected, "protected in"), (count(Fate::Left) + count(Fate::LeftBefore), "left")] {
            if n > 0 {
                words += &format!(" · {what} {n}");
            }
        }
        if let Some((span, share)) = self.span(seen, lane) {
            let more = format!(" · {span} held {}", units::percent(f64::from(share)));
            let room = area.width.saturating_sub(names + 14) as usize;
            if text::width(&words) + text::width(&more) <= room {
                words += &more;
            }
        }
        put::at(buf, area, names + 14, 0, &words, theme.base());
    }

    /// Layers under each other, kv heads side by side; the chosen layer in sight.
    fn draw_grid(&self, area: Rect, buf: &mut Buffer, seen: &Seen, verdicts: &[Verdict]) {
        let theme = seen.theme;
        let heads = verdicts.iter().take_while(|v| v.layer == verdicts[0].layer).count().max(1);
        let layers = verdicts.len() / heads;
        let width = (area.width.saturating_sub(5) / heads as u16).clamp(2, 28);
        let rows = area.height as usize;
        let chosen = seen.selection.layer.min(layers.saturating_sub(1));
        let from = chosen.saturating_sub(rows / 2).min(layers.saturating_sub(rows));
        for (y, layer) in (from..layers).take(rows).enumerate() {
            let y = y as u16;
            if layer == chosen {
                buf.set_style(Rect { y: area.y + y, height: 1, ..area }, theme.row());
            }
            put::at(buf, area, 0, y, &format!("L{layer}"), if layer == chosen { theme.accent() } else { theme.soft() });
            for (head, verdict) in verdicts[layer * heads..(layer + 1) * heads].iter().enumerate() {
                let x = 5 + head as u16 * width;
                if x + width > area.width {
                    break;
                }
                let (mark, style) = mark(theme, verdict);
                put::at(buf, area, x, y, mark, style);
                let strong = layer == chosen && head == seen.kv_head();
                let words = cell(verdict, width as usize);
                let words_style = if strong {
                    Style::new().fg(theme.text).add_modifier(Modifier::BOLD)
                } else {
                    Style::new().fg(theme.text)
                };
                put::at(buf, area, x + 2, y, &words, words_style);
            }
        }
    }
}

impl Panel for Why {
    fn name(&self) -> &'static str {
        "why"
    }

    fn prepare(&mut self, _area: Rect, seen: &Seen, asker: &mut Asker) {
        let Some(frame) = seen.frame() else { return };
        let key = Some((seen.session.revision, seen.token()));
        if self.key == key {
            return;
        }
        if self.key.map(|(_, position)| position) != Some(seen.token()) {
            self.answers.clear();
        }
        self.key = key;
        let lanes = 0..frame.lanes.len() as u32;
        let position = seen.token() as u32;
        self.asked = lanes.map(|lane| asker.ask(Query::Why { lane, position })).collect();
        self.answers.resize(self.asked.len(), None);
    }

    fn answer(&mut self, asked: Asked, answer: &Answer, _took: Duration) -> bool {
        let Some(lane) = self.asked.iter().position(|a| *a == Some(asked)) else { return false };
        self.answers[lane] = match answer {
            Answer::Why(why) => Some(why.clone()),
            _ => None,
        };
        true
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let theme = seen.theme;
        let token = seen.token();
        let mut facts = vec![
            Span::styled(format!("{} ", seen.spelled(token)), theme.strong()),
            Span::styled(format!("at {token} "), theme.soft()),
        ];
        if let Some((span, _)) = self.span(seen, 0) {
            facts.push(Span::styled(format!("in {span} "), theme.soft()));
        }
        if !seen.live {
            facts.push(Span::styled("· as decided by the newest step ", Style::new().fg(theme.warn)));
        }
        let mut spans = vec![Span::styled(" score #rank/places ", theme.faint())];
        for (glyph, colour, meaning) in [
            ("●", theme.good, "stays"),
            ("◆", theme.accent, "protected"),
            ("○", theme.bad, "left"),
            ("·", theme.soft, "left before"),
        ] {
            spans.extend(legend::key(theme, Style::new().fg(colour), glyph, meaning));
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
        let Some(frame) = seen.frame() else { return };
        let lanes = frame.lanes.len().saturating_sub(1);
        if lanes == 0 {
            put::note(buf, area, "lane 0 keeps everything: start with --lane SPEC to compare", seen.theme.soft());
            return;
        }
        let shown = lanes.min((area.height as usize / 2).max(1));
        let lane = seen.lane_index();
        let first = lane.saturating_sub(shown).min(lanes - shown) + 1;
        for (y, lane) in (first..first + shown).enumerate() {
            let place = Rect { y: area.y + y as u16, height: 1, ..area };
            self.draw_lane(place, buf, seen, lane, &frame.lanes[lane].spec);
        }
        let used = shown as u16;
        if area.height <= used + 1 {
            return;
        }
        let rest = Rect { y: area.y + used, height: area.height - used, ..area };
        let verdicts = self.of(lane).filter(|v| !v.is_empty());
        let Some(verdicts) = verdicts.filter(|_| lane > 0) else {
            let words = if lane == 0 { "lane 0 keeps everything; ) shows the next lane" } else { "asking …" };
            put::note(buf, rest, words, seen.theme.soft());
            return;
        };
        let about =
            verdicts.iter().find(|v| v.layer as usize == seen.selection.layer && v.kv_head as usize == seen.kv_head());
        if let Some(about) = about {
            let (mark, style) = mark(seen.theme, about);
            put::at(buf, rest, 0, 0, mark, style);
            let words = format!("L{} kv head {}: {}", about.layer, about.kv_head, sentence(about));
            put::at(buf, rest, 2, 0, &text::fit(&words, rest.width.saturating_sub(2) as usize), seen.theme.strong());
        }
        let grid = Rect { y: rest.y + 1, height: rest.height - 1, ..rest };
        self.draw_grid(grid, buf, seen, verdicts);
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let last = seen.model().map_or(0, |model| model.layers.saturating_sub(1));
        selection.layer = match action {
            Action::Up => selection.layer.saturating_sub(1),
            Action::Down => (selection.layer + 1).min(last),
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[
            (Action::Left, "another token"),
            (Action::Up, "another layer"),
            (Action::HeadNext, "another head"),
            (Action::LaneNext, "another lane"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(fate: Fate) -> Verdict {
        Verdict {
            layer: 3,
            kv_head: 1,
            held: fate == Fate::Stays,
            fate,
            step: Some(0),
            score: 0.25,
            rank: 7,
            of: 20,
            kept: 10,
            threshold: 0.125,
            forced: false,
        }
    }

    #[test]
    fn the_sentence_says_what_decided() {
        assert_eq!(
            sentence(&verdict(Fate::Stays)),
            "score 0.250, rank 7 of 20: 10 stay, the lowest with 0.125 · decided after the prompt"
        );
        let left = Verdict { step: Some(4), rank: 15, ..verdict(Fate::Left) };
        assert_eq!(
            sentence(&left),
            "left: score 0.250, rank 15 of 20; 10 stay, the lowest with 0.125 · decided after step 4"
        );
        let forced = Verdict { forced: true, ..verdict(Fate::Stays) };
        assert!(sentence(&forced).starts_with("protected"));
    }

    #[test]
    fn narrow_cells_drop_the_score_then_the_rank() {
        let verdict = verdict(Fate::Stays);
        assert_eq!(cell(&verdict, 24), "   0.250 #7/10");
        assert_eq!(cell(&verdict, 10), "#7/10");
        assert_eq!(cell(&verdict, 4), "");
        assert_eq!(cell(&Verdict { rank: 0, ..verdict }, 24), "");
    }
}
