//! Which entries the last rows of a lane attended to above average, for policies that count such rows.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::{Backend, CacheId, Result};
use crate::model::decoder::Decoder;

/// The newest rows, the oldest first. Cheap to clone: rows never change.
#[derive(Clone, Default)]
pub struct History {
    rows: VecDeque<Arc<Row>>,
    most: usize,
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
        for (&p, _) in positions.iter().zip(row).filter(|(_, a)| **a >= average) {
            if let Some(word) = self.bits[head * self.words..(head + 1) * self.words].get_mut(p as usize / 64) {
                *word |= 1 << (p % 64);
            }
        }
    }

    fn holds(&self, head: usize, position: u32) -> bool {
        let word = position as usize / 64;
        word < self.words && self.bits[head * self.words + word] >> (position % 64) & 1 == 1
    }
}

impl History {
    /// The last `most` rows of a prompt of `prompt` tokens, from the kept queries.
    pub fn of_prompt(
        backend: &mut dyn Backend,
        decoder: &Decoder,
        cache: CacheId,
        prompt: u32,
        most: usize,
    ) -> Result<Self> {
        let (config, kept) = (decoder.config(), backend.kept_queries());
        let first = prompt.saturating_sub(most as u32).max(kept.start);
        let mut rows: Vec<Row> =
            (first..prompt).map(|_| Row::new(config.layers.len() * config.heads, prompt as usize)).collect();
        for layer in 0..config.layers.len() {
            let attention = *decoder.attention(layer);
            if attention.window.is_some() {
                continue;
            }
            for head in 0..config.heads {
                let positions = backend.positions(cache, layer, head * config.kv_heads / config.heads).to_vec();
                let all = backend.rows(cache, &attention, head, first..prompt)?;
                for ((query, note), row) in (first..).zip(&mut rows).zip(all.chunks_exact(positions.len().max(1))) {
                    let seen = positions.partition_point(|&p| p <= query);
                    note.note(layer * config.heads + head, &positions[..seen], &row[..seen]);
                }
            }
        }
        Ok(Self { rows: rows.into_iter().map(Arc::new).collect(), most })
    }

    /// Adds the newest row of `cache`, whose text has `positions` tokens.
    pub fn push(&mut self, backend: &dyn Backend, decoder: &Decoder, cache: CacheId, positions: usize) {
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
        let newest = || self.rows.iter().rev().take(rows);
        positions.iter().map(|&p| newest().filter(|row| row.holds(head, p)).count() as u32).collect()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bits.len() as u64 * 8).sum()
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
        let history = History { rows: rows.into_iter().collect(), most: 3 };
        assert_eq!(history.counts(1, &[0, 1, 68, 69], 3), [2, 1, 2, 1]);
        assert_eq!(history.counts(1, &[0, 68], 1), [1, 1]);
        assert_eq!(history.counts(0, &[0, 500], 3), [0, 0]);
    }
}
