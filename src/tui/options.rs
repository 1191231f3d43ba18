//! How the screen is started, and what can be wrong with that.

use std::io;
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;

use crate::engine::message::Command;

use super::app::App;
use super::keymap::{Keymap, KeymapError};
use super::macro_keys::{self, MacroError, Player};
use super::text;
use super::theme::{Depth, Theme};
use super::view::{self, ViewError};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ScreenError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    #[diagnostic(help("a keys file: [keys], then lines such as \"x\" = \"zoom_in\"; ? lists the actions"))]
    Keymap(#[from] KeymapError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Macro(#[from] MacroError),
    #[error("cannot use the terminal: {0}")]
    #[diagnostic(help("attnscope needs an interactive terminal here; `attnscope trace` and `compare` do not"))]
    Terminal(#[source] io::Error),
    #[error("cannot write the screen: {0}")]
    Output(#[source] io::Error),
}

impl ScreenError {
    /// The user's words or files are wrong (exit code 2), not the run (1).
    pub fn is_usage(&self) -> bool {
        match self {
            ScreenError::View(_) | ScreenError::Keymap(_) => true,
            ScreenError::Macro(error) => !matches!(error, MacroError::Vain(..)),
            ScreenError::Terminal(_) | ScreenError::Output(_) => false,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ScreenOptions {
    /// Name of the first view.
    pub view: Option<String>,
    /// Macro to play: see [`super::macro_keys`].
    pub keys: Option<String>,
    pub mouse: bool,
    /// Colours to use; `None` = what the environment says.
    pub colours: Option<Depth>,
    /// Folder with `keys.toml` and `views/*.toml`; absent files are fine.
    pub config: Option<PathBuf>,
}

/// A file that may be absent.
fn read(path: &Path) -> Result<Option<String>, ViewError> {
    match std::fs::read_to_string(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            Err(ViewError::Read { file: text::line(&path.display().to_string()), message: text::line(&e.to_string()) })
        }
    }
}

impl ScreenOptions {
    fn user_views(&self) -> Result<Vec<(String, String)>, ViewError> {
        let Some(folder) = self.config.as_ref().map(|c| c.join("views")) else { return Ok(Vec::new()) };
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
        paths.sort();
        let files = paths.iter().map(|p| Ok((p.display().to_string(), read(p)?.unwrap_or_default())));
        files.collect()
    }

    pub(super) fn app(&self, commands: Sender<Command>) -> Result<App, ScreenError> {
        let views = view::load(&self.user_views()?)?;
        let first = self.view.as_deref().map(|name| view::find(&views, name)).transpose()?;
        let keymap = match self.config.as_ref().map(|c| read(&c.join("keys.toml"))).transpose()?.flatten() {
            Some(user) => Keymap::with_user(&user)?,
            None => Keymap::default(),
        };
        let depth = self.colours.unwrap_or_else(|| Depth::detect(|name| std::env::var(name).ok()));
        let mut app = App::new(views, keymap, Theme::new(depth), commands);
        app.view = first.unwrap_or(0);
        Ok(app)
    }

    pub(super) fn player(&self) -> Result<Option<Player>, MacroError> {
        Ok(self.keys.as_deref().map(macro_keys::parse).transpose()?.map(Player::new))
    }
}
