//! Byte-level BPE: words are split off by a pattern, written in GPT-2's alphabet, and merged by rank.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use super::TokenizerError;
use super::alphabet::letters;
use super::merge::{Symbol, merge};
use super::pretokenize::Pretokenizer;
use super::vocab::Vocab;
use crate::model::error::Quoted;

pub(super) struct Bpe {
    /// (left, right) → (rank, whole)
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The token of each byte; a vocabulary may lack bytes that UTF-8 never uses.
    bytes: [Option<u32>; 256],
    letters: [char; 256],
    pretokenizer: Pretokenizer,
}

impl Bpe {
    /// `merges` are places in the vocabulary's file, each holding two pieces with a space between, the best first.
    pub fn new(
        vocab: &Vocab,
        file: &[u8],
        merges: &[Range<usize>],
        pretokenizer: Pretokenizer,
    ) -> Result<Bpe, TokenizerError> {
        let mut ranked = HashMap::with_capacity(merges.len());
        let mut whole = Vec::new();
        for (index, range) in merges.iter().enumerate() {
            let merge = &file[range.clone()];
            let parse = |whole: &mut Vec<u8>| {
                let space = merge.iter().skip(1).position(|byte| *byte == b' ')? + 1;
                let (left, right) = (&merge[..space], &merge[space + 1..]);
                whole.clear();
                whole.extend_from_slice(left);
                whole.extend_from_slice(right);
                Some(((vocab.id(left)?, vocab.id(right)?), vocab.id(whole)?))
            };
            let Some((pair, id)) = parse(&mut whole) else {
                return Err(TokenizerError::Merge { index, merge: Quoted::new(&String::from_utf8_lossy(merge)) });
            };
            ranked.entry(pair).or_insert((index as u32, id));
        }
        let letters = letters();
        let bytes = letters.map(|letter| vocab.id(letter.encode_utf8(&mut [0; 4]).as_bytes()));
        Ok(Bpe { merges: ranked, bytes, letters, pretokenizer })
    }

    pub fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut symbols = Vec::new();
        self.pretokenizer.split(text, |word| self.word(vocab, word, &mut symbols, ids))
    }

    fn word(
        &self,
        vocab: &Vocab,
        word: &str,
        symbols: &mut Vec<Symbol>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if self.pretokenizer.whole_words() {
            let spelled: String = word.bytes().map(|byte| self.letters[byte as usize]).collect();
            if let Some(id) = vocab.id(spelled.as_bytes()) {
                ids.push(id);
                return Ok(());
            }
        }
        symbols.clear();
        for (start, byte) in word.bytes().enumerate() {
            let id = self.bytes[byte as usize].ok_or_else(|| TokenizerError::Unknown(Quoted::new(word)))?;
            symbols.push(Symbol { start, len: 1, id });
        }
        merge(symbols, |left, right| {
            let (rank, id) = self.merges.get(&(left.id, right.id))?;
            Some((Reverse(*rank), *id))
        });
        ids.extend(symbols.iter().map(|symbol| symbol.id));
        Ok(())
    }
}
