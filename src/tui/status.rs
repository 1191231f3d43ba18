//! The first and the last line of the screen: the model and the views; state, time, speed and the next keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::engine::frame::Frame;
use crate::engine::message::{ModelInfo, State};

use super::action::Action;
use super::app::{App, PACES};
use super::session::Session;
use super::widget::put;
use super::{text, units};

/// Steps that the speed is averaged over.
const SPEED_STEPS: usize = 16;

fn facts(model: &ModelInfo) -> String {
    let id = text::line(&model.id);
    let name = id.rsplit('/').next().unwrap_or(&id).to_string();
    format!(
        "{name}  {} {}L×{}H/{}kv  {} {}  {} ×{}",
        text::line(&model.family),
        model.layers,
        model.heads,
        model.kv_heads,
        text::line(&model.weight_types),
        text::line(&model.precision),
        text::line(&model.device),
        model.threads
    )
}

/// Draws the top line; returns the places of the views' tabs.
pub fn top(app: &App, area: Rect, buf: &mut Buffer) -> Vec<(usize, Rect)> {
    let theme = &app.theme;
    buf.set_style(area, Style::new().bg(theme.raised));
    let x = put::at(buf, area, 0, 0, " attnscope ", theme.accent().add_modifier(Modifier::BOLD));
    let tabs_width: usize = app.views.iter().enumerate().map(|(i, v)| text::width(&tab(i, &v.name))).sum();
    // Room for all names and some facts about the model.
    let whole = area.width as usize > tabs_width + 40;
    let mut places = Vec::new();
    let mut at = if whole { area.width - tabs_width as u16 } else { x };
    let room = if whole { Rect { width: at - 2, ..area } } else { area };
    for (i, view) in app.views.iter().enumerate() {
        let here = i == app.view;
        let shown = if whole || here { tab(i, &view.name) } else { format!(" {} ", i + 1) };
        let style = if here { theme.chosen() } else { theme.soft() };
        let end = put::at(buf, area, at, 0, &shown, style);
        places.push((i, Rect { x: area.x + at, width: end.saturating_sub(at), ..area }));
        at = end;
    }
    if let Some(model) = &app.session.model {
        put::at(buf, room, if whole { x + 1 } else { at + 2 }, 0, &facts(model), theme.soft());
    }
    places
}

fn tab(i: usize, name: &str) -> String {
    format!(" {} {} ", i + 1, name)
}

/// Tokens per second over the last complete steps, from their wall times.
fn speed(frames: &[std::sync::Arc<Frame>]) -> Option<f64> {
    let decoded = frames.iter().rev().filter(|f| f.step > 0 && f.partial.is_none() && f.wall_ns > 0);
    let (mut ns, mut n) = (0u64, 0u64);
    for frame in decoded.take(SPEED_STEPS) {
        ns = ns.saturating_add(frame.wall_ns);
        n += 1;
    }
    (ns > 0).then(|| n as f64 * 1e9 / ns as f64)
}

fn state(session: &Session) -> (String, &'static str) {
    match &session.state {
        _ if session.failed.is_some() => ("failed".into(), "✗"),
        State::Loading => ("loading".into(), "◌"),
        State::Prefill { done, total } => (format!("prompt {done}/{total}"), "▸"),
        State::Paused { why: Some(why) } => (format!("paused: {}", text::line(why)), "‖"),
        State::Paused { why: None } => ("paused".into(), "‖"),
        State::Running => ("running".into(), "▶"),
        State::Finished => ("finished".into(), "■"),
    }
}

/// Draws the bottom line.
pub fn bottom(app: &App, area: Rect, buf: &mut Buffer) {
    let theme = &app.theme;
    buf.set_style(area, Style::new().bg(theme.raised));
    let (words, glyph) = state(&app.session);
    let colour = match app.session.state {
        _ if app.session.failed.is_some() => theme.bad,
        State::Running | State::Prefill { .. } => theme.good,
        State::Loading => theme.warn,
        _ => theme.accent,
    };
    let mut spans =
        vec![Span::styled(format!(" {glyph} {words} "), Style::new().fg(colour).add_modifier(Modifier::BOLD))];
    let seen = app.seen();
    if let (Some(frame), Some(newest)) = (seen.frame(), app.session.frames().last()) {
        if seen.live {
            spans.push(Span::styled(format!("step {} ", frame.step), theme.strong()));
        } else {
            let back = Style::new().fg(theme.warn).add_modifier(Modifier::BOLD);
            spans.push(Span::styled(format!("◀ step {} of {} ", frame.step, newest.step), back));
        }
        let context = app.session.model.as_ref().map_or(0, |m| m.context);
        let room = if context > 0 { format!("/{}", units::count(context as u64)) } else { String::new() };
        spans.push(Span::styled(format!("· {}{room} tok ", seen.positions()), theme.soft()));
        if let Some(partial) = frame.partial {
            spans.push(Span::styled(format!("◐ {partial} sublayers "), Style::new().fg(theme.warn)));
        }
    }
    if let Some(speed) = speed(app.session.frames()) {
        spans.push(Span::styled(format!("· {speed:.0} tok/s "), theme.soft()));
    }
    if PACES[app.pace] > 0 {
        spans.push(Span::styled(format!("· pace {} ms ", PACES[app.pace]), theme.soft()));
    }
    let left: usize = spans.iter().map(|s| text::width(&s.content)).sum();
    put::line(buf, area, 0, &put::whole_spans(spans, area.width as usize));
    let room = (area.width as usize).saturating_sub(left + 1);
    if let Some(notice) = &app.notice {
        put::right(buf, area, area.width, 0, &text::fit(&format!("{notice} "), room), Style::new().fg(theme.warn));
        return;
    }
    let mut hints = String::new();
    for (action, word) in [
        (Action::Help, "help"),
        (Action::StepToken, "next"),
        (Action::ToggleRun, "run"),
        (Action::Back, "back"),
        (Action::FocusNext, "panel"),
        (Action::Palette, "commands"),
        (Action::Quit, "quit"),
    ] {
        let hint = format!("{} {word}  ", app.keymap.key(action));
        if text::width(&hints) + text::width(&hint) > room {
            break;
        }
        hints.push_str(&hint);
    }
    put::right(buf, area, area.width, 0, &hints, theme.soft());
}
