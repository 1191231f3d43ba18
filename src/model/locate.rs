//! What `--model` means: a catalog name, a file, a folder, or a repository on the Hugging Face hub.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::catalog::{self, Entry};
use super::embedded::{self, Embedded};
use super::error::Quoted;

/// `hf:owner/name` or `hf:owner/name/FILE.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSpec {
    /// `owner/name`.
    pub repo: String,
    pub file: Option<String>,
}

/// Where a model is, or can be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Path(PathBuf),
    Catalog(&'static Entry),
    Hub(HubSpec),
    /// A part of the program.
    Embedded(&'static Embedded),
}

#[derive(Debug, Error, Diagnostic)]
pub enum LocateError {
    #[error("there is no model {name}, neither in the catalog nor as a file or folder")]
    Unknown {
        name: Quoted,
        #[help]
        help: String,
    },
    #[error("{0} is no hub repository")]
    #[diagnostic(help("write hf:owner/name, or hf:owner/name/FILE.gguf for one file of it"))]
    Hub(Quoted),
}

/// Understand a `--model` argument. Catalog names win over files of the same name; `./name` is always a file.
pub fn resolve(spec: &str) -> Result<Location, LocateError> {
    if let Some(repo) = spec.strip_prefix("hf:") {
        return hub_spec(repo).map(Location::Hub).ok_or_else(|| LocateError::Hub(Quoted::new(spec)));
    }
    if let Some(entry) = catalog::find(spec) {
        return Ok(Location::Catalog(entry));
    }
    if let Some(model) = embedded::find(spec) {
        return Ok(Location::Embedded(model));
    }
    let path = PathBuf::from(spec);
    if path.exists() {
        return Ok(Location::Path(path));
    }
    let names = || catalog::names().collect::<Vec<_>>().join(", ");
    let help = match catalog::nearest(spec) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("the catalog has {}; or give a .gguf file, a folder, or hf:owner/name", names()),
    };
    Err(LocateError::Unknown { name: Quoted::new(spec), help })
}

fn hub_spec(text: &str) -> Option<HubSpec> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() < 2 || !parts.iter().all(|part| is_plain(part)) {
        return None;
    }
    let file = (parts.len() > 2).then(|| parts[2..].join("/"));
    Some(HubSpec { repo: parts[..2].join("/"), file })
}

/// A name that stays where it is put: it becomes part of a path and of an address.
pub(super) fn is_plain(part: &str) -> bool {
    let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
    letters && !part.is_empty() && !part.bytes().all(|b| b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_spec() {
        assert!(matches!(resolve("smollm2-135m").unwrap(), Location::Catalog(e) if e.name == "smollm2-135m"));
        let spec = |repo: &str, file: Option<&str>| {
            Location::Hub(HubSpec { repo: repo.into(), file: file.map(str::to_owned) })
        };
        assert_eq!(resolve("hf:Qwen/Qwen3-0.6B").unwrap(), spec("Qwen/Qwen3-0.6B", None));
        assert_eq!(resolve("hf:a/b/c/d.gguf").unwrap(), spec("a/b", Some("c/d.gguf")));
        for bad in ["hf:", "hf:a", "hf:a/..", "hf:a/b/../c", "hf:a/b?x", "hf:a//b"] {
            assert!(resolve(bad).is_err(), "{bad}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(resolve(path).unwrap(), Location::Path(folder.path().to_owned()));
    }

    #[test]
    fn an_unknown_name_is_told_the_nearest() {
        let help = |name| resolve(name).unwrap_err().help().unwrap().to_string();
        assert_eq!(help("smolm2-135m"), "did you mean smollm2-135m?");
        assert!(help("no-such-thing-at-all.gguf").starts_with("the catalog has "));
    }
}
