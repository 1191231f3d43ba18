//! A `tokenizer.json`, run by the tokenizers crate.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::alphabet::Alphabet;
use super::{Kind, Tokenizer, TokenizerError};
use crate::model::error::Quoted;

pub(super) struct Hub {
    inner: tokenizers::Tokenizer,
    /// The same, blind to control tokens: made when first asked for.
    plain: OnceLock<tokenizers::Tokenizer>,
    pieces: HashMap<u32, Box<str>>,
    added: HashSet<u32>,
    size: usize,
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`. `embeddings` is the number of tokens that the model can embed.
    pub fn from_json(json: &[u8], embeddings: usize) -> Result<Tokenizer, TokenizerError> {
        contained(|| Self::read_json(json, embeddings))
    }

    fn read_json(json: &[u8], embeddings: usize) -> Result<Tokenizer, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| TokenizerError::Json(quote(&*e)))?;
        inner.with_truncation(None).map_err(|e| TokenizerError::Json(quote(&*e)))?;
        inner.with_padding(None);
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(|e| TokenizerError::Json(quote(&e)))?;
        let byte_level = contains_type(&decoder, "ByteLevel");
        let pieces: HashMap<u32, Box<str>> =
            inner.get_vocab(true).into_iter().map(|(piece, id)| (id, piece.into_boxed_str())).collect();
        let size = pieces.keys().max().map_or(0, |id| *id as usize + 1);
        let added = inner.get_added_tokens_decoder().into_keys().collect();
        let hub = Hub { inner, plain: OnceLock::new(), pieces, added, size };
        Ok(Tokenizer {
            bos: hub.first_of_empty()?,
            kind: Kind::Hub(Box::new(hub)),
            alphabet: if byte_level { Alphabet::ByteLevel } else { Alphabet::Metaspace },
            space_prefix: !byte_level && strips_first_space(&decoder),
            embeddings,
        })
    }
}

impl Hub {
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizerError> {
        contained(|| {
            let tokenizer = if specials { &self.inner } else { self.plain.get_or_init(|| blind(&self.inner)) };
            ids(tokenizer, text, false)
        })
    }

    /// What the post-processor puts before an empty text.
    fn first_of_empty(&self) -> Result<Option<u32>, TokenizerError> {
        Ok(ids(&self.inner, "", true)?.first().copied())
    }

    pub fn piece(&self, id: u32) -> &str {
        self.pieces.get(&id).map_or("", |piece| piece)
    }

    pub fn is_added(&self, id: u32) -> bool {
        self.added.contains(&id)
    }

    pub fn vocab_size(&self) -> usize {
        self.size
    }
}

/// The library panics on some damaged files: an error here.
fn contained<T>(work: impl FnOnce() -> Result<T, TokenizerError>) -> Result<T, TokenizerError> {
    let gave_up = || TokenizerError::Json(Quoted::new("the tokenizers library gave up on this file"));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(gave_up()))
}

fn ids(tokenizer: &tokenizers::Tokenizer, text: &str, whole_prompt: bool) -> Result<Vec<u32>, TokenizerError> {
    let encoding = tokenizer.encode_fast(text, whole_prompt).map_err(|e| TokenizerError::Encode(quote(&*e)))?;
    Ok(encoding.get_ids().to_vec())
}

fn blind(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizer.clone();
    tokenizer.set_encode_special_tokens(true);
    tokenizer
}

fn quote(error: &(dyn std::error::Error + 'static)) -> Quoted {
    Quoted::new(&error.to_string())
}

/// Decoders nest; the tokenizers crate keeps most of their fields to itself, so they are read as JSON.
fn contains_type(decoder: &serde_json::Value, wanted: &str) -> bool {
    decoder["type"] == wanted
        || decoder["decoders"].as_array().is_some_and(|list| list.iter().any(|inner| contains_type(inner, wanted)))
}

fn strips_first_space(decoder: &serde_json::Value) -> bool {
    let here = match decoder["type"].as_str() {
        Some("Strip") => decoder["content"] == " " && decoder["start"].as_u64() > Some(0),
        Some("Metaspace") => decoder["prepend_scheme"].as_str() != Some("never"),
        _ => false,
    };
    here || decoder["decoders"].as_array().is_some_and(|list| list.iter().any(strips_first_space))
}
