//! Lanes that read a part of their cache: what their steps start with, and how they read the prompt.

use super::core::Core;
use super::error::{EngineError, Result};
use super::frame::Reads;
use super::view::{LaneCaches, Reader, Rows};
use crate::backend::CacheId;
use crate::policy::Policy;
use crate::policy::delta::Sparse;
use crate::policy::reader::Setting;

/// Rows that fit a pass on every machine, and queries from one dense one to the next, at most.
pub const MOST_GAMMA: usize = 64;

/// Covered mass of the rows of a prompt, summed up [L·H].
#[derive(Default)]
pub struct Covered {
    sums: Vec<f64>,
    rows: usize,
}

impl Covered {
    /// `covered` of `rows` further rows [L·H][rows]; nothing where they were read whole.
    pub fn add(&mut self, covered: &[f32], rows: usize) {
        self.sums.resize(self.sums.len().max(covered.len() / rows.max(1)), 0.0);
        for (sum, rows) in self.sums.iter_mut().zip(covered.chunks_exact(rows.max(1))) {
            *sum += rows.iter().map(|&mass| mass as f64).sum::<f64>();
        }
        self.rows += rows;
    }
}

impl Core {
    /// Tokens of the prompt that a lane which reads it sparsely reads at once: dense rows begin each part, and none is
    /// of one row alone, which would be read as a step is.
    pub(super) fn sparse_block(&self, policy: &Policy) -> Option<usize> {
        let gamma = policy.sparse()?.gamma as usize;
        let most = self.max_rows.max(MOST_GAMMA) / gamma;
        let parts = (1..=most).rev().map(|n| n * gamma);
        parts.into_iter().find(|part| self.prompt.len() % part != 1).or(Some(gamma))
    }

    /// What reading the prompt sparsely read of each layer, all rows together: counted, but for the covered mass.
    pub(super) fn sparse_reads(&self, sparse: Sparse, cache: CacheId, covered: &Covered) -> Reads {
        let (config, prompt) = (self.config(), self.prompt.len() as u32);
        let (layers, kv_heads, heads) = (config.layers.len(), config.kv_heads, config.heads);
        let mut reads = Reads { layers, kv_heads, heads, ..Reads::default() };
        for (layer, about) in config.layers.iter().enumerate() {
            let row = |p: u32| about.window.map_or(p as u64 + 1, |window| (p as u64 + 1).min(window as u64));
            let all: u64 = (0..prompt).map(row).sum();
            let part = match about.window {
                None => (0..prompt).map(|position| sparse.entries(position, prompt)).sum(),
                Some(_) => all,
            };
            let held: usize = (0..kv_heads).map(|g| self.backend.positions(cache, layer, g).len()).sum();
            let entry = self.backend.cache_bytes(cache, layer) / held.max(1) as u64;
            let most = |entries: u64| entries.min(u32::MAX as u64) as u32;
            reads.entries.extend(vec![most(part); kv_heads]);
            reads.seen.extend(vec![most(all); kv_heads]);
            reads.bytes.push(part * entry * kv_heads as u64);
            reads.bytes_seen.push(all * entry * kv_heads as u64);
            reads.metadata.push(0);
        }
        reads.covered = covered.sums.iter().map(|sum| (sum / covered.rows as f64) as f32).collect();
        reads.covered.resize(layers * heads, 1.0);
        reads
    }

    /// From here on, the end of the prompt, steps read of `cache` what `policy` chooses. The queries kept are those of
    /// the prompt as this cache read it.
    pub(super) fn start_reading(&mut self, policy: &Policy, cache: CacheId) -> Result<()> {
        if !policy.reads_a_part() {
            return Ok(());
        }
        let (config, prompt) = (self.config(), self.prompt.clone());
        let (layers, kv_heads, head_dim) = (config.layers.len(), config.kv_heads, config.head_dim);
        let setting =
            Setting { prompt: prompt.len(), budget: None, layers, kv_heads, group: config.heads / kv_heads, head_dim };
        let (needed, kept) = (policy.reading_window(prompt.len()).min(prompt.len()), self.backend.kept_queries().len());
        if kept < needed {
            return Err(EngineError::QueriesBudget { spec: policy.spec().to_string(), needed, kept });
        }
        let (facts, tokenizer) = (&self.facts, self.tokenizer.clone());
        let reader = Reader::new(&mut *self.backend, &self.decoder, tokenizer, facts, self.max_rows);
        let next = self.lanes.first().map_or(0, |lane| lane.outlook.all.argmax);
        let readers = policy.readers(setting, &LaneCaches::new(&reader, cache, &prompt, next, Rows::OfQueries));
        reader.finish()?;
        self.backend.set_readers(cache, readers)?;
        Ok(())
    }
}
