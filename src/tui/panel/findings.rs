//! What the program noticed by itself: evidence, advice, and the way to the place.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::Span;

use crate::engine::frame::{Finding, FindingKind};
use crate::tui::action::Action;
use crate::tui::asker::Asker;
use crate::tui::panel::{Caption, Panel, Reply};
use crate::tui::seen::{Seen, Selection};
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::tui::widget::put;

#[derive(Default)]
pub struct Findings {
    at: usize,
    count: usize,
    top: usize,
}

fn sign(kind: FindingKind, theme: &Theme) -> (&'static str, Color) {
    match kind {
        FindingKind::MassiveActivation => ("▲", theme.warn),
        FindingKind::AttentionSink => ("◉", theme.accent),
        FindingKind::Divergence => ("≠", theme.warn),
        FindingKind::EndOfText => ("■", theme.good),
        FindingKind::Overflow => ("!", theme.bad),
        FindingKind::LowBudget => ("↓", theme.bad),
        FindingKind::Regret => ("↺", theme.warn),
    }
}

/// Rows for evidence and advice of the chosen finding.
fn detail_rows(area: Rect) -> u16 {
    if area.height >= 8 { (area.height / 2).min(7) } else { 0 }
}

fn chosen<'a>(seen: &Seen<'a>, at: usize) -> Option<&'a Finding> {
    seen.session.findings(seen.at?).nth(at)
}

impl Panel for Findings {
    fn name(&self) -> &'static str {
        "findings"
    }

    fn prepare(&mut self, area: Rect, seen: &Seen, _asker: &mut Asker) {
        self.count = seen.at.map_or(0, |at| seen.session.findings(at).count());
        self.at = self.at.min(self.count.saturating_sub(1));
        let rows = (area.height - detail_rows(area)).max(1) as usize;
        self.top = self.top.min(self.at).max((self.at + 1).saturating_sub(rows));
    }

    fn caption<'a>(&'a self, area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let words = match self.count {
            0 => "none so far ".to_string(),
            n => format!("{} of {n} ", self.at + 1),
        };
        let facts = vec![Span::styled(words, seen.theme.soft())];
        let hint = if self.count > 0 && seen.focused { " enter goes to its place " } else { "" };
        Caption {
            facts: put::whole_spans(facts, area.width as usize),
            legend: put::whole_spans(vec![Span::styled(hint, seen.theme.faint())], area.width as usize),
        }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        if put::waiting(buf, area, seen) {
            return;
        }
        let theme = seen.theme;
        let Some(frame) = seen.at.filter(|_| self.count > 0) else {
            put::note(buf, area, "nothing noticed yet", theme.soft());
            return;
        };
        let detail = detail_rows(area);
        let rows = (area.height - detail) as usize;
        for (i, finding) in seen.session.findings(frame).enumerate().skip(self.top).take(rows) {
            let y = (i - self.top) as u16;
            let here = i == self.at;
            if here {
                buf.set_style(Rect { y: area.y + y, height: 1, ..area }, theme.row());
            }
            let (glyph, colour) = sign(finding.kind, theme);
            put::at(buf, area, 0, y, glyph, Style::new().fg(colour));
            let step = format!("{}", finding.step);
            let list = Rect { width: area.width.saturating_sub(step.len() as u16 + 1), ..area };
            let style = if here { theme.strong() } else { theme.base() };
            put::at(buf, list, 2, y, &text::line(&finding.title), style);
            put::right(buf, area, area.width, y, &step, theme.faint());
        }
        let Some(finding) = chosen(seen, self.at).filter(|_| detail > 0) else { return };
        let width = area.width.max(1) as usize;
        let place = Rect { y: area.y + area.height - detail, height: detail, ..area };
        put::at(buf, place, 0, 0, &"─".repeat(width), theme.faint());
        let evidence = text::wrap(&text::line(&finding.evidence), width).into_iter().map(|l| (l, theme.soft()));
        let advice = text::wrap(&format!("→ {}", text::line(&finding.advice)), width);
        let advice = advice.into_iter().map(|l| (l, theme.base()));
        for (y, (line, style)) in evidence.chain(advice).take(detail as usize - 1).enumerate() {
            put::at(buf, place, 0, y as u16 + 1, &line, style);
        }
    }

    fn act(&mut self, action: Action, seen: &Seen, selection: &mut Selection) -> Reply {
        let Some(last) = self.count.checked_sub(1) else { return Reply::Ignored };
        self.at = match action {
            Action::Up => self.at.saturating_sub(1),
            Action::Down => (self.at + 1).min(last),
            Action::First => 0,
            Action::Last => last,
            Action::Choose => {
                let Some(finding) = chosen(seen, self.at) else { return Reply::Done };
                selection.lane = finding.lane as usize;
                selection.layer = finding.layer.map_or(selection.layer, |l| l as usize);
                selection.head = finding.head.map_or(selection.head, |h| h as usize);
                if let Some(position) = finding.position {
                    (selection.token, selection.key) = (Some(position as usize), position as usize);
                }
                return Reply::Then(Action::At(finding.step));
            }
            _ => return Reply::Ignored,
        };
        Reply::Done
    }

    fn click(&mut self, _x: u16, y: u16, _seen: &Seen, _selection: &mut Selection) -> Reply {
        self.at = (self.top + y as usize).min(self.count.saturating_sub(1));
        Reply::Done
    }

    fn keys(&self) -> &'static [(Action, &'static str)] {
        &[(Action::Up, "choose a finding"), (Action::Choose, "go to its step, layer, head and token")]
    }
}
