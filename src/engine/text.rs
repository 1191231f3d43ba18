//! The tokenizer as policies see it.

use std::sync::{Arc, Mutex};

use super::view::note;
use crate::backend::BackendError;
use crate::model::tokenizer::Tokenizer;
use crate::policy::part::Text;

/// A tokenizer, and the first thing that it could not do.
pub struct Words<'a> {
    tokenizer: Option<&'a Arc<Tokenizer>>,
    failure: &'a Mutex<Option<BackendError>>,
}

impl<'a> Words<'a> {
    pub fn new(tokenizer: Option<&'a Arc<Tokenizer>>, failure: &'a Mutex<Option<BackendError>>) -> Self {
        Self { tokenizer, failure }
    }
}

impl Text for Words<'_> {
    fn encode(&self, text: &str) -> Vec<u32> {
        let encoded = match self.tokenizer {
            None => Err("the model has no tokenizer".to_owned()),
            Some(tokenizer) => tokenizer.encode(text, false).map_err(|why| why.to_string()),
        };
        encoded.unwrap_or_else(|why| {
            let what = "tokenizing a policy's text".to_owned();
            note(self.failure, BackendError::Failed { what, why });
            Vec::new()
        })
    }

    fn spell(&self, id: u32) -> String {
        self.tokenizer.map(|tokenizer| tokenizer.text(id)).unwrap_or_default()
    }

    fn is_special(&self, id: u32) -> bool {
        self.tokenizer.is_some_and(|tokenizer| tokenizer.is_special(id))
    }
}
