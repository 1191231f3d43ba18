//! Recording a pass: each operation becomes launches.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::backend::{CudaBackend, Matrix as Activations, Place, Room};
use super::blas::TERMS;
use super::device::{Arg, Gemm};
use super::memory::Memory;
use super::records::{BF16, F32, STATS, activation};
use super::weights::{Linear, Table};
use crate::backend::alter::Alter;
use crate::backend::cpu::linear::dequantize;
use crate::backend::draw::Draw;
use crate::backend::mixing::{Mix, MixAhead, MixMerge, Source, Sources};
use crate::backend::{Attention, Backend, BackendError, Buf, CacheId, GateUp, LowRank, Matrix, Result, Row, Vector};
use crate::cache::KvType;
use crate::engine::frame::Peaks;
use crate::engine::message::Probes;
use crate::model::config::Activation;
use crate::model::tensor::Tensor;

/// From so many rows on a tile of rows shares what it reads of the weights; below, each kernel is built for its number.
pub(super) const FEW: usize = 16;

/// out[rows, first …] (+)= x[rows] · wᵀ + bias: addresses, and the width of out.
#[derive(Clone, Copy)]
struct Product {
    x: u64,
    rows: usize,
    bias: Option<u64>,
    out: u64,
    width: usize,
    add: bool,
}

/// Which kernel multiplies so many rows with `outs` rows of weights in f32: blocks, and threads of one.
pub(super) fn product_kernel(rows: usize, outs: usize) -> (&'static str, [u32; 3], u32) {
    let few = [outs.div_ceil(4) as u32, 1, 1];
    match rows {
        0..=1 => ("product_1", few, 128),
        2 => ("product_2", few, 128),
        3..=4 => ("product_4", few, 128),
        5..=8 => ("product_8", few, 128),
        9..=FEW => ("product_16", few, 128),
        _ => ("product_many", [outs.div_ceil(64) as u32, rows.div_ceil(64) as u32, 1], 256),
    }
}

impl CudaBackend {
    pub(super) fn at(&self, x: Buf) -> u64 {
        self.buffers[x.0].memory.at(0)
    }

    pub(super) fn width(&self, x: Buf) -> usize {
        self.buffers[x.0].width
    }

    /// Bytes of one activation matrix of the pass.
    fn activation(&self, x: Buf) -> u64 {
        (self.rows.count() * self.width(x) * 4) as u64
    }

    fn vector_at(&self, vector: Option<Vector>) -> Option<u64> {
        vector.map(|vector| self.vectors[vector.0].at(0))
    }

    fn launch_part(&mut self, weights: (u64, i32, usize, usize), first: usize, product: Product) {
        let (at, format, outs, cols) = weights;
        let Product { x, rows, bias, out, width, add } = product;
        let (kernel, [x_blocks, y_blocks, _], block) = product_kernel(rows, outs);
        let few_or_plain = (kernel, [x_blocks as usize, y_blocks as usize, 1], block, 0);
        let (wide, tall) = (outs.div_ceil(128), rows.div_ceil(128));
        let (kernel, grid, block, shared) = match rows {
            // f32 throughout is the reference
            _ if rows <= FEW || self.exact => few_or_plain,
            _ if wide * tall >= self.device.multiprocessors() => ("product_tensor_128", [wide, tall, 1], 256, 65536),
            _ => ("product_tensor_32", [outs.div_ceil(64), rows.div_ceil(32), 1], 128, 24576),
        };
        let bias = bias.map_or(0, |bias| bias + 4 * first as u64);
        let int = |x: usize| Arg::Int(x as i32);
        let args = vec![
            Arg::Pointer(x),
            int(rows),
            int(cols),
            Arg::Pointer(at),
            Arg::Int(format),
            int(outs),
            Arg::Pointer(bias),
            Arg::Pointer(out),
            int(width),
            int(first),
            Arg::Int(i32::from(add)),
        ];
        if rows > 0 {
            self.program.launch(kernel, grid, block, shared, args);
        }
    }

    /// Many rows and weights in BF16: the activations in three terms of BF16, each multiplied by cuBLAS. False where
    /// that is not how it is done: the kernel takes it.
    fn multiply_in_terms(&mut self, part: (u64, i32, usize, usize), first: usize, product: Product) -> bool {
        let (weights, format, outs, inputs) = part;
        let Product { x, rows, bias, out, width, add } = product;
        if rows <= FEW || format != BF16 || bias.is_some() || !self.device.has_products() {
            return false;
        }
        // three halves of a number take one and a half
        let reserved = self.between.terms.reserve(&self.device, (rows * inputs * TERMS).div_ceil(2));
        if self.note(reserved).is_none() {
            return true;
        }
        let (terms, count) = (self.between.terms.at(0), rows * inputs);
        let args = vec![Arg::Pointer(x), Arg::Pointer(terms), Arg::Int(count as i32)];
        self.program.launch("split_bf16", [count.div_ceil(256), 1, 1], 256, 0, args);
        for term in 0..TERMS {
            let (x, out) = (terms + (2 * term * count) as u64, out + 4 * first as u64);
            let (kind, add) = (KvType::BF16, add || term > 0);
            self.program.multiply(Gemm { kind, x, weights, out, rows, inputs, outs, width, add });
        }
        true
    }

    fn product(&mut self, w: Matrix, product: Product) {
        for i in 0..self.matrices[w.0].parts.len() {
            let (part, cols) = (&self.matrices[w.0].parts[i], self.matrices[w.0].cols);
            let (weights, first) = ((part.bytes.at(0), part.format, part.rows, cols), part.first);
            if !self.multiply_in_terms(weights, first, product) {
                self.launch_part(weights, first, product);
            }
        }
    }

    pub(super) fn product_cost(&self, w: Matrix, rows: usize) -> (u64, u64) {
        let w = &self.matrices[w.0];
        let activations = (rows * (w.cols + w.rows) * 4) as u64;
        (w.bytes() + activations, 2 * (rows * w.rows * w.cols) as u64)
    }

    fn multiply(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf, add: bool) {
        self.settle_point();
        let (bytes, flops) = self.product_cost(w, self.rows.count());
        self.program.product(name, bytes, flops);
        let (rows, bias) = (self.rows.count(), self.vector_at(bias));
        self.product(w, Product { x: self.at(x), rows, bias, out: self.at(out), width: self.width(out), add });
    }

    /// Where a residual point goes: statistics (null while the probe is off), copies, the first row copied.
    fn point_args(&self, point: usize) -> [Arg; 3] {
        let (rows, saved) = (self.rows.count(), self.saved_rows());
        let stats = if self.rows.probes.residual { self.grids.residual.at(point * rows * STATS) } else { 0 };
        let copy = self.grids.points.at(point * saved * self.shape.hidden);
        [Arg::Pointer(stats), Arg::Pointer(copy), Arg::Int((rows - saved.min(rows)) as i32)]
    }

    /// A residual point that no norm has taken along gets a kernel of its own.
    pub(super) fn settle_point(&mut self) {
        let Some((x, point)) = self.pending.take() else { return };
        self.program.op("residual probe", self.activation(x), 0);
        let mut args = vec![Arg::Pointer(self.at(x)), Arg::Int(self.width(x) as i32)];
        args.extend(self.point_args(point));
        self.program.launch("row_stats", [self.rows.count(), 1, 1], self.norm_block(), 0, args);
    }

    /// Few rows leave most of a card idle: a row gets more threads then.
    fn norm_block(&self) -> u32 {
        if self.rows.count() <= 64 { 1024 } else { 256 }
    }

    fn gate_up_buffer(&mut self, width: usize) -> Buf {
        match self.gate_up.get(&width) {
            Some(&buffer) => buffer,
            None => {
                let buffer = self.buffer(width);
                self.gate_up.insert(width, buffer);
                buffer
            }
        }
    }
}

impl Backend for CudaBackend {
    fn describe(&self) -> String {
        self.device.describe()
    }

    fn matrix(&mut self, parts: &[&Tensor]) -> Result<Matrix> {
        self.matrices.push(Linear::new(&self.device, parts, self.exact, self.table.as_ref())?);
        Ok(Matrix(self.matrices.len() - 1))
    }

    fn gate_up(&mut self, gate: &Tensor, up: &Tensor) -> Result<Matrix> {
        self.matrix(&[gate, up])
    }

    fn vector(&mut self, parts: &[&Tensor], plus_one: bool) -> Result<Vector> {
        let mut all = Vec::new();
        for part in parts {
            all.extend(dequantize(part)?);
        }
        if plus_one {
            all.iter_mut().for_each(|x| *x += 1.0);
        }
        self.vectors.push(Memory::of(&self.device, &all)?);
        self.host.knows(all);
        Ok(Vector(self.vectors.len() - 1))
    }

    fn numbers(&mut self, values: &[f32]) -> Result<Vector> {
        self.vectors.push(Memory::of(&self.device, values)?);
        self.host.knows(values.to_vec());
        Ok(Vector(self.vectors.len() - 1))
    }

    fn sources(&mut self, of: &[Source]) -> Sources {
        self.sources.push(of.to_vec());
        Sources(self.sources.len() - 1)
    }

    fn table(&mut self, table: &Tensor) -> Result<()> {
        self.table = Some(Table::new(&self.device, table)?);
        Ok(())
    }

    fn weight_bytes(&self) -> u64 {
        let vectors: u64 = self.vectors.iter().map(|vector| vector.len() as u64 * 4).sum();
        let table = self.table.as_ref().map(|table| &table.bytes);
        let shared = |parts: &Linear| table.is_some_and(|t| parts.parts.iter().any(|p| Arc::ptr_eq(&p.bytes, t)));
        let table_alone = if self.matrices.iter().any(shared) { 0 } else { table.map_or(0, |t| t.len() as u64) };
        self.matrices.iter().map(Linear::bytes).sum::<u64>() + vectors + table_alone
    }

    fn buffer(&mut self, width: usize) -> Buf {
        self.buffers.push(Activations { width, memory: Room::default() });
        Buf(self.buffers.len() - 1)
    }

    fn begin(&mut self, rows: &[Row], probes: Probes, keep_queries: Option<CacheId>) -> Result<()> {
        if rows.len() > self.shape.max_rows {
            let why = format!("{} rows, at most {}", rows.len(), self.shape.max_rows);
            return Err(BackendError::Failed { what: "pass".into(), why });
        }
        self.told()?;
        self.program.clear();
        self.forget_fetched();
        self.grids.drawn.clear();
        (self.pending, self.points_seen, self.stream_seen, self.logit_rows) = (None, 0, 0, 0);
        let host_of = |cache: CacheId| match &self.caches[cache.0] {
            Place::Host(host) => Some(*host),
            Place::Device(_) | Place::Freed => None,
        };
        let of_host =
            rows.iter().enumerate().filter_map(|(r, row)| Some((r, Row { cache: host_of(row.cache)?, ..*row })));
        let (of_host, keep) = (of_host.collect(), keep_queries.and_then(host_of));
        self.host.begin(of_host, probes, keep)?;
        self.begin_rows(rows, probes, keep_queries)
    }

    fn in_layer(&mut self, layer: Option<usize>) {
        self.program.layer = layer.map(|layer| layer as u32);
    }

    fn embed(&mut self, scale: f32, out: Buf) {
        let Some(table) = &self.table else { return };
        let (bytes, format) = (table.bytes.at(0), table.format);
        let (rows, width) = (self.rows.count(), self.width(out));
        self.program.op("embed", self.activation(out) * 2, 0);
        let args = vec![
            Arg::Pointer(bytes),
            Arg::Int(format),
            Arg::Int(self.shape.vocab as i32),
            Arg::Int(width as i32),
            Arg::Pointer(self.rows.at.tokens),
            Arg::Float(scale),
            Arg::Pointer(self.at(out)),
        ];
        self.program.launch("embed", [width.div_ceil(8 * 128), rows, 1], 128, 0, args);
    }

    fn fill(&mut self, values: &[f32], out: Buf) {
        self.note(self.buffers[out.0].memory.write(0, values));
    }

    fn residual_point(&mut self, x: Buf, point: usize) {
        let (seen, first) = match point < self.shape.points() {
            true => (&mut self.points_seen, 0),
            false => (&mut self.stream_seen, self.shape.points()),
        };
        *seen = (*seen).max(point + 1 - first);
        self.settle_point();
        let stats = self.point_args(point);
        // the norm that wrote x takes the statistics along
        let (to, count) = (Arg::Pointer(self.at(x)), stats.len());
        if let Some(args) = self.program.newest("add_rms_norm").filter(|args| args[0] == to) {
            let from = args.len() - count;
            args[from..].copy_from_slice(&stats);
        } else {
            self.pending = Some((x, point));
        }
    }

    fn blend(&mut self, out: Buf, keep: f32, x: Buf, by: f32) {
        self.record_blend(out, keep, x, by);
    }

    fn mix(&mut self, mix: &Mix, out: Buf) {
        self.record_mix(mix, out);
    }

    fn mix_ahead(&mut self, ahead: &MixAhead) {
        self.record_ahead(ahead);
    }

    fn mix_merge(&mut self, merge: &MixMerge, out: Buf) {
        self.record_merge(merge, out);
    }

    fn rms_norm(&mut self, x: Buf, weight: Vector, eps: f32, out: Buf) {
        let none = [Arg::Pointer(0), Arg::Pointer(0), Arg::Int(0)];
        let point = match self.pending {
            Some((of, point)) if of == x => {
                self.pending = None;
                self.point_args(point)
            }
            _ => none,
        };
        self.settle_point();
        let cost = self.activation(x);
        self.program.op("norm", 2 * cost, cost);
        let mut args = vec![
            Arg::Pointer(self.at(x)),
            self.vectors[weight.0].arg(),
            Arg::Float(eps),
            Arg::Int(self.width(x) as i32),
            Arg::Pointer(self.at(out)),
        ];
        args.extend(point);
        self.program.launch("rms_norm", [self.rows.count(), 1, 1], self.norm_block(), 0, args);
    }

    fn add_rms_norm(&mut self, x: Buf, y: Buf, weight: Vector, eps: f32) {
        self.settle_point();
        let cost = self.activation(x);
        self.program.op("norm", 3 * cost, cost);
        let args = vec![
            Arg::Pointer(self.at(x)),
            Arg::Pointer(self.at(y)),
            self.vectors[weight.0].arg(),
            Arg::Float(eps),
            Arg::Int(self.width(x) as i32),
            Arg::Pointer(0),
            Arg::Pointer(0),
            Arg::Int(0),
        ];
        self.program.launch("add_rms_norm", [self.rows.count(), 1, 1], self.norm_block(), 0, args);
    }

    fn matmul(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf) {
        self.multiply(name, w, x, bias, out, false);
    }

    fn matmul_add(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf) {
        self.multiply(name, w, x, bias, out, true);
    }

    fn alter(&mut self, x: Buf, rows: Range<usize>, how: Alter) {
        self.settle_point();
        self.record_alter(x, rows, &how);
    }

    fn low_rank(&mut self, change: &Arc<LowRank>, x: Buf, first: usize, out: Buf) {
        self.settle_point();
        let (rows, rank) = (self.rows.count(), change.rank);
        let Some(place) = self.change(change).map_err(|error| self.note(Err::<(), _>(error))).ok() else { return };
        let reserved = self.between.low_rank.reserve(&self.device, rows * rank);
        let (Some(()), known) = (self.note(reserved), &self.changes[place]) else { return };
        let (down, up, cols, outs) = (known.down.at(0), known.up.at(0), self.width(x), change.up.len() / rank.max(1));
        let numbers = change.down.len() + change.up.len();
        let bytes = (4 * numbers) as u64 + self.activation(x) + self.activation(out);
        self.program.op("low rank", bytes, 2 * (rows * numbers) as u64);
        let middle = self.between.low_rank.at(0);
        let to_rank = Product { x: self.at(x), rows, bias: None, out: middle, width: rank, add: false };
        self.launch_part((down, F32, rank, cols), 0, to_rank);
        let back = Product { x: middle, bias: None, out: self.at(out), width: self.width(out), add: true, rows };
        self.launch_part((up, F32, outs, rank), first, back);
    }

    fn gated(&mut self, w: GateUp<'_>, x: Buf, bias: Option<Vector>, act: Activation, out: Buf) {
        let (GateUp { w, changes }, width, rows) = (w, self.width(out), self.rows.count());
        let both = self.gate_up_buffer(2 * width);
        let reserved = self.buffers[both.0].memory.reserve(&self.device, rows * 2 * width);
        if self.note(reserved).is_none() {
            return;
        }
        self.multiply("gate·up", w, x, None, both, false);
        for (change, first) in changes.into_iter().zip([0, width]) {
            change.iter().for_each(|change| self.low_rank(change, x, first, both));
        }
        let cost = self.activation(both);
        self.program.op("activation", cost + self.activation(out), cost);
        let args = vec![
            Arg::Pointer(self.at(both)),
            Arg::Pointer(self.vector_at(bias).unwrap_or(0)),
            Arg::Int(width as i32),
            Arg::Int(activation(act)),
            Arg::Pointer(self.at(out)),
        ];
        self.program.launch("gated", [width.div_ceil(256), rows, 1], 256, 0, args);
    }

    fn attend(&mut self, attention: &Attention, qkv: Buf, out: Buf) {
        self.settle_point();
        self.attend_here(attention, qkv, out);
        if self.host.has_rows() {
            let done = self.attend_on_host(attention, qkv, out);
            self.note(done);
        }
    }

    fn head(&mut self, w: Option<Matrix>, x: Buf, rows: Range<usize>, softcap: Option<f32>) {
        let Some(w) = w else { return };
        self.settle_point();
        let vocab = self.shape.vocab;
        let reserved = self.grids.logits.reserve(&self.device, rows.len() * vocab);
        if self.note(reserved).is_none() {
            return;
        }
        self.logit_rows = rows.len();
        let (bytes, flops) = self.product_cost(w, rows.len());
        self.program.product("head", bytes, flops);
        let x = self.at(x) + (rows.start * self.width(x) * 4) as u64;
        let out = self.grids.logits.at(0);
        self.product(w, Product { x, rows: rows.len(), bias: None, out, width: vocab, add: false });
        if let Some(cap) = softcap {
            let count = rows.len() * vocab;
            self.program.op("softcap", count as u64 * 8, 0);
            let args = vec![Arg::Pointer(out), Arg::Float(cap), Arg::Int(count as i32)];
            self.program.launch("softcap", [count.div_ceil(256), 1, 1], 256, 0, args);
        }
    }

    fn draw(&mut self, w: Matrix, x: Buf, rows: Range<usize>, softcap: Option<f32>, draws: &[Draw]) {
        self.settle_point();
        let recorded = self.record_draw(w, x, rows, softcap, draws);
        self.note(recorded);
    }

    fn fuses_draw(&self) -> bool {
        true
    }

    fn peaks(&mut self) -> Result<Peaks> {
        self.measured_peaks()
    }

    fn card(&self) -> Option<String> {
        self.device.uuid()
    }

    fn run(&mut self) -> Result<()> {
        self.settle_point();
        self.told()?;
        self.carry_out()?;
        self.forget_fetched();
        for cache in self.rows.caches.clone() {
            if let Place::Device(held) = &mut self.caches[cache.0] {
                held.touched();
            }
        }
        Ok(())
    }

    fn load(&mut self, x: Buf, values: &[f32]) -> Result<()> {
        let rows = values.len() / self.width(x).max(1);
        self.begin(&[], Probes { timings: false, ..Probes::default() }, None)?;
        self.rows.all = vec![Row { token: 0, position: 0, turned: 0, cache: CacheId(0) }; rows];
        self.reserve_activations()?;
        self.buffers[x.0].memory.write(0, values)
    }

    fn save_all_points(&mut self, on: bool) {
        self.save_all_points = on;
    }

    fn interrupter(&self) -> Arc<AtomicBool> {
        self.interrupt.clone()
    }
}

impl CudaBackend {
    pub(super) fn carry_out(&mut self) -> Result<()> {
        let timed = self.rows.probes.timings && !self.rows.all.is_empty();
        self.program.run(&self.device, timed, self.rows.count() > FEW, &self.interrupt)
    }
}
