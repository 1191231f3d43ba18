//! Which entries the last rows of a lane attended to above average, for policies that count such rows; and, beside
//! them, what its attentions were last given.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::prelude::*;

use super::inputs::RecentInputs;
use crate::backend::{Backend, CacheId, Result};
use crate::model::decoder::Decoder;
use crate::simd::vectorized;

/// Rows computed again at a time.
const ROWS: u32 = 64;

/// The newest rows, the oldest first. Cheap to clone: rows never change.
#[derive(Clone, Default)]
pub struct History {
    rows: VecDeque<Arc<Row>>,
    most: usize,
    pub inputs: RecentInputs,
}

/// Positions that received at least 1 / (slots seen), as bit sets [layer · H + head][words].
struct Row {
    bits: Vec<u64>,
    words: usize,
}

impl Row {
    fn new(heads: usize, positions: usize) -> Self {
        let words = positions.div_ceil(64);
        Self { bits: vec![0; heads * words], words }
    }

    /// `row`: attention on the slots at `positions`, those that the query sees.
    fn note(&mut self, head: usize, positions: &[u32], row: &[f32]) {
        let average = 1.0 / row.len().max(1) as f32;
        let bits = &mut self.bits[head * self.words..(head + 1) * self.words];
        // nothing has left: slots are positions
        if positions.last().is_some_and(|&last| last as usize + 1 == row.len()) {
            return vectorized(
                #[inline(always)]
                || mark(row, average, bits),
            );
        }
        for (&p, _) in positions.iter().zip(row).filter(|(_, a)| **a >= average) {
            if let Some(word) = bits.get_mut(p as usize / 64) {
                *word |= 1 << (p % 64);
            }
        }
    }

    /// Adds 1 to `counts` [positions] wherever `head` has a mark.
    fn count(&self, head: usize, counts: &mut [u32]) {
        for (&word, counts) in self.bits[head * self.words..(head + 1) * self.words].iter().zip(counts.chunks_mut(64)) {
            let mut rest = word;
            while rest != 0 {
                if let Some(count) = counts.get_mut(rest.trailing_zeros() as usize) {
                    *count += 1;
                }
                rest &= rest - 1;
            }
        }
    }
}

/// Sets bit i where `row[i]` is at least `average`.
#[inline(always)]
fn mark(row: &[f32], average: f32, bits: &mut [u64]) {
    for (word, row) in bits.iter_mut().zip(row.chunks(64)) {
        for (i, &a) in row.iter().enumerate() {
            *word |= ((a >= average) as u64) << i;
        }
    }
}

impl History {
    /// The last `most` rows of a prompt of `prompt` tokens, from the kept queries.
    pub fn of_prompt(
        backend: &dyn Backend,
        decoder: &Decoder,
        cache: CacheId,
        prompt: u32,
        most: usize,
    ) -> Result<Self> {
        let (config, kept) = (decoder.config(), backend.kept_queries());
        let first = prompt.saturating_sub(most as u32).max(kept.start);
        let words = (prompt as usize).div_ceil(64);
        // one head: the marks of all rows [rows][words]
        let of_head = |head: usize| -> Result<Vec<u64>> {
            let (layer, head) = (head / config.heads, head % config.heads);
            let mut bits = Vec::with_capacity((prompt - first) as usize * words);
            let attention = decoder.attention(layer);
            if attention.window.is_some() {
                bits.resize(bits.capacity(), 0);
                return Ok(bits);
            }
            let positions = backend.positions(cache, layer, head * config.kv_heads / config.heads);
            for from in (first..prompt).step_by(ROWS as usize) {
                let rows = from..(from + ROWS).min(prompt);
                let all = backend.rows(cache, attention, head, rows.clone())?;
                for (query, row) in rows.zip(all.chunks_exact(positions.len().max(1))) {
                    let seen = positions.partition_point(|&p| p <= query);
                    let mut marks = Row::new(1, prompt as usize);
                    marks.note(0, &positions[..seen], &row[..seen]);
                    bits.extend(marks.bits);
                }
            }
            Ok(bits)
        };
        let heads: Vec<Vec<u64>> =
            (0..config.layers.len() * config.heads).into_par_iter().map(of_head).collect::<Result<_>>()?;
        let row = |row: usize| {
            let bits = heads.iter().flat_map(|bits| &bits[row * words..(row + 1) * words]).copied().collect();
            Arc::new(Row { bits, words })
        };
        let rows = (0..(prompt - first) as usize).map(row).collect();
        Ok(Self { rows, most, inputs: RecentInputs::default() })
    }

    /// Adds the newest row of `cache`, whose text has `positions` tokens.
    pub fn push(&mut self, backend: &dyn Backend, decoder: &Decoder, cache: CacheId, positions: usize) {
        self.inputs.push();
        if self.most == 0 {
            return;
        }
        let config = decoder.config();
        let mut row = Row::new(config.layers.len() * config.heads, positions);
        for layer in (0..config.layers.len()).filter(|&layer| decoder.attention(layer).window.is_none()) {
            for head in 0..config.heads {
                let held = backend.positions(cache, layer, head * config.kv_heads / config.heads);
                row.note(layer * config.heads + head, held, backend.newest_row(cache, layer, head));
            }
        }
        if self.rows.len() == self.most {
            self.rows.pop_front();
        }
        self.rows.push_back(Arc::new(row));
    }

    /// In how many of the newest `rows` rows each of `positions` was above average; `head` = layer · H + head.
    pub fn counts(&self, head: usize, positions: &[u32], rows: usize) -> Vec<u32> {
        let mut counts = vec![0; positions.last().map_or(0, |&last| last as usize + 1)];
        self.rows.iter().rev().take(rows).for_each(|row| row.count(head, &mut counts));
        positions.iter().map(|&p| counts[p as usize]).collect()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bits.len() as u64 * 8).sum::<u64>() + self.inputs.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_above_average_are_counted_and_old_ones_fall_out_of_the_window() {
        let row = |positions: &[u32], row: &[f32]| {
            let mut bits = Row::new(2, 70);
            bits.note(1, positions, row);
            Arc::new(bits)
        };
        // averages 1/2, 1/3, 1/4
        let rows = [
            row(&[0, 1], &[0.5, 0.5]),
            row(&[0, 1, 68], &[0.2, 0.2, 0.6]),
            row(&[0, 1, 68, 69], &[0.3, 0.1, 0.3, 0.3]),
        ];
        let history = History { rows: rows.into_iter().collect(), most: 3, ..History::default() };
        assert_eq!(history.counts(1, &[0, 1, 68, 69], 3), [2, 1, 2, 1]);
        assert_eq!(history.counts(1, &[0, 68], 1), [1, 1]);
        assert_eq!(history.counts(0, &[0, 500], 3), [0, 0]);
    }
}
