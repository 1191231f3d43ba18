//! What `run` and `replay` have in common: options of the screen, and showing it.

use std::io;

use crossbeam_channel::{Receiver, Sender};

use super::settings;
use crate::engine::message::{Command, Event};
use crate::tui::{self, Exit, ScreenError, ScreenOptions};

/// Cells of the screen of `--keys` without a terminal, until the macro says otherwise.
const HEADLESS: (u16, u16) = (160, 48);

#[derive(Debug, clap::Args)]
pub struct ScreenArgs {
    /// The view to begin with (views/*.toml)
    #[arg(long, value_name = "NAME")]
    pub view: Option<String>,
    /// Keys to press, e.g. "n<wait:idle><tab>q"; without a terminal the screens are printed
    #[arg(long, value_name = "MACRO")]
    pub keys: Option<String>,
    /// React to the mouse
    #[arg(long)]
    pub mouse: bool,
}

impl ScreenArgs {
    /// Shows what `events` say, until it is left; without a terminal the screens that the keys bring are printed.
    pub fn show(
        &self,
        terminal: bool,
        commands: Sender<Command>,
        events: Receiver<Event>,
    ) -> Result<Exit, ScreenError> {
        let options = ScreenOptions {
            view: self.view.clone(),
            keys: self.keys.clone(),
            mouse: self.mouse,
            colours: None,
            config: settings::folder(),
        };
        if terminal {
            tui::run(&options, commands, events)
        } else {
            tui::run_headless(&options, HEADLESS, commands, events, &mut io::stdout().lock())
        }
    }
}
