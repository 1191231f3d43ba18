//! Queries kept beside the keys, so that any attention map can be computed again for the pixels on screen.

use std::ops::Range;
use std::sync::Arc;

use super::device::{Arg, Device};
use super::memory::Memory;
use crate::backend::Result;
use crate::cache::{KeptRange, Renewal};

/// Queries after rope of every layer and head, and the log-sum-exp of each attention row, for the newest positions
/// that fit the byte budget. CPU twin: [`crate::cache::Queries`], which keeps f16 unless it is exact; here it is f32.
pub struct DeviceQueries {
    device: Arc<dyn Device>,
    layers: usize,
    heads: usize,
    dim: usize,
    kept: KeptRange,
    /// [layer][capacity][H, D]
    rows: Vec<Memory<f32>>,
    /// [layer][capacity][H], nats
    lse: Vec<Memory<f32>>,
}

impl DeviceQueries {
    /// Nothing is allocated before `reserve`. The first query kept will be that of position `first`.
    pub fn new(device: &Arc<dyn Device>, [layers, heads, dim]: [usize; 3], budget: u64, first: u32) -> Self {
        let kept = KeptRange::new(first, (layers * heads * (dim + 1) * 4) as u64, budget);
        Self { device: device.clone(), layers, heads, dim, kept, rows: Vec::new(), lse: Vec::new() }
    }

    pub fn range(&self) -> Range<u32> {
        self.kept.range()
    }

    pub fn bytes(&self) -> u64 {
        self.kept.bytes()
    }

    /// Forgets positions from `end` on.
    pub fn truncate(&mut self, end: u32) {
        self.kept.truncate(end);
    }

    /// Makes room for `more` positions after the newest; where the budget does not allow it, the oldest go.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        if let Some(renewal) = self.kept.room_for(more) {
            self.resize(renewal)?;
            self.kept.renewed(renewal);
        }
        self.kept.extend(more);
        Ok(())
    }

    /// Layer by layer, so that no more than one layer's memory is held twice.
    fn resize(&mut self, Renewal { drop, capacity }: Renewal) -> Result<()> {
        let held = self.kept.range().len() - drop;
        for layer in 0..self.layers {
            for (all, width) in [(&mut self.rows, self.heads * self.dim), (&mut self.lse, self.heads)] {
                let new = Memory::new(&self.device, capacity * width)?;
                match all.get_mut(layer) {
                    Some(old) => {
                        if held > 0 {
                            self.device.copy(old.at(drop * width), new.at(0), held * width * 4)?;
                        }
                        *old = new;
                    }
                    None => all.push(new),
                }
            }
        }
        Ok(())
    }

    /// Addresses of position 0's queries and log-sum-exps of a layer, whether they are held or not: kernels go from
    /// there. 0 where nothing is held.
    pub fn addresses(&self, layer: usize) -> [u64; 2] {
        let before = |all: &[Memory<f32>], width: usize| {
            all.get(layer).map_or(0, |memory| memory.at(0).wrapping_sub(self.kept.first() as u64 * (width * 4) as u64))
        };
        [before(&self.rows, self.heads * self.dim), before(&self.lse, self.heads)]
    }

    pub fn args(&self, layer: usize) -> [Arg; 2] {
        self.addresses(layer).map(Arg::Pointer)
    }

    fn column(&self, all: &[Memory<f32>], [layer, head, width]: [usize; 3], rows: Range<u32>) -> Result<Vec<f32>> {
        let Some(all) = all.get(layer) else { return Ok(Vec::new()) };
        let each = self.heads * width;
        let found = all.read((rows.start - self.kept.first()) as usize * each, rows.len() * each)?;
        Ok(found.chunks_exact(each).flat_map(|row| &row[head * width..][..width]).copied().collect())
    }

    /// Queries of one head after rope [positions, D].
    pub fn of(&self, layer: usize, head: usize, positions: Range<u32>) -> Result<Vec<f32>> {
        self.column(&self.rows, [layer, head, self.dim], positions)
    }

    /// Log-sum-exps of one head's rows [positions], nats.
    pub fn lse(&self, layer: usize, head: usize, positions: Range<u32>) -> Result<Vec<f32>> {
        self.column(&self.lse, [layer, head, 1], positions)
    }
}
