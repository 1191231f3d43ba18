//! SentencePiece's BPE as llama.cpp runs it: characters merge into the piece of the best score;
//! what ends up outside the vocabulary falls back to single bytes.

use std::cmp::Ordering;

use super::TokenizerError;
use super::alphabet::SPACE;
use super::merge::{Symbol, merge};
use super::vocab::Vocab;
use crate::model::error::Quoted;

pub(super) struct Spm {
    /// One per piece.
    pub scores: Vec<f32>,
    /// The `<0x..>` tokens.
    pub bytes: [Option<u32>; 256],
    pub unknown: Option<u32>,
}

struct Score(f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Score {}

impl Spm {
    /// Append the ids of `text`, with a space put before it if `space_prefix`.
    pub fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        space_prefix: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut spelled = String::with_capacity(text.len() + text.len() / 4);
        spelled.extend(space_prefix.then_some(SPACE));
        spelled.extend(text.chars().map(|letter| if letter == ' ' { SPACE } else { letter }));
        let bytes = spelled.as_bytes();
        // The id of a symbol is looked up at the end: single characters need not be pieces.
        let mut symbols: Vec<Symbol> =
            spelled.char_indices().map(|(start, letter)| Symbol { start, len: letter.len_utf8(), id: 0 }).collect();
        merge(&mut symbols, |left, right| {
            let len = left.len + right.len;
            if len > vocab.longest() {
                return None;
            }
            let id = vocab.id(&bytes[left.start..left.start + len])?;
            Some((Score(*self.scores.get(id as usize)?), id))
        });
        for symbol in symbols {
            let piece = &bytes[symbol.start..symbol.start + symbol.len];
            match vocab.id(piece) {
                Some(id) => ids.push(id),
                None => self.fall_back(piece, ids)?,
            }
        }
        Ok(())
    }

    fn fall_back(&self, piece: &[u8], ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        for byte in piece {
            let id = self.bytes[*byte as usize].or(self.unknown);
            ids.push(id.ok_or_else(|| TokenizerError::Unknown(Quoted::new(&String::from_utf8_lossy(piece))))?);
        }
        Ok(())
    }
}
