//! What the user has set once and for all, in `config.toml`; and the one place where command line, file and built-in
//! defaults meet.

mod file;
mod keys;
mod resolve;

use std::path::PathBuf;

use directories::ProjectDirs;
use miette::Diagnostic;
use thiserror::Error;

use crate::cache::KvType;
use crate::engine::{Device, LogitRows};

pub use file::init;
pub use keys::{KEYS, Key};
pub use resolve::Resolver;

/// Names another configuration file.
pub const VARIABLE: &str = "ATTNSCOPE_CONFIG";

/// Lanes beside lane 0 where none is named: what most people compare first.
pub const DEFAULT_LANES: [&str; 2] = ["streaming@50%", "snapkv@50%"];

/// What the file says; `None` = nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub model: Option<String>,
    pub device: Option<Device>,
    pub threads: Option<u16>,
    pub kv: Option<KvType>,
    pub queries_budget: Option<u64>,
    pub lanes: Option<Vec<String>>,
    pub view: Option<String>,
    pub mouse: Option<bool>,
    pub regret_above: Option<f32>,
    pub logits: Option<LogitRows>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{file}: {what}")]
pub struct SettingsError {
    file: String,
    what: String,
    #[help]
    help: String,
}

/// The configuration file, whether it is there or not; `None` where this machine has no place for one.
pub fn path() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => ProjectDirs::from("", "", "attnscope").map(|dirs| dirs.config_dir().join("config.toml")),
    }
}

/// Folder of the configuration file, with `keys.toml` and `views/`.
pub fn folder() -> Option<PathBuf> {
    path().and_then(|path| path.parent().map(PathBuf::from))
}
