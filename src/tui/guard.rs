//! The terminal as we found it, whatever happens: raw mode and the alternate screen are left on drop, on panic,
//! and (through the flags that the loop watches) on SIGINT, SIGTERM and SIGHUP.

use std::io::{self, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};

/// Set by a signal that asks us to end. A second signal, or one after the screen was left, ends the process at
/// once as it would have without us.
#[derive(Debug)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    /// From now on the first SIGINT, SIGTERM or SIGHUP only sets the flag.
    pub fn watch() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            // In this order: the first signal finds the flag down.
            signal_hook::flag::register_conditional_default(signal, flag.clone())?;
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Self(flag))
    }

    pub fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a panic on another thread said: it must not be printed over the screen.
pub type Overheard = Arc<Mutex<Option<String>>>;

pub struct Guard {
    active: Arc<AtomicBool>,
    pub overheard: Overheard,
}

fn restore(active: &AtomicBool) {
    if !active.swap(false, Ordering::SeqCst) {
        return;
    }
    // The terminal may be gone (SIGHUP): nothing more can be done about it then.
    let _ = execute!(stdout(), DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

impl Guard {
    pub fn enter(mouse: bool) -> io::Result<Self> {
        let guard = Self { active: Arc::new(AtomicBool::new(true)), overheard: Overheard::default() };
        let (active, overheard) = (guard.active.clone(), guard.overheard.clone());
        let screen = std::thread::current().id();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if active.load(Ordering::SeqCst) && std::thread::current().id() != screen {
                *overheard.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
                return;
            }
            restore(&active);
            before(info);
        }));
        // From here on a failure drops the guard, which undoes what was done.
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
        if mouse {
            execute!(stdout(), EnableMouseCapture)?;
        }
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        restore(&self.active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_only_raises_the_flag() {
        let signals = Signals::watch().unwrap();
        assert!(!signals.raised());
        signal_hook::low_level::raise(signal_hook::consts::SIGHUP).unwrap();
        assert!(signals.raised());
    }
}
