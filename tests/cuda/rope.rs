//! kernels/rope.cu

use std::sync::Arc as Shared;

use attnscope::backend::cuda::device::{Arg, Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use half::{bf16, f16};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::emulator;

#[derive(Debug, Clone)]
struct Shape {
    kv_heads: usize,
    group: usize,
    dim: usize,
    /// 0 f32, 1 f16, 2 bf16
    kv: i32,
    normed: bool,
    /// Rows of each run, and whether its queries are kept.
    runs: Vec<(usize, bool)>,
    block: u32,
    norms: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let dim = prop_oneof![1usize..=40, 1usize..=256].prop_map(|half| 2 * half);
    let runs = prop::collection::vec((1usize..=4, any::<bool>()), 1..=4);
    let rest = (0i32..3, any::<bool>(), prop_oneof![Just(32u32), Just(96), Just(128)], any::<bool>());
    (1usize..=3, 1usize..=4, dim, runs, rest).prop_map(|(kv_heads, group, dim, runs, (kv, normed, block, norms))| {
        Shape { kv_heads, group, dim, kv, normed, runs, block, norms }
    })
}

/// What one kv head has before the pass; whether it holds keys and values, or offsets.
struct Held {
    len: usize,
    capacity: usize,
    has: [bool; 3],
    keys: Memory<u8>,
    values: Memory<u8>,
    positions: Memory<u32>,
    received: Memory<f32>,
    row: Memory<f32>,
    offsets: Memory<f32>,
}

const BEFORE: f32 = 7.5;

impl Held {
    fn new(device: &Shared<dyn Device>, shape: &Shape, count: usize, rng: &mut ChaCha8Rng) -> Self {
        let len = rng.random_range(0..20) + count;
        let capacity = len + rng.random_range(0..5);
        let cells = vec![0x3cu8; capacity * shape.dim * cell(shape.kv)];
        let sums = vec![BEFORE; capacity * shape.group];
        // keys or values that another layer has are rare
        let has = [rng.random_bool(0.8), rng.random_bool(0.8), rng.random_bool(0.5)];
        Self {
            len,
            capacity,
            has,
            keys: Memory::of(device, &cells).unwrap(),
            values: Memory::of(device, &cells).unwrap(),
            positions: Memory::of(device, &vec![u32::MAX; capacity]).unwrap(),
            received: Memory::of(device, &sums).unwrap(),
            row: Memory::of(device, &sums).unwrap(),
            offsets: Memory::of(device, &vec![BEFORE; capacity]).unwrap(),
        }
    }

    /// `Slots` of kernels/scope.cuh.
    fn record(&self) -> [u64; 7] {
        let [keys, values, offsets] = [
            if self.has[0] { self.keys.at(0) } else { 0 },
            if self.has[1] { self.values.at(0) } else { 0 },
            if self.has[2] { self.offsets.at(0) } else { 0 },
        ];
        let counts = self.len as u64 | (self.capacity as u64) << 32;
        [keys, values, self.positions.at(0), self.received.at(0), self.row.at(0), offsets, counts]
    }
}

fn cell(kv: i32) -> usize {
    if kv == 0 { 4 } else { 2 }
}

/// Numbers of a cache, as stored.
fn numbers(cells: &Memory<u8>, kv: i32) -> Vec<f32> {
    let bytes = cells.read(0, cells.len()).unwrap();
    let number = |b: &[u8]| match kv {
        0 => f32::from_le_bytes(b.try_into().unwrap()),
        1 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        _ => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    };
    bytes.chunks(cell(kv)).map(number).collect()
}

/// As a cache of that type rounds it.
fn stored(x: f32, kv: i32) -> f32 {
    match kv {
        0 => x,
        1 => f16::from_f32(x).to_f32(),
        _ => bf16::from_f32(x).to_f32(),
    }
}

/// A head before and after the turn, in f64, but for its angles: an angle in f32 is what is meant.
fn turned(x: &[f32], weight: Option<&[f32]>, eps: f32, position: u32, frequencies: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (n, half) = (x.len(), x.len() / 2);
    let mean = x.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / n as f64;
    let scale = |i: usize| weight.map_or(1.0, |w| w[i] as f64 / (mean + eps as f64).sqrt());
    let before: Vec<f64> = x.iter().enumerate().map(|(i, &x)| x as f64 * scale(i)).collect();
    let mut after = before.clone();
    for i in 0..half {
        let (sine, cosine) = ((position as f32 * frequencies[i]) as f64).sin_cos();
        after[i] = before[i] * cosine - before[i + half] * sine;
        after[i + half] = before[i + half] * cosine + before[i] * sine;
    }
    (before, after)
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// f32: the root of a sum of up to 512 squares in 16 terms a lane, a handful of products; sine and cosine to 2 units
/// in the last place, of pairs that may cancel. `unit`: the size of what was added up.
fn near(found: f32, expected: f64, unit: f64) -> bool {
    (found as f64 - expected).abs() <= 2e-6 * unit + 1e-12
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn heads_are_turned_and_held(shape in shapes(), eps in 1e-6f32..1e-3, far in any::<bool>(), seed: u64) {
        let device = emulator::device(&["rope"]);
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let Shape { kv_heads, group, dim, kv, .. } = shape;
        let (heads, rows) = (kv_heads * group, shape.runs.iter().map(|run| run.0).sum::<usize>());
        let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-3.0f32..3.0)).collect::<Vec<f32>>();
        let width = (heads + 2 * kv_heads) * dim;
        let (x, q_weight, k_weight) = (draw(rows * width), draw(dim), draw(dim));
        let frequencies: Vec<f32> = (0..dim / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / dim as f32)).collect();
        // runs, one record behind the heads of each that nothing may touch, and what is kept of their queries
        let (mut runs, mut held, mut kept, mut positions, mut turns) = (vec![], vec![], vec![], vec![], vec![]);
        for (i, &(count, keeps)) in shape.runs.iter().enumerate() {
            runs.push([positions.len() as i32, count as i32, i as i32, keeps as i32]);
            let start = rng.random_range(0..6u32);
            let ahead = if far { rng.random_range(0..100_000) } else { rng.random_range(0..50) };
            positions.extend(start..start + count as u32);
            turns.extend((start..start + count as u32).map(|p| p + ahead));
            held.extend((0..kv_heads).map(|_| Held::new(&device, &shape, count, rng)));
            kept.push(Memory::<f32>::new(&device, 10 * heads * dim).unwrap());
        }
        let records: Vec<u64> = held.chunks(kv_heads)
            .flat_map(|of| of.iter().map(Held::record).chain([[u64::MAX; 7]]).collect::<Vec<_>>()).flatten().collect();
        let kept_at: Vec<u64> = kept.iter().flat_map(|kept| [kept.at(0), u64::MAX]).collect();
        let [qkv, q, k, steps] = [&x, &q_weight, &k_weight, &frequencies].map(|x| Memory::of(&device, x).unwrap());
        let [at, turns_at] = [&positions, &turns].map(|x| Memory::of(&device, x).unwrap());
        let runs_at = Memory::of(&device, runs.as_flattened()).unwrap();
        let (slots, kept_at) = (Memory::of(&device, &records).unwrap(), Memory::of(&device, &kept_at).unwrap());
        let norms = Memory::<f32>::new(&device, kv_heads * rows * 4).unwrap();
        let given = |memory: Arg, on: bool| if on { memory } else { Arg::Pointer(0) };
        let ints = [rows, heads, kv_heads, dim].map(|x| Arg::Int(x as i32));
        let mut args = vec![qkv.arg()];
        args.extend(ints);
        args.extend([steps.arg(), given(q.arg(), shape.normed), given(k.arg(), shape.normed), eps.into()]);
        args.extend([at.arg(), turns_at.arg(), runs_at.arg(), slots.arg(), (kv_heads as i32 + 1).into(), kv.into()]);
        args.extend([kept_at.arg(), 2.into(), given(norms.arg(), shape.norms)]);
        let longest = shape.runs.iter().map(|run| run.0).max().unwrap();
        let warps = shape.block as usize / 32;
        let grid = [(heads + kv_heads).div_ceil(warps) as u32, longest as u32, runs.len() as u32];
        device.launch(Launch { kernel: "rope", grid, block: [shape.block, 1, 1], shared: 0, args: &args }).unwrap();

        let out = qkv.read(0, rows * width).unwrap();
        let norms = norms.read(0, kv_heads * rows * 4).unwrap();
        if !shape.norms {
            prop_assert!(norms.iter().all(|x| x.to_bits() == u32::MAX), "nothing is written");
        }
        let part = |of: &[f32], r: usize, head: usize| of[r * width + head * dim..][..dim].to_vec();
        for (i, &[first, count, _, keeps]) in runs.iter().enumerate() {
            let (first, count) = (first as usize, count as usize);
            let mut queries = vec![f32::from_bits(u32::MAX).to_bits(); 10 * heads * dim];
            for (r, head) in (first..first + count).flat_map(|r| (0..heads).map(move |head| (r, head))) {
                let weight = shape.normed.then_some(&q_weight[..]);
                let (before, after) = turned(&part(&x, r, head), weight, eps, turns[r], &frequencies);
                let found = part(&out, r, head);
                for (c, found) in found.iter().enumerate() {
                    let unit = before[c].abs() + before[(c + dim / 2) % dim].abs();
                    prop_assert!(near(*found, after[c], unit), "query {} {} {}", head, found, after[c]);
                    queries[(positions[r] as usize * heads + head) * dim + c] = found.to_bits();
                }
            }
            if keeps == 0 {
                queries.fill(u32::MAX);
            }
            let found: Vec<u32> = kept[i].read(0, queries.len()).unwrap().iter().map(|x| x.to_bits()).collect();
            prop_assert_eq!(found, queries);

            for (g, held) in held[i * kv_heads..][..kv_heads].iter().enumerate() {
                let new = held.len - count..held.len;
                let (keys, values) = (numbers(&held.keys, kv), numbers(&held.values, kv));
                let untouched = stored_filler(kv);
                let [mut expected_keys, mut expected_values] = [(); 2].map(|()| vec![untouched; keys.len()]);
                for (r, slot) in (first..first + count).zip(new.clone()) {
                    let (key, value) = (part(&x, r, heads + g), part(&x, r, heads + kv_heads + g));
                    let weight = shape.normed.then_some(&k_weight[..]);
                    let (before, after) = turned(&key, weight, eps, turns[r], &frequencies);
                    let found = part(&out, r, heads + g);
                    let norms = &norms[(g * rows + r) * 4..][..4];
                    let mut expected = [f64::NAN; 4];
                    if held.has[0] {
                        for (c, found) in found.iter().enumerate() {
                            let unit = before[c].abs() + before[(c + dim / 2) % dim].abs();
                            prop_assert!(near(*found, after[c], unit), "key {} {} {}", g, found, after[c]);
                            expected_keys[slot * dim + c] = stored(*found, kv);
                        }
                        expected[..2].copy_from_slice(&[norm(&before), norm(&after)]);
                    } else {
                        prop_assert_eq!(&found, &key, "left alone");
                    }
                    if held.has[1] {
                        let wide: Vec<f64> = value.iter().map(|&v| v as f64).collect();
                        expected[2..].copy_from_slice(&[wide.iter().map(|v| v.abs()).sum(), norm(&wide)]);
                        value.iter().enumerate().for_each(|(c, &v)| expected_values[slot * dim + c] = stored(v, kv));
                    }
                    prop_assert_eq!(part(&out, r, heads + kv_heads + g), value, "values stay");
                    if shape.norms {
                        for (&found, expected) in norms.iter().zip(expected) {
                            let same = if expected.is_nan() { found.is_nan() } else { near(found, expected, expected) };
                            prop_assert!(same, "{:?} {:?}", norms, expected);
                        }
                    }
                }
                prop_assert_eq!(keys, expected_keys);
                prop_assert_eq!(values, expected_values);
                let expected = |i: usize, old: f32| if new.contains(&i) { 0.0 } else { old };
                let sums: Vec<f32> = (0..group * held.capacity).map(|i| expected(i % held.capacity, BEFORE)).collect();
                prop_assert_eq!(&held.received.read(0, sums.len()).unwrap(), &sums);
                prop_assert_eq!(&held.row.read(0, sums.len()).unwrap(), &sums);
                let offsets = held.offsets.read(0, held.capacity).unwrap();
                if held.has[2] {
                    prop_assert_eq!(&offsets, &sums[..held.capacity]);
                } else {
                    prop_assert_eq!(offsets, vec![BEFORE; held.capacity]);
                }
                let mut at = vec![u32::MAX; held.capacity];
                at[new.clone()].copy_from_slice(&positions[first..first + count]);
                prop_assert_eq!(held.positions.read(0, held.capacity).unwrap(), at);
            }
        }
    }
}

/// The number that the bytes of `Held::new` are.
fn stored_filler(kv: i32) -> f32 {
    match kv {
        0 => f32::from_le_bytes([0x3c; 4]),
        1 => f16::from_le_bytes([0x3c; 2]).to_f32(),
        _ => bf16::from_le_bytes([0x3c; 2]).to_f32(),
    }
}
