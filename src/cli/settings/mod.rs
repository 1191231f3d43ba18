//! What the user has set once and for all.

use std::path::PathBuf;

use directories::ProjectDirs;

/// Folder of the configuration, with `keys.toml` and `views/`.
pub fn folder() -> Option<PathBuf> {
    ProjectDirs::from("", "", "attnscope").map(|dirs| dirs.config_dir().to_owned())
}
