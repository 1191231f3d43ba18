//! The loop: keys and events in, drawings out. It waits for nothing but the next of them.

use std::io::stdout;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select, unbounded};
use crossterm::event::{Event as Input, KeyEventKind, MouseButton, MouseEventKind};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Position;

use crate::engine::message::{Command, Event};

use super::app::{App, Exit};
use super::draw;
use super::guard::{Guard, Signals};
use super::macro_keys::{Player, Turn};
use super::options::{ScreenError, ScreenOptions};

/// Shortest time between two drawings.
const FRAME: Duration = Duration::from_millis(16);
/// Longest sleep: signals and macros are looked at this often.
const NAP: Duration = Duration::from_millis(40);
/// Events taken before the next drawing at most, so that a flood cannot freeze the screen.
const GULP: usize = 4096;

/// Reads the terminal on its own thread until told to stop.
fn listen(stop: Arc<AtomicBool>) -> Receiver<Input> {
    let (sender, receiver) = unbounded();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match crossterm::event::poll(Duration::from_millis(100)) {
                Ok(false) => {}
                Ok(true) => match crossterm::event::read() {
                    Ok(input) => {
                        if sender.send(input).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                Err(_) => return,
            }
        }
    });
    receiver
}

fn input(app: &mut App, input: Input) {
    match input {
        Input::Key(key) if key.kind != KeyEventKind::Release => app.key(key),
        Input::Paste(words) => app.paste(&words),
        Input::Resize(..) => app.dirty = true,
        Input::Mouse(mouse) => {
            let at = Position::new(mouse.column, mouse.row);
            match mouse.kind {
                MouseEventKind::Down(MouseButton::Left) => app.click(at),
                MouseEventKind::ScrollDown => app.scroll(at, true),
                MouseEventKind::ScrollUp => app.scroll(at, false),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Shows the run on this terminal until the user leaves.
pub fn run(options: &ScreenOptions, commands: Sender<Command>, events: Receiver<Event>) -> Result<Exit, ScreenError> {
    let mut app = options.app(commands)?;
    let mut player = options.player()?;
    let signals = Signals::watch().map_err(ScreenError::Terminal)?;
    let guard = Guard::enter(options.mouse).map_err(ScreenError::Terminal)?;
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout())).map_err(ScreenError::Terminal)?;
    let stop = Arc::new(AtomicBool::new(false));
    let keys = listen(stop.clone());
    let result = turn_around(&mut app, player.as_mut(), &mut terminal, &signals, &guard, keys, events);
    stop.store(true, Ordering::Relaxed);
    app.asker.send(Command::Quit);
    drop(guard);
    result
}

fn turn_around(
    app: &mut App,
    mut player: Option<&mut Player>,
    terminal: &mut Terminal<CrosstermBackend<std::io::Stdout>>,
    signals: &Signals,
    guard: &Guard,
    keys: Receiver<Input>,
    mut events: Receiver<Event>,
) -> Result<Exit, ScreenError> {
    let mut drawn: Option<Instant> = None;
    loop {
        if signals.raised() {
            return Ok(Exit::Interrupted);
        }
        if let Some(exit) = app.exit {
            return Ok(exit);
        }
        let since = drawn.map_or(FRAME, |at| at.elapsed());
        if app.dirty && since >= FRAME {
            app.dirty = false;
            terminal.draw(|frame| draw::draw(app, frame.area(), frame.buffer_mut())).map_err(ScreenError::Terminal)?;
            drawn = Some(Instant::now());
        }
        if let Some(hand) = player.as_deref_mut().filter(|_| !app.dirty) {
            match hand.play(app)? {
                Turn::Over => player = None,
                // Sizes and pictures are for runs without a terminal.
                Turn::Played | Turn::Waiting | Turn::Size(..) | Turn::Screen(_) => {}
            }
        }
        let patience = if app.dirty { FRAME.saturating_sub(since) } else { NAP };
        select! {
            recv(keys) -> got => match got {
                Ok(key) => input(app, key),
                // The terminal is gone.
                Err(_) => return Ok(Exit::Interrupted),
            },
            recv(events) -> got => match got {
                Ok(event) => {
                    app.take(event);
                    events.try_iter().take(GULP).for_each(|event| app.take(event));
                }
                Err(_) => {
                    let heard = guard.overheard.lock().unwrap_or_else(PoisonError::into_inner).take();
                    app.lost(&heard.unwrap_or_else(|| "the engine has stopped".into()));
                    events = never();
                }
            },
            default(patience) => {}
        }
        keys.try_iter().for_each(|key| input(app, key));
    }
}
