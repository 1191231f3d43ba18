//! The terminal.

use std::env::var;
use std::io::{self, IsTerminal};

use super::Section;
use crate::tui::theme::Depth;

pub fn look() -> Section {
    let mut section = Section::new("terminal");
    match io::stdout().is_terminal() {
        true => section.fact("standard output", "a terminal"),
        false => section.fact("standard output", "no terminal: `run` prints a summary"),
    }
    match crossterm::terminal::size() {
        Ok((width, height)) if width >= 80 && height >= 24 => section.fact("size", format!("{width} × {height}")),
        Ok((width, height)) => section.warn("size", format!("{width} × {height}: panels need more to be readable")),
        Err(_) => section.fact("size", "unknown"),
    }
    let colours = match Depth::detect(|name| var(name).ok()) {
        Depth::True => "true colour",
        Depth::Ansi256 => "256 (COLORTERM=truecolor, if the terminal can, makes maps finer)",
        Depth::Ansi16 => "16 (TERM says no more)",
        Depth::Mono => "none (NO_COLOR or TERM=dumb)",
    };
    section.fact("colours", colours);
    section.fact("TERM", var("TERM").unwrap_or_else(|_| "not set".into()));
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| var(name).ok().filter(|v| !v.is_empty()));
    match locale {
        Some(name) if name.to_lowercase().replace('-', "").contains("utf8") => section.fact("locale", name),
        Some(name) => section.warn("locale", format!("{name}: not UTF-8, so maps may be drawn wrong")),
        None => section.warn("locale", "not set: export LANG=C.UTF-8 if maps are drawn wrong"),
    }
    section
}
