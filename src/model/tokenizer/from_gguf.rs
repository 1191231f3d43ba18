//! A tokenizer from GGUF metadata (keys `tokenizer.ggml.…`).

use std::collections::HashSet;

use super::alphabet::{Alphabet, byte_piece};
use super::bpe::Bpe;
use super::pretokenize::Pretokenizer;
use super::specials::Specials;
use super::spm::Spm;
use super::vocab::Vocab;
use super::{Kind, Native, NativeModel, Tokenizer, TokenizerError};
use crate::model::error::Quoted;
use crate::model::gguf::Metadata;

/// ggml's token types that matter here.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;

impl Tokenizer {
    /// `None` where the file has no tokenizer. `embeddings` is the number of tokens that the model can embed.
    pub fn from_gguf(metadata: &Metadata, embeddings: usize) -> Result<Option<Tokenizer>, TokenizerError> {
        let model = match metadata.text("tokenizer.ggml.model")? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some(model) => model,
        };
        let pieces =
            metadata.strings("tokenizer.ggml.tokens")?.ok_or(TokenizerError::Missing("tokenizer.ggml.tokens"))?;
        let types = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !types.is_empty() && types.len() != pieces.len() {
            let key = "tokenizer.ggml.token_type";
            return Err(TokenizerError::Length { key, found: types.len(), pieces: pieces.len() });
        }
        let vocab = Vocab::new(metadata.map().clone(), pieces)?;
        let of_type = |wanted: u64| ids_of(&types, wanted).map(|id| (Box::from(vocab.piece(id)), id)).collect();
        let specials = Specials::new(of_type(CONTROL), of_type(USER_DEFINED));
        let added: HashSet<u32> =
            [UNKNOWN, CONTROL, USER_DEFINED].into_iter().flat_map(|kind| ids_of(&types, kind)).collect();

        let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let (model, alphabet, bos_by_default) = match model {
            "gpt2" => {
                let pretokenizer = Pretokenizer::named(pre)?;
                let merges = metadata
                    .strings("tokenizer.ggml.merges")?
                    .ok_or(TokenizerError::Missing("tokenizer.ggml.merges"))?;
                let bos = pretokenizer.whole_words();
                let bpe = Bpe::new(&vocab, metadata.map(), &merges, pretokenizer)?;
                (NativeModel::Bpe(Box::new(bpe)), Alphabet::ByteLevel, bos)
            }
            "llama" => (NativeModel::Spm(Box::new(spm(metadata, &vocab, &types)?)), Alphabet::Metaspace, true),
            other => {
                let what = "kind";
                return Err(TokenizerError::Unsupported { what, found: Quoted::new(other) });
            }
        };
        let spm = matches!(model, NativeModel::Spm(_));
        let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(bos_by_default);
        let bos = special_id(metadata, "tokenizer.ggml.bos_token_id", vocab.len())?;
        Ok(Some(Tokenizer {
            space_prefix: spm && metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
            bos: bos.filter(|_| add_bos),
            kind: Kind::Native(Box::new(Native { vocab, specials, added, model })),
            alphabet,
            embeddings,
        }))
    }
}

fn ids_of(types: &[u64], wanted: u64) -> impl Iterator<Item = u32> {
    types.iter().enumerate().filter(move |(_, kind)| **kind == wanted).map(|(id, _)| id as u32)
}

fn spm(metadata: &Metadata, vocab: &Vocab, types: &[u64]) -> Result<Spm, TokenizerError> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.floats(key)?.ok_or(TokenizerError::Missing(key))?;
    if scores.len() != vocab.len() {
        return Err(TokenizerError::Length { key, found: scores.len(), pieces: vocab.len() });
    }
    let mut bytes = [None; 256];
    for id in ids_of(types, BYTE) {
        if let Some(byte) = byte_piece(vocab.piece(id)) {
            bytes[byte as usize] = Some(id);
        }
    }
    Ok(Spm { scores, bytes, unknown: special_id(metadata, "tokenizer.ggml.unknown_token_id", vocab.len())? })
}

/// A token that the header names; an id outside the vocabulary counts as none.
fn special_id(metadata: &Metadata, key: &str, pieces: usize) -> Result<Option<u32>, TokenizerError> {
    let id = metadata.unsigned(key)?.filter(|id| *id < pieces as u64);
    Ok(id.and_then(|id| u32::try_from(id).ok()))
}
