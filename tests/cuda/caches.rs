//! Random ragged caches on a device, and what attention over them gives in f64.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Arg, Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub kv_heads: usize,
    pub group: usize,
    pub dim: usize,
    /// 0 f32, 1 f16, 2 bf16
    pub kv: i32,
    /// 0: none
    pub window: u32,
    /// 0: none
    pub softcap: f32,
    pub offsets: bool,
}

impl Shape {
    /// Numbers of a row's queries, keys and values.
    pub fn qkv(&self) -> usize {
        (self.heads() + 2 * self.kv_heads) * self.dim
    }

    pub fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    /// Logits of some units: neither flat rows nor single peaks.
    pub fn scale(&self) -> f32 {
        4.0 / (self.dim as f32).sqrt()
    }

    pub fn sees(&self, query: u32, key: u32) -> bool {
        key <= query && (self.window == 0 || key as u64 + self.window as u64 > query as u64)
    }
}

pub fn draw(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

pub fn launch(
    device: &Arc<dyn Device>,
    kernel: &'static str,
    grid: [usize; 3],
    block: u32,
    shared: usize,
    args: &[Arg],
) {
    let grid = grid.map(|n| n as u32);
    device.launch(Launch { kernel, grid, block: [block, 1, 1], shared: shared as u32, args }).unwrap();
}

/// Cells as a cache of that type holds them.
fn round(x: &mut [f32], kv: i32) {
    for x in x {
        *x = match kv {
            0 => *x,
            1 => f16::from_f32(*x).to_f32(),
            _ => bf16::from_f32(*x).to_f32(),
        };
    }
}

fn cells(device: &Arc<dyn Device>, x: &[f32], kv: i32) -> Memory<u8> {
    let bytes = x.iter().flat_map(|&x| match kv {
        0 => x.to_le_bytes().to_vec(),
        1 => f16::from_f32(x).to_le_bytes().to_vec(),
        _ => bf16::from_f32(x).to_le_bytes().to_vec(),
    });
    Memory::of(device, &bytes.collect::<Vec<u8>>()).unwrap()
}

/// What one kv head holds, here and on the device.
pub struct Head {
    pub shape: Shape,
    pub capacity: usize,
    pub positions: Vec<u32>,
    /// [len, dim] each
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    /// [len], or empty
    pub offsets: Vec<f32>,
    /// [group, capacity]
    pub received: Vec<f32>,
    key_cells: Memory<u8>,
    value_cells: Memory<u8>,
    position_cells: Memory<u32>,
    received_cells: Memory<f32>,
    row_cells: Memory<f32>,
    offset_cells: Memory<f32>,
}

impl Head {
    /// Some of the positions up to `base`, and all of the `count` that follow.
    pub fn new(device: &Arc<dyn Device>, shape: Shape, base: u32, count: u32, rng: &mut ChaCha8Rng) -> Self {
        let density = [1.0, 0.7, 0.2][rng.random_range(0..3)];
        let mut positions: Vec<u32> = (0..base).filter(|_| rng.random_bool(density)).collect();
        positions.extend(base..base + count);
        let (n, capacity) = (positions.len(), positions.len() + rng.random_range(0..9));
        let (mut keys, mut values) = (draw(rng, capacity * shape.dim), draw(rng, capacity * shape.dim));
        round(&mut keys, shape.kv);
        round(&mut values, shape.kv);
        let (key_cells, value_cells) = (cells(device, &keys, shape.kv), cells(device, &values, shape.kv));
        let offsets = if shape.offsets { draw(rng, n) } else { Vec::new() };
        let received: Vec<f32> = draw(rng, shape.group * capacity).into_iter().map(f32::abs).collect();
        let padded: Vec<u32> = positions.iter().copied().chain(vec![u32::MAX; capacity - n]).collect();
        let row: Vec<f32> = draw(rng, shape.group * capacity);
        Self {
            shape,
            capacity,
            key_cells,
            value_cells,
            position_cells: Memory::of(device, &padded).unwrap(),
            received_cells: Memory::of(device, &received).unwrap(),
            row_cells: Memory::of(device, &row).unwrap(),
            offset_cells: Memory::of(device, &[&offsets[..], &vec![f32::NAN; capacity - offsets.len()]].concat())
                .unwrap(),
            positions,
            keys,
            values,
            offsets,
            received,
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// `Slots` of kernels/scope.cuh.
    pub fn record(&self) -> [u64; 7] {
        let offsets = if self.offsets.is_empty() { 0 } else { self.offset_cells.at(0) };
        let counts = self.len() as u64 | (self.capacity as u64) << 32;
        let [keys, values] = [&self.key_cells, &self.value_cells].map(|cells| cells.at(0));
        let [received, row] = [&self.received_cells, &self.row_cells].map(|cells| cells.at(0));
        [keys, values, self.position_cells.at(0), received, row, offsets, counts]
    }

    pub fn received_now(&self, member: usize) -> Vec<f32> {
        self.received_cells.read(member * self.capacity, self.len()).unwrap()
    }

    pub fn row_now(&self, member: usize) -> Vec<f32> {
        self.row_cells.read(member * self.capacity, self.len()).unwrap()
    }

    /// Keys and values of the first slots, positions and offsets.
    pub fn cells_now(&self, count: usize) -> (Vec<u8>, Vec<u8>, Vec<u32>, Vec<f32>) {
        let bytes = count * self.shape.dim * if self.shape.kv == 0 { 4 } else { 2 };
        let read = |cells: &Memory<u8>| cells.read(0, bytes).unwrap();
        let positions = self.position_cells.read(0, count).unwrap();
        (read(&self.key_cells), read(&self.value_cells), positions, self.offset_cells.read(0, count).unwrap())
    }

    /// Logits of a query over all slots, −∞ where it does not see.
    pub fn logits(&self, query: &[f32], position: u32) -> Vec<f64> {
        let Shape { dim, softcap, .. } = self.shape;
        let of = |t: usize| {
            if !self.shape.sees(position, self.positions[t]) {
                return f64::NEG_INFINITY;
            }
            let dot: f64 = query.iter().zip(&self.keys[t * dim..]).map(|(a, b)| *a as f64 * *b as f64).sum();
            let (s, cap) = (dot * self.shape.scale() as f64, softcap as f64);
            let s = if softcap > 0.0 { cap * (s / cap).tanh() } else { s };
            s + self.offsets.get(t).map_or(0.0, |&offset| offset as f64)
        };
        (0..self.len()).map(of).collect()
    }

    pub fn attend(&self, query: &[f32], position: u32, recent: u32) -> Row {
        let s = self.logits(query, position);
        let most = s.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = s.iter().map(|s| (s - most).exp()).sum();
        let p: Vec<f64> = s.iter().map(|s| (s - most).exp() / sum).collect();
        let mass = |of: &dyn Fn(u32) -> f64| -> f64 { p.iter().zip(&self.positions).map(|(p, &at)| p * of(at)).sum() };
        let entropy = -p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        let first = mass(&|at| (at == 0) as u8 as f64);
        let near = mass(&|at| (at as u64 + recent as u64 > position as u64) as u8 as f64);
        let distance = mass(&|at| position as f64 - at as f64);
        let reductions = [most + sum.ln(), entropy, first, near, distance, p.iter().copied().fold(0.0, f64::max)];
        let dim = self.shape.dim;
        let value = |c: usize| p.iter().enumerate().map(|(t, p)| p * self.values[t * dim + c] as f64).sum();
        Row { out: (0..dim).map(value).collect(), p, reductions }
    }
}

pub struct Row {
    pub p: Vec<f64>,
    /// In the order of `Reduction` in kernels/scope.cuh.
    pub reductions: [f64; 6],
    pub out: Vec<f64>,
}

/// The rows of a pass: runs and positions as kernels take them.
pub struct Pass {
    pub runs: Vec<[i32; 4]>,
    pub positions: Vec<u32>,
}

impl Pass {
    /// From (rows held before, rows, whether queries are kept) of each run.
    pub fn new(runs: &[(u32, u32, bool)]) -> Self {
        let mut pass = Self { runs: Vec::new(), positions: Vec::new() };
        for (i, &(base, count, keeps)) in runs.iter().enumerate() {
            pass.runs.push([pass.positions.len() as i32, count as i32, i as i32, keeps as i32]);
            pass.positions.extend(base..base + count);
        }
        pass
    }

    pub fn rows(&self) -> usize {
        self.positions.len()
    }
}

/// Largest difference of numbers of about one unit.
pub fn far(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    // a NaN is as far as can be
    let apart = |(a, b): (&f32, &f64)| if a.is_nan() { f64::INFINITY } else { (*a as f64 - b).abs() };
    found.iter().zip(expected).map(apart).fold(0.0, f64::max)
}

/// Where reductions are farther apart than f32 explains, given how far those numbers may be: 3e-5 of numbers of about one
/// unit (dot products of up to 256 terms, sums of up to 700 probabilities), of distances so much of the position.
pub fn reductions_far(found: &[f32], expected: &[f64; 6], position: u32) -> bool {
    (0..6).any(|i| {
        let unit = if i == 4 { 1.0 + position as f64 } else { 1.0 };
        far(&found[i..i + 1], &expected[i..i + 1]) > 3e-5 * unit
    })
}

/// Positions that count as recent.
pub const RECENT: u32 = 12;

/// What kernels of attention are given, and what they gave.
pub struct Done {
    pub heads: Vec<Head>,
    pub pass: Pass,
    pub queries: Vec<f32>,
    pub out: Vec<f32>,
    pub reductions: Vec<f32>,
    pub kept: Vec<Memory<f32>>,
}

/// A cache for each run and kv head, and queries for the rows of the pass.
pub fn inputs(
    device: &Arc<dyn Device>,
    shape: Shape,
    runs: &[(u32, u32, bool)],
    seed: u64,
) -> (Vec<Head>, Pass, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pass = Pass::new(runs);
    let caches = runs.iter().flat_map(|&(base, count, _)| (0..shape.kv_heads).map(move |_| (base, count)));
    let heads = caches.map(|(base, count)| Head::new(device, shape, base, count, &mut rng)).collect();
    let queries = draw(&mut rng, pass.rows() * shape.qkv());
    (heads, pass, queries)
}
