//! One drawing of the whole screen: prepare the panels, then draw them, the lines above and below, the popups.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Widget};

use super::app::{App, Places, seen_of};
use super::panel::Panel;
use super::seen::Seen;
use super::{loading, status, text};

/// Below this, panels have no border.
const BORDER: (u16, u16) = (12, 4);

fn inside(place: Rect) -> Rect {
    if place.width < BORDER.0 || place.height < BORDER.1 {
        return place;
    }
    Rect { x: place.x + 1, y: place.y + 1, width: place.width - 2, height: place.height - 2 }
}

/// The border of a panel: its name and facts above, its legend below.
fn frame(panel: &dyn Panel, place: Rect, inner: Rect, buf: &mut Buffer, seen: &Seen) {
    let theme = seen.theme;
    let name = format!(" {} ", panel.name());
    let room = inner.width.saturating_sub(text::width(&name) as u16 + 1);
    let caption = panel.caption(Rect { width: room, ..inner }, seen);
    let style = if seen.focused { theme.chosen() } else { theme.strong() };
    let mut title = vec![Span::styled(name, style), Span::raw(" ")];
    title.extend(caption.facts.spans);
    let border = if seen.focused { theme.accent() } else { theme.faint() };
    let mut block = Block::bordered()
        .border_type(if seen.focused { BorderType::Thick } else { BorderType::Rounded })
        .border_style(border)
        .title(super::widget::put::whole_spans(title, inner.width as usize));
    let mut left = room as usize;
    if !caption.legend.spans.is_empty() {
        left = left.saturating_sub(caption.legend.width());
        block = block.title_bottom(caption.legend);
    }
    if let Some(done) = seen.partial().filter(|_| left > 20) {
        let mark = Style::new().fg(theme.warn).add_modifier(Modifier::BOLD);
        block = block.title_bottom(Line::styled(format!(" ◐ {done} sublayers done "), mark).right_aligned());
    }
    block.render(place, buf);
}

/// Draws everything into `buf` over `area`.
pub fn draw(app: &mut App, area: Rect, buf: &mut Buffer) {
    buf.set_style(area, app.theme.base());
    app.places = Places::default();
    let head = (area.height >= 8) as u16;
    let foot = (area.height >= 3) as u16;
    let body = Rect { y: area.y + head, height: area.height - head - foot, ..area };
    draw_panels(app, body, buf);
    if head == 1 {
        app.places.tabs = status::top(app, Rect { height: 1, ..area }, buf);
    }
    if foot == 1 {
        status::bottom(app, Rect { y: area.bottom() - 1, height: 1, ..area }, buf);
    }
    if app.session.frames().is_empty() && app.session.failed.is_none() {
        loading::draw(app, body, buf);
    }
    let mut layers = std::mem::take(&mut app.layers);
    for layer in &mut layers {
        layer.draw(body, buf, &app.seen());
    }
    app.layers = layers;
}

fn draw_panels(app: &mut App, body: Rect, buf: &mut Buffer) {
    let view = &mut app.views[app.view];
    let mut places = view.arrange(body);
    if app.maximized {
        places = vec![(view.focus, body)];
    } else if !places.iter().any(|(panel, _)| *panel == view.focus) {
        // The size changed and the focused panel is not there any more.
        view.focus = places.first().map_or(0, |(panel, _)| *panel);
    }
    let seen = seen_of(&app.session, &app.timeline, &app.theme, &app.found, &app.selection);
    for &(index, place) in &places {
        let inner = inside(place);
        app.places.panels.push((index, inner));
        if inner.is_empty() {
            continue;
        }
        let seen = Seen { focused: index == view.focus, ..seen };
        let panel = &mut view.panels[index];
        panel.prepare(inner, &seen, &mut app.asker);
        if inner != place {
            frame(&**panel, place, inner, buf, &seen);
        }
        panel.draw(inner, buf, &seen);
    }
}
