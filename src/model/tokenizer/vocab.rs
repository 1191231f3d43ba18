//! A vocabulary whose pieces stay in the mapped file: 262,144 pieces cost one table, not as many strings.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

use super::TokenizerError;

const EMPTY: u32 = u32::MAX;

/// Pieces by id and ids by piece. The hash is seeded at random, so that no file can be made to collide.
pub(super) struct Vocab {
    map: Arc<Mmap>,
    spans: Vec<Range<usize>>,
    /// Open addressing with linear probing, at most half full.
    slots: Vec<u32>,
    hasher: RandomState,
    longest: usize,
}

impl Vocab {
    pub fn new(map: Arc<Mmap>, spans: Vec<Range<usize>>) -> Result<Vocab, TokenizerError> {
        if let Some(id) = spans.iter().position(|span| std::str::from_utf8(&map[span.clone()]).is_err()) {
            return Err(TokenizerError::PieceUtf8 { id });
        }
        if spans.len() >= EMPTY as usize {
            return Err(TokenizerError::Length { key: "tokens", found: spans.len(), pieces: EMPTY as usize });
        }
        let longest = spans.iter().map(Range::len).max().unwrap_or(0);
        let slots = vec![EMPTY; (2 * spans.len() + 1).next_power_of_two()];
        let mut vocab = Vocab { map, spans, slots, hasher: RandomState::new(), longest };
        for id in 0..vocab.spans.len() as u32 {
            let slot = vocab.slot(vocab.raw(id));
            // Of two equal pieces the first keeps the name.
            if vocab.slots[slot] == EMPTY {
                vocab.slots[slot] = id;
            }
        }
        Ok(vocab)
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of the longest piece.
    pub fn longest(&self) -> usize {
        self.longest
    }

    fn raw(&self, id: u32) -> &[u8] {
        self.spans.get(id as usize).map_or(&[], |span| &self.map[span.clone()])
    }

    /// The piece, or nothing for an id outside the vocabulary.
    pub fn piece(&self, id: u32) -> &str {
        std::str::from_utf8(self.raw(id)).unwrap_or_default()
    }

    pub fn id(&self, piece: &[u8]) -> Option<u32> {
        let id = self.slots[self.slot(piece)];
        (id != EMPTY).then_some(id)
    }

    /// Where `piece` is, or would be put.
    fn slot(&self, piece: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(piece) as usize & mask;
        while self.slots[slot] != EMPTY && self.raw(self.slots[slot]) != piece {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
