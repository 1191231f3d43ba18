//! kernels/prefill_attention.cu

use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;

use super::caches::{Done, Head, RECENT, Shape, far, inputs, launch, reductions_far};
use super::emulator;

fn prefill(shape: Shape, runs: &[(u32, u32, bool)], seed: u64) -> Done {
    let device = emulator::device(&["prefill_attention"]);
    let (heads, pass, queries) = inputs(&device, shape, runs, seed);
    let records: Vec<u64> = heads.iter().flat_map(Head::record).collect();
    let records = Memory::of(&device, &records).unwrap();
    let (n, h, d, rows) = (runs.len(), shape.heads(), shape.dim, pass.rows());
    let kept: Vec<Memory<f32>> =
        runs.iter().map(|&(base, count, _)| Memory::new(&device, (base + count) as usize * h).unwrap()).collect();
    let addresses: Vec<u64> = kept.iter().map(|kept| kept.at(0)).collect();
    let addresses = Memory::of(&device, &addresses).unwrap();
    let q = Memory::of(&device, &queries).unwrap();
    let [out, lse, reductions] =
        [rows * h * d, h * rows, h * rows * 6].map(|n| Memory::<f32>::new(&device, n).unwrap());
    out.clear().unwrap();
    let at = Memory::of(&device, &pass.runs.concat()).unwrap();
    let positions = Memory::of(&device, &pass.positions).unwrap();
    let int = |x: usize| (x as i32).into();
    let of_runs = [q.arg(), int(shape.qkv()), at.arg(), records.arg(), int(shape.kv_heads), positions.arg()];
    let of_shape = [int(shape.group), int(d), shape.kv.into(), (shape.window as i32).into()];
    let common = [&of_runs[..], &of_shape, &[shape.scale().into(), shape.softcap.into(), int(rows)]].concat();
    let probes = [out.arg(), lse.arg(), reductions.arg(), addresses.arg(), 1.into()];
    let first = [&common[..], &[(RECENT as i32).into()], &probes].concat();
    let side = if d <= 128 { 64 } else { 32 };
    let tiles = |n: usize| n.div_ceil(side);
    let (cells, weights) = (2 * side * (d + 4) * 4, side * (side + 4) * 4);
    let longest = runs.iter().map(|run| run.1 as usize).max().unwrap();
    launch(&device, "prefill_attention", [tiles(longest), h, n], 256, cells + weights, &first);
    let longest = heads.iter().map(Head::len).max().unwrap();
    let second = [&common[..], &[lse.arg()]].concat();
    launch(&device, "prefill_received", [tiles(longest), h, n], 256, cells, &second);
    let read = |memory: &Memory<f32>| memory.read(0, memory.len()).unwrap();
    Done { out: read(&out), reductions: read(&reductions), heads, pass, queries, kept }
}

/// That every run of more than one row gave what its definition says, and others nothing.
fn check(shape: Shape, runs: &[(u32, u32, bool)], seed: u64) {
    let done = prefill(shape, runs, seed);
    let (rows, h) = (done.pass.rows(), shape.heads());
    for (i, &(base, count, keeps)) in runs.iter().enumerate() {
        for head in 0..h {
            let (cache, m) = (&done.heads[i * shape.kv_heads + head / shape.group], head % shape.group);
            let mut received: Vec<f64> =
                cache.received[m * cache.capacity..][..cache.len()].iter().map(|&x| x as f64).collect();
            if count == 1 {
                assert_eq!(far(&cache.received_now(m), &received), 0.0);
                continue;
            }
            let mut newest = Vec::new();
            for n in 0..count {
                let (position, r) = (base + n, done.pass.runs[i][0] as usize + n as usize);
                let row =
                    cache.attend(&done.queries[r * shape.qkv() + head * shape.dim..][..shape.dim], position, RECENT);
                // Dot products of up to 256 terms up to 1 and sums of up to 550 such values: some ten units of 1.2e-7.
                let out = &done.out[(r * h + head) * shape.dim..][..shape.dim];
                assert!(far(out, &row.out) < 1e-5, "out {}", far(out, &row.out));
                let found = &done.reductions[(head * rows + r) * 6..][..6];
                assert!(!reductions_far(found, &row.reductions, position), "{:?} {:?}", found, row.reductions);
                let lse = done.kept[i].read(position as usize * h + head, 1).unwrap()[0];
                assert_eq!(lse.to_bits(), if keeps { found[0].to_bits() } else { u32::MAX });
                received.iter_mut().zip(&row.p).for_each(|(sum, p)| *sum += p);
                newest = row.p;
            }
            assert!(far(&cache.row_now(m), &newest) < 1e-5, "row {}", far(&cache.row_now(m), &newest));
            // sums of up to 150 probabilities, each good to 1e-6 of itself
            let worst = far(&cache.received_now(m), &received);
            assert!(worst < 1e-5 + 2e-6 * count as f64, "received {}", worst);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn many_rows_equal_their_definition(
        kv_heads in 1usize..3, group in 1usize..4, dim in prop::sample::select(vec![8usize, 64, 80, 128, 256]),
        kv in 0i32..3, window in prop::sample::select(vec![0u32, 2, 5, 70]), capped: bool, offsets: bool,
        runs in prop::collection::vec((prop_oneof![Just(0u32), 0u32..400], 2u32..150, any::<bool>()), 1..3), seed: u64
    ) {
        let shape = Shape { kv_heads, group, dim, kv, window, softcap: if capped { 3.0 } else { 0.0 }, offsets };
        // the last run has one row: none of these kernels' business
        let runs = [&runs[..], &[(9, 1, true)]].concat();
        check(shape, &runs, seed);
    }
}

#[test]
fn edges_of_what_is_seen_fall_on_edges_of_tiles() {
    for window in [0, 1, 2, 64, 65] {
        let shape = Shape { kv_heads: 1, group: 1, dim: 8, kv: 0, window, softcap: 0.0, offsets: false };
        for seed in 0..3 {
            check(shape, &[(0, 130, true), (1, 130, true)], seed);
        }
    }
}

#[test]
fn threads_do_not_show_in_bits() {
    let shape = Shape { kv_heads: 2, group: 2, dim: 80, kv: 1, window: 0, softcap: 0.0, offsets: true };
    let all = || {
        let done = prefill(shape, &[(100, 130, true), (0, 70, false)], 3);
        let rows =
            done.heads.iter().flat_map(|head| (0..2).flat_map(|m| [head.row_now(m), head.received_now(m)].concat()));
        done.out.iter().chain(&done.reductions).copied().chain(rows).map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert_eq!(all(), all());
}
