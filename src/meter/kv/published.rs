//! Shapes of published models, for comparison: the keys of their `config.json` that make the size of a cache.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::model::kv_shape::KvShape;

/// A model by name.
#[derive(Debug, Deserialize)]
pub struct Published {
    pub name: String,
    /// Where the numbers are from, and what is not in them.
    pub about: String,
    config: Value,
}

impl Published {
    pub fn shape(&self) -> KvShape {
        // our own file, which a test reads whole
        KvShape::from_config(&self.config).unwrap_or_else(|error| panic!("published.json, {}: {error}", self.name))
    }
}

pub static PUBLISHED: LazyLock<Vec<Published>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("published.json")).unwrap_or_else(|error| panic!("published.json: {error}"))
});

pub fn find(name: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|model| model.name == name)
}
