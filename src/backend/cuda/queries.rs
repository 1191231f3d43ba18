//! Queries kept beside the keys, so that any attention map can be computed again for the pixels on screen.

use std::ops::Range;
use std::sync::Arc;

use super::device::{Arg, Device};
use super::memory::Memory;
use crate::backend::Result;

/// Queries after rope of every layer and head, and the log-sum-exp of each attention row, for the newest positions
/// that fit the byte budget. CPU twin: [`crate::cache::Queries`], which keeps f16 unless it is exact; here it is f32.
pub struct DeviceQueries {
    device: Arc<dyn Device>,
    layers: usize,
    heads: usize,
    dim: usize,
    first: u32,
    end: u32,
    capacity: usize,
    budget: u64,
    /// [layer][capacity][H, D]
    rows: Vec<Memory<f32>>,
    /// [layer][capacity][H], nats
    lse: Vec<Memory<f32>>,
}

impl DeviceQueries {
    /// Nothing is allocated before `reserve`. The first query kept will be that of position `first`.
    pub fn new(device: &Arc<dyn Device>, [layers, heads, dim]: [usize; 3], budget: u64, first: u32) -> Self {
        let (rows, lse) = (Vec::new(), Vec::new());
        Self { device: device.clone(), layers, heads, dim, first, end: first, capacity: 0, budget, rows, lse }
    }

    fn position_bytes(&self) -> u64 {
        (self.layers * self.heads * (self.dim + 1) * 4) as u64
    }

    pub fn range(&self) -> Range<u32> {
        self.first..self.end
    }

    pub fn bytes(&self) -> u64 {
        self.capacity as u64 * self.position_bytes()
    }

    /// Forgets positions from `end` on.
    pub fn truncate(&mut self, end: u32) {
        self.end = self.end.min(end);
        self.first = self.first.min(self.end);
    }

    /// Makes room for `more` positions after the newest; where the budget does not allow it, the oldest go.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let most = ((self.budget / self.position_bytes().max(1)) as usize).max(more);
        let held = (self.end - self.first) as usize;
        if held + more > self.capacity {
            // a quarter at once: dropping one by one would move everything at every step
            let over = held + more > most;
            let drop = if over { (held + more - most).max(most / 4).min(held) } else { 0 };
            let need = held - drop + more;
            self.resize(drop, (need + (held / 4).clamp(64, 1024)).min(most.max(need)))?;
        }
        self.end += more as u32;
        Ok(())
    }

    /// Layer by layer, so that no more than one layer's memory is held twice.
    fn resize(&mut self, drop: usize, capacity: usize) -> Result<()> {
        let held = (self.end - self.first) as usize - drop;
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
        (self.first, self.capacity) = (self.first + drop as u32, capacity);
        Ok(())
    }

    /// Addresses of position 0's queries and log-sum-exps of a layer, whether they are held or not: kernels go from
    /// there. 0 where nothing is held.
    pub fn addresses(&self, layer: usize) -> [u64; 2] {
        let before = |all: &[Memory<f32>], width: usize| {
            all.get(layer).map_or(0, |memory| memory.at(0).wrapping_sub(self.first as u64 * (width * 4) as u64))
        };
        [before(&self.rows, self.heads * self.dim), before(&self.lse, self.heads)]
    }

    pub fn args(&self, layer: usize) -> [Arg; 2] {
        self.addresses(layer).map(Arg::Pointer)
    }

    fn column(&self, all: &[Memory<f32>], [layer, head, width]: [usize; 3], rows: Range<u32>) -> Result<Vec<f32>> {
        let Some(all) = all.get(layer) else { return Ok(Vec::new()) };
        let each = self.heads * width;
        let found = all.read((rows.start - self.first) as usize * each, rows.len() * each)?;
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
