//! The same screen without a terminal: a macro drives it, and the screens it asks for are written as text.

use std::io::Write;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::engine::message::{Command, Event};

use super::app::{App, Exit};
use super::guard::Signals;
use super::macro_keys::{self, Player, Turn};
use super::options::{ScreenError, ScreenOptions};
use super::theme::Depth;
use super::{draw, dump};

/// Without a macro: show the screen once the prompt has been read.
const DEFAULT: &str = "<wait:ready><wait:idle>";
const NAP: Duration = Duration::from_millis(5);

fn picture(app: &mut App, area: Rect) -> Buffer {
    let mut buf = Buffer::empty(area);
    draw::draw(app, area, &mut buf);
    app.dirty = false;
    buf
}

fn write(out: &mut dyn Write, name: &str, buf: &Buffer, depth: Depth) -> Result<(), ScreenError> {
    let screen = if depth == Depth::Mono { dump::plain(buf) } else { dump::ansi(buf) };
    let heading = if name.is_empty() { String::new() } else { format!("=== {name} ===\n") };
    write!(out, "{heading}{screen}").and_then(|()| out.flush()).map_err(ScreenError::Output)
}

/// Plays the macro on a screen of `size` cells; writes each `<screen>` and the last one to `out`.
pub fn run_headless(
    options: &ScreenOptions,
    size: (u16, u16),
    commands: Sender<Command>,
    events: Receiver<Event>,
    out: &mut dyn Write,
) -> Result<Exit, ScreenError> {
    let mut app = options.app(commands)?;
    let mut player = match options.player()? {
        Some(player) => player,
        None => Player::new(macro_keys::parse(DEFAULT)?),
    };
    let signals = Signals::watch().map_err(ScreenError::Terminal)?;
    let mut area = Rect::new(0, 0, size.0.clamp(1, 500), size.1.clamp(1, 500));
    let mut last = picture(&mut app, area);
    let exit = loop {
        if signals.raised() {
            break Exit::Interrupted;
        }
        if let Some(exit) = app.exit {
            break exit;
        }
        match events.recv_timeout(NAP) {
            Ok(event) => {
                app.take(event);
                events.try_iter().for_each(|event| app.take(event));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                app.lost("the engine has stopped");
                std::thread::sleep(NAP);
            }
        }
        // Drawing also asks the engine for what the panels need.
        last = picture(&mut app, area);
        match player.play(&mut app)? {
            Turn::Played | Turn::Waiting => {}
            Turn::Size(width, height) => {
                area = Rect::new(0, 0, width, height);
                last = picture(&mut app, area);
            }
            Turn::Screen(name) => write(out, &name, &last, app.theme.depth)?,
            Turn::Over => break Exit::Quit,
        }
    };
    app.asker.send(Command::Quit);
    write(out, "", &last, app.theme.depth)?;
    Ok(exit)
}
