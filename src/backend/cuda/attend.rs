//! Attention of one layer: rope and append, then rows that come alone and rows that come together.

use std::time::Instant;

use super::backend::{CudaBackend, Place};
use super::device::Arg;
use super::records::{NORMS, REDUCTIONS, kv};
use crate::backend::{Attention, Buf, Result};

/// Warps of a block of `rope`; tokens and channels of a tile of the prefill kernels.
const WARPS: usize = 4;

impl CudaBackend {
    /// Records the kernels for rows whose caches are on the device.
    pub(super) fn attend_here(&mut self, attention: &Attention, qkv: Buf, out: Buf) {
        if self.rows.runs.is_empty() {
            return;
        }
        let (slots, bytes) = self.visible_slots(attention);
        self.append(attention, qkv);
        let flops = slots * (self.shape.heads / self.shape.kv_heads * 4 * self.shape.head_dim) as u64;
        if self.rows.alone() {
            self.program.op("attention", bytes, flops);
            self.attend_alone(attention, qkv, out);
        }
        if self.rows.together() {
            self.program.op("attention", bytes, flops);
            self.attend_together(attention, qkv, out);
        }
    }

    /// Slots that a layer's attention of this pass touches, all rows and kv heads together, and the bytes of their keys
    /// and values; the rows of a run that follow each other share what they read.
    fn visible_slots(&self, attention: &Attention) -> (u64, u64) {
        let g = self.shape.kv_heads;
        let (mut slots, mut read) = (0, 0);
        for (run, cache) in self.rows.runs.iter().zip(&self.rows.caches) {
            let Place::Device(held) = &self.caches[cache.0] else { continue };
            let window = attention.window.map_or(u64::MAX, |w| w as u64);
            for head in 0..g {
                let before = held.len(self.head_index(attention.layer, head)) as u64;
                slots += (1..=run.count as u64).map(|more| (before + more).min(window)).sum::<u64>();
                read += (before + run.count as u64).min(window.saturating_add(run.count as u64 - 1));
            }
        }
        (slots, read * (2 * self.shape.head_dim * self.shape.kv.bytes()) as u64)
    }

    fn int(x: usize) -> Arg {
        Arg::Int(x as i32)
    }

    /// Address of the layer's first record, and how far apart those of two runs are.
    fn slot_args(&self, layer: usize) -> [Arg; 2] {
        let (l, g) = (self.shape.layers, self.shape.kv_heads);
        [Arg::Pointer(self.rows.at.slots + (layer * g * size_of::<super::records::Slots>()) as u64), Self::int(l * g)]
    }

    /// Address of the layer's first entry in a list of the runs' kept queries or log-sum-exps; null where none are kept.
    fn kept_args(&self, layer: usize, side: usize) -> [Arg; 2] {
        let keeps = self.rows.runs.iter().any(|run| run.queries == 1);
        let at = if keeps { self.rows.at.kept[side] + 8 * layer as u64 } else { 0 };
        [Arg::Pointer(at), Self::int(self.shape.layers)]
    }

    fn reductions(&self, layer: usize) -> Arg {
        self.grids.attention.arg(layer * self.shape.heads * self.rows.count() * REDUCTIONS)
    }

    fn append(&mut self, attention: &Attention, qkv: Buf) {
        let layer = attention.layer;
        let (h, g, d) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        let rows = self.rows.count();
        let cost = (rows * self.buffers[qkv.0].width * 4) as u64;
        self.program.op("rope·append", 2 * cost, cost);
        let (q, k, eps) = match attention.qk_norm {
            Some((q, k, eps)) => (self.vectors[q.0].arg(), self.vectors[k.0].arg(), eps),
            None => (Arg::Pointer(0), Arg::Pointer(0), 0.0),
        };
        let norms = match self.rows.probes.kv_norms {
            true => self.grids.norms.arg(layer * g * rows * NORMS),
            false => Arg::Pointer(0),
        };
        let mut args = vec![self.buffers[qkv.0].memory.arg(0)];
        args.extend([rows, h, g, d].map(Self::int));
        args.extend([self.ropes[attention.rope].arg(), q, k, Arg::Float(eps)]);
        args.extend([self.rows.at.positions, self.rows.at.turned, self.rows.at.runs].map(Arg::Pointer));
        args.extend(self.slot_args(layer));
        args.push(Arg::Int(kv(self.shape.kv)));
        args.extend(self.kept_args(layer, 0));
        args.push(norms);
        let grid = [(h + g).div_ceil(WARPS), self.rows.longest, self.rows.runs.len()];
        self.program.launch("rope", grid, 32 * WARPS as u32, 0, args);
        for (run, cache) in self.rows.runs.iter().zip(&self.rows.caches) {
            let Place::Device(held) = &mut self.caches[cache.0] else { continue };
            let new = &self.rows.all[run.first as usize..][..run.count as usize];
            for head in 0..g {
                held.filled(layer * g + head, new.iter().map(|row| row.position));
            }
        }
    }

    /// What both ways of attending are told first.
    fn common(&self, attention: &Attention, qkv: Buf) -> Vec<Arg> {
        let (h, g, d) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        let mut args = vec![self.buffers[qkv.0].memory.arg(0), Self::int((h + 2 * g) * d)];
        args.push(Arg::Pointer(self.rows.at.runs));
        args.extend(self.slot_args(attention.layer));
        args.push(Arg::Pointer(self.rows.at.positions));
        args.extend([Self::int(h / g), Self::int(d), Arg::Int(kv(self.shape.kv))]);
        args.push(Self::int(attention.window.unwrap_or(0)));
        args.extend([Arg::Float(attention.scale), Arg::Float(attention.softcap.unwrap_or(0.0))]);
        args
    }

    fn attend_alone(&mut self, attention: &Attention, qkv: Buf, out: Buf) {
        let (h, g, d) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        let (runs, splits, layer) = (self.rows.runs.len(), self.rows.splits(), attention.layer);
        let parts = [self.between.stats.arg(0), self.between.partial.arg(0)];
        let mut args = self.common(attention, qkv);
        args.extend([Self::int(self.shape.recent_window), Self::int(splits)]);
        args.extend(parts);
        let grid = [splits, g * (h / g).div_ceil(8), runs];
        self.program.launch("decode_split", grid, 256, 0, args);
        let mut args = vec![Arg::Pointer(self.rows.at.runs)];
        args.extend(self.slot_args(layer));
        args.push(Arg::Pointer(self.rows.at.positions));
        args.extend([h / g, d, attention.window.unwrap_or(0), splits].map(Self::int));
        args.extend(parts);
        args.extend([Self::int(self.rows.count()), self.buffers[out.0].memory.arg(0), self.reductions(layer)]);
        args.extend(self.kept_args(layer, 1));
        self.program.launch("decode_merge", [splits, h, runs], 128, 0, args);
    }

    fn attend_together(&mut self, attention: &Attention, qkv: Buf, out: Buf) {
        let (h, d, layer) = (self.shape.heads, self.shape.head_dim, attention.layer);
        let (runs, rows) = (self.rows.runs.len(), self.rows.count());
        let tile = if d <= 128 { 64 } else { 32 };
        let common = self.common(attention, qkv);
        let mut args = common.clone();
        args.extend([Self::int(rows), Self::int(self.shape.recent_window), self.buffers[out.0].memory.arg(0)]);
        args.extend([self.between.lse.arg(0), self.reductions(layer)]);
        args.extend(self.kept_args(layer, 1));
        let shared = 4 * (2 * tile * (d + 4) + tile * (tile + 4));
        self.program.launch("prefill_attention", [self.rows.longest.div_ceil(tile), h, runs], 256, shared, args);
        let mut args = common;
        args.extend([Self::int(rows), self.between.lse.arg(0)]);
        let grid = [self.rows.most_slots.div_ceil(tile), h, runs];
        self.program.launch("prefill_received", grid, 256, 4 * 2 * tile * (d + 4), args);
    }

    /// What was recorded is carried out; then the CPU attends for the rows of its caches.
    pub(super) fn attend_on_host(&mut self, attention: &Attention, qkv: Buf, out: Buf) -> Result<()> {
        self.carry_out()?;
        let start = Instant::now();
        let (from, to) = (self.buffers[qkv.0].width, self.buffers[out.0].width);
        let all = self.buffers[qkv.0].memory.read(0, self.rows.count() * from)?;
        let mine: Vec<f32> = self.host.rows().iter().flat_map(|&row| &all[row * from..][..from]).copied().collect();
        let found = self.host.attend(attention, &mine)?;
        for (&row, found) in self.host.rows().iter().zip(found.chunks_exact(to.max(1))) {
            self.buffers[out.0].memory.write(row * to, found)?;
        }
        if self.rows.probes.timings {
            self.program.spent("attention (CPU)", start.elapsed());
        }
        Ok(())
    }
}
