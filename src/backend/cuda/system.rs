//! What the search for libraries asks the machine; tests put another one in its place.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

pub trait System {
    /// A variable of the environment; an empty one counts as none.
    fn var(&self, name: &str) -> Option<OsString>;
    /// Names of what lies in a folder; none where there is no such folder.
    fn list(&self, folder: &Path) -> Vec<String>;
    /// An existing path without links.
    fn real(&self, path: &Path) -> Option<PathBuf>;
    /// Whether the loader finds a library by its name alone, and the file where that can be told, else the name.
    fn load(&self, name: &str) -> Option<PathBuf>;
}

/// The machine that this program runs on.
pub struct ThisMachine;

impl System for ThisMachine {
    fn var(&self, name: &str) -> Option<OsString> {
        env::var_os(name).filter(|value| !value.is_empty())
    }

    fn list(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }

    fn load(&self, name: &str) -> Option<PathBuf> {
        // SAFETY: a library of NVIDIA's, by its own name; what it runs when opened is its own affair.
        let library = unsafe { libloading::Library::new(name) }.ok()?;
        let path = mapped(name).unwrap_or_else(|| name.into());
        // They do not take being unloaded well, and it will be wanted again.
        std::mem::forget(library);
        Some(path)
    }
}

/// The file behind a library of this process. A name leads to a file of a longer one: libcuda.so.1 to
/// libcuda.so.580.65.06.
fn mapped(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let files = || maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let starting = |start: &str| {
        let is = |file: &&Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
        files().find(is).map(Path::to_owned)
    };
    let stem = name.find(".so").map_or(name, |at| &name[..at + 3]);
    starting(name).or_else(|| starting(stem))
}
