//! Reading typed values out of a JSON object.

use serde_json::{Map, Value};

use crate::model::config_check::ConfigError;
use crate::model::error::Quoted;

/// A JSON object of the file; `null` counts as absent, as in transformers.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    pub fn get<T>(
        self,
        key: &str,
        must: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(ConfigError::Value {
                    key: key.to_owned(),
                    found: Quoted::new(&value.to_string()).to_string(),
                    must,
                }),
            },
        }
    }

    pub fn size(self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key, "a non-negative integer", |v| v.as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    pub fn need(self, key: &str, default: Option<usize>) -> Result<usize, ConfigError> {
        self.size(key)?.or(default).ok_or_else(|| ConfigError::Missing(key.to_owned()))
    }

    pub fn float(self, key: &str) -> Result<Option<f32>, ConfigError> {
        self.get(key, "a number", |v| v.as_f64().map(|n| n as f32))
    }

    pub fn bool(self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.get(key, "true or false", Value::as_bool)
    }

    pub fn text(self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(key, "a string", Value::as_str)
    }

    pub fn object(self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        self.get(key, "an object", |v| v.as_object().map(Keys))
    }
}
