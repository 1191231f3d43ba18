//! kernels/pack.cu: the same bits as on the CPU.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Arg, Device};
use attnscope::backend::cuda::memory::Memory;
use attnscope::cache::{Groups, Stratum};
use half::{bf16, f16};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::caches::launch;
use super::emulator;

/// Numbers of a cache's type (0 f32, 1 f16, 2 bf16) as they lie there.
fn cells(x: &[f32], kind: i32) -> Vec<u8> {
    let bytes = |x: &f32| match kind {
        0 => x.to_le_bytes().to_vec(),
        1 => f16::from_f32(*x).to_le_bytes().to_vec(),
        _ => bf16::from_f32(*x).to_le_bytes().to_vec(),
    };
    x.iter().flat_map(bytes).collect()
}

fn rounded(x: f32, kind: i32) -> f32 {
    match kind {
        0 => x,
        1 => f16::from_f32(x).to_f32(),
        _ => bf16::from_f32(x).to_f32(),
    }
}

/// Any numbers, some equal, some far out, zeros of both signs, now and then none.
fn numbers(rng: &mut StdRng, count: usize) -> Vec<f32> {
    let scale = 2f32.powi(rng.random_range(-30..18));
    let number = |rng: &mut StdRng| match rng.random_range(0..40) {
        0 => 0.0,
        1 => -0.0,
        2 => scale,
        3 if rng.random_range(0..20) == 0 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][rng.random_range(0..3)],
        4 => scale * 64.0,
        _ => rng.random_range(-scale..scale),
    };
    (0..count).map(|_| number(rng)).collect()
}

/// Some of `rows`, in any order.
fn some(rng: &mut StdRng, rows: usize, count: usize) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..rows as u32)).collect()
}

#[derive(Debug)]
struct Case {
    dim: usize,
    bits: u8,
    groups: Groups,
    kind: i32,
    /// As they are read from the cache [rows, dim].
    x: Vec<f32>,
    /// Which of them are packed.
    rows: Vec<u32>,
    listed: bool,
}

struct Packed {
    codes: Memory<u8>,
    scales: Memory<f16>,
    zeros: Memory<f16>,
}

fn list(device: &Arc<dyn Device>, rows: &[u32], listed: bool) -> Option<Memory<u32>> {
    listed.then(|| Memory::of(device, rows).unwrap())
}

fn arg(list: &Option<Memory<u32>>) -> Arg {
    list.as_ref().map_or(Arg::Pointer(0), Memory::arg)
}

impl Case {
    fn expected(&self) -> Stratum {
        let mut stratum = Stratum::new(self.dim, self.bits, self.groups);
        let rows = self.rows.iter().flat_map(|&row| &self.x[row as usize * self.dim..][..self.dim]);
        stratum.push(&rows.copied().collect::<Vec<f32>>());
        stratum
    }

    fn pack(&self, device: &Arc<dyn Device>, like: &Stratum) -> Packed {
        let (dim, count) = (self.dim, self.rows.len());
        let parts = like.parts();
        let out = Packed {
            codes: Memory::new(device, parts.codes.len()).unwrap(),
            scales: Memory::new(device, parts.scales.len()).unwrap(),
            zeros: Memory::new(device, parts.zeros.len()).unwrap(),
        };
        let x = Memory::of(device, &cells(&self.x, self.kind)).unwrap();
        let rows = list(device, &self.rows, self.listed);
        let int = |x: usize| Arg::from(x as i32);
        let (kernel, group, grid, shared) = match self.groups {
            Groups::PerToken(g) => ("pack_tokens", g.min(dim), count.div_ceil(4), 16 * dim.div_ceil(g.min(dim))),
            Groups::PerChannel(g) => ("pack_channels", g, count.div_ceil(g), 4 * dim),
        };
        let args = [
            x.arg(),
            self.kind.into(),
            arg(&rows),
            int(count),
            int(dim),
            i32::from(self.bits).into(),
            int(group),
            out.codes.arg(),
            out.scales.arg(),
            out.zeros.arg(),
        ];
        launch(device, kernel, [grid, 1, 1], 128, shared, &args);
        out
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let groups = prop_oneof![(1usize..140).prop_map(Groups::PerToken), (1usize..20).prop_map(Groups::PerChannel)];
    let bits = prop::sample::select(vec![2u8, 4, 8]);
    (1usize..140, 1usize..50, bits, groups, 0i32..3, any::<bool>(), any::<u64>()).prop_map(
        |(dim, count, bits, groups, kind, listed, seed)| {
            let mut rng = StdRng::seed_from_u64(seed);
            let x: Vec<f32> = numbers(&mut rng, count * dim).into_iter().map(|x| rounded(x, kind)).collect();
            let rows = if listed { some(&mut rng, count, count) } else { (0..count as u32).collect() };
            Case { dim, bits, groups, kind, x, rows, listed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn codes_are_the_same_bits(case in cases()) {
        let device = emulator::device(&["pack"]);
        let expected = case.expected();
        let (found, parts) = (case.pack(&device, &expected), expected.parts());
        let bits = |halves: &[f16]| halves.iter().map(|half| half.to_bits()).collect::<Vec<u16>>();
        prop_assert_eq!(bits(&found.scales.read(0, parts.scales.len()).unwrap()), bits(parts.scales));
        prop_assert_eq!(bits(&found.zeros.read(0, parts.zeros.len()).unwrap()), bits(parts.zeros));
        prop_assert_eq!(found.codes.read(0, parts.codes.len()).unwrap(), parts.codes);
    }

    /// Also of strata that lost rows, where groups of tokens end anywhere.
    #[test]
    fn rows_are_read_as_on_the_cpu(case in cases(), to in 0i32..3, listed: bool, every in 2usize..5, seed: u64) {
        let device = emulator::device(&["pack"]);
        let mut stratum = case.expected();
        stratum.retain(&(0..stratum.rows() as u32).filter(|row| *row as usize % every != 1).collect::<Vec<u32>>());
        let (parts, dim) = (stratum.parts(), case.dim);
        let mut rng = StdRng::seed_from_u64(seed);
        let rows = if listed { some(&mut rng, stratum.rows(), 30) } else { (0..stratum.rows() as u32).collect() };
        let count = rows.len();
        let (codes, scales) = (Memory::of(&device, parts.codes).unwrap(), Memory::of(&device, parts.scales).unwrap());
        let (zeros, list) = (Memory::of(&device, parts.zeros).unwrap(), list(&device, &rows, listed));
        let ends = (!parts.ends.is_empty()).then(|| Memory::of(&device, parts.ends).unwrap());
        let out = Memory::<u8>::new(&device, cells(&vec![0.0; count * dim], to).len()).unwrap();
        let (Groups::PerToken(group) | Groups::PerChannel(group)) = case.groups;
        let int = |x: usize| Arg::from(x as i32);
        let args = [codes.arg(), scales.arg(), zeros.arg(), i32::from(case.bits).into(), int(group.min(dim)), arg(&ends),
            int(parts.ends.len()), arg(&list), int(count), int(dim), to.into(), out.arg()];
        launch(&device, "unpack", [(count * dim).div_ceil(256), 1, 1], 256, 0, &args);
        let mut expected = vec![0.0; count * dim];
        for (row, out) in rows.iter().zip(expected.chunks_exact_mut(dim)) {
            stratum.read(*row as usize, 0, out);
        }
        prop_assert_eq!(out.read(0, out.len()).unwrap(), cells(&expected, to));
    }
}
