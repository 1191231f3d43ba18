//! Before the first frame: what is being done, how far it is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::app::App;
use super::layer::popup;
use super::session::Progress;
use super::units;
use super::widget::{bar, put};
use crate::engine::message::State;

/// Done and total in the unit that the work counts in.
fn amounts(progress: &Progress) -> String {
    // Bytes are what comes in millions; tensors and tokens do not.
    let spell = |n: u64| if progress.total >= 1 << 20 { units::bytes(n) } else { units::count(n) };
    match progress.total {
        0 if progress.done == 0 => String::new(),
        0 => units::count(progress.done),
        total => format!("{} of {}", spell(progress.done), spell(total)),
    }
}

pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let theme = &app.theme;
    let inside = popup(area, buf, theme, "attnscope", 52, 6);
    let progress = match (&app.session.progress, &app.session.state) {
        (Some(progress), _) => progress.clone(),
        (None, State::Prefill { done, total }) => {
            Progress { what: "reading the prompt".into(), done: *done as u64, total: *total as u64 }
        }
        (None, _) if app.session.model.is_some() => Progress { what: "the model is ready".into(), done: 0, total: 0 },
        (None, _) => Progress { what: "starting".into(), done: 0, total: 0 },
    };
    put::at(buf, inside, 0, 0, &progress.what, theme.base().add_modifier(Modifier::BOLD));
    put::right(buf, inside, inside.width, 1, &amounts(&progress), theme.soft());
    let share = if progress.total > 0 { progress.done as f64 / progress.total as f64 } else { 0.0 };
    bar::draw(buf, put::part(inside, 0, 2, inside.width), share, theme.accent(), theme.faint());
    let help = app.keymap.key(super::action::Action::Help);
    let quit = app.keymap.key(super::action::Action::Quit);
    put::at(buf, inside, 0, 3, &format!("{help} keys · {quit} quit"), theme.faint());
}
