//! Text to token ids and back, from GGUF metadata or `tokenizer.json`.
//!
//! Three kinds: byte-level BPE (`gpt2` in GGUF), SentencePiece's greedy merging with byte fallback (`llama`), and
//! whatever a `tokenizer.json` describes, run by the tokenizers crate.

mod alphabet;
mod bpe;
mod from_gguf;
mod hub;
mod merge;
mod pretokenize;
mod specials;
mod spm;
mod vocab;

use std::borrow::Cow;
use std::collections::HashSet;

use miette::Diagnostic;
use thiserror::Error;

use self::alphabet::Alphabet;
use self::bpe::Bpe;
use self::hub::Hub;
use self::specials::{Fragment, Specials};
use self::spm::Spm;
use self::vocab::Vocab;
use super::error::Quoted;
use super::gguf::GgufError;

/// Why a tokenizer cannot be built, or a text not be encoded.
#[derive(Debug, Error, Diagnostic)]
pub enum TokenizerError {
    #[error("the tokenizer's metadata cannot be used: {0}")]
    Metadata(#[from] GgufError),
    #[error("the tokenizer has no `{0}`")]
    Missing(&'static str),
    #[error("tokenizer {what} {found} is not supported")]
    #[diagnostic(help("give token ids with --ids, or a Hugging Face folder that has a tokenizer.json"))]
    Unsupported { what: &'static str, found: Quoted },
    #[error("the tokenizer's `{key}` has {found} entries for {pieces} pieces")]
    Length { key: &'static str, found: usize, pieces: usize },
    #[error("piece {id} of the vocabulary is not UTF-8")]
    PieceUtf8 { id: usize },
    #[error("merge {index} of the vocabulary, {merge}, names or makes a piece that does not exist")]
    Merge { index: usize, merge: Quoted },
    #[error("tokenizer.json cannot be used: {0}")]
    Json(Quoted),
    #[error("the text holds {0}, for which the vocabulary has no token")]
    Unknown(Quoted),
    #[error("the text holds {piece} (token {id}), which this model has no embedding for")]
    NoEmbedding { piece: Quoted, id: u32 },
    #[error("the text cannot be split into tokens: {0}")]
    Encode(Quoted),
}

/// A vocabulary read from GGUF metadata, and the way to merge its pieces.
struct Native {
    vocab: Vocab,
    /// Tokens that are found in a text as they are written.
    specials: Specials,
    added: HashSet<u32>,
    model: NativeModel,
}

enum NativeModel {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

enum Kind {
    Native(Box<Native>),
    Hub(Box<Hub>),
}

/// Text to ids and back.
pub struct Tokenizer {
    kind: Kind,
    alphabet: Alphabet,
    /// A space stands before the first word of every text, so decoding takes one away.
    space_prefix: bool,
    bos: Option<u32>,
    /// Rows of the embedding table: no id at or above is handed out.
    embeddings: usize,
}

impl Tokenizer {
    /// Ids of `text` and nothing else. `specials` says whether control tokens written out in it, such as
    /// `<|im_start|>`, become those tokens or stay plain text.
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = match &self.kind {
            Kind::Native(native) => native.encode(text, specials, self.space_prefix)?,
            Kind::Hub(hub) => hub.encode(text, specials)?,
        };
        match ids.iter().find(|id| **id as usize >= self.embeddings) {
            Some(&id) => Err(TokenizerError::NoEmbedding { piece: Quoted::new(self.piece(id)), id }),
            None => Ok(ids),
        }
    }

    /// Ids of a prompt as this model expects it: the beginning-of-text token first, where the model wants one.
    pub fn prompt_ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        ids.extend(self.encode(text, true)?);
        Ok(ids)
    }

    /// The token that `prompt_ids` puts first.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The vocabulary's own string for a token (`Ġthe`, `▁the`, `<0x0A>`); empty for an id outside of it.
    pub fn piece(&self, id: u32) -> &str {
        match &self.kind {
            Kind::Native(native) => native.vocab.piece(id),
            Kind::Hub(hub) => hub.piece(id),
        }
    }

    /// Whether the token is a control or added token rather than a piece of text.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Native(native) => native.added.contains(&id),
            Kind::Hub(hub) => hub.is_added(id),
        }
    }

    /// The bytes that this token adds to a text: possibly a part of a character.
    pub fn bytes(&self, id: u32) -> Cow<'_, [u8]> {
        let piece = self.piece(id);
        if self.is_special(id) { Cow::Borrowed(piece.as_bytes()) } else { self.alphabet.bytes(piece) }
    }

    /// What this token adds to a text, with U+FFFD for parts of characters.
    pub fn text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.bytes(id)).into_owned()
    }

    /// The text of several tokens, control tokens written out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        ids.iter().for_each(|id| bytes.extend_from_slice(&self.bytes(*id)));
        let text = if self.space_prefix { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        String::from_utf8_lossy(text).into_owned()
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Native(native) => native.vocab.len(),
            Kind::Hub(hub) => hub.vocab_size(),
        }
    }
}

impl Native {
    fn encode(&self, text: &str, specials: bool, space_prefix: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut after_special = true;
        for fragment in self.specials.split(text, specials)? {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => match &self.model {
                    NativeModel::Bpe(bpe) => bpe.encode(&self.vocab, text, &mut ids)?,
                    NativeModel::Spm(spm) => spm.encode(&self.vocab, text, space_prefix && after_special, &mut ids)?,
                },
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        Ok(ids)
    }
}
