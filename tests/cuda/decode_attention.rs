//! kernels/decode_attention.cu

use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;

use super::caches::{Done, Head, RECENT, Shape, far, inputs, launch, reductions_far};
use super::emulator;

/// `more`: how many splits and blocks are launched beyond what is needed.
fn decode(shape: Shape, runs: &[(u32, u32, bool)], seed: u64, more: usize) -> Done {
    let device = emulator::device(&["decode_attention"]);
    let (heads, pass, queries) = inputs(&device, shape, runs, seed);
    // one layer of three: records lie apart
    let records: Vec<u64> = heads
        .chunks(shape.kv_heads)
        .flat_map(|run| {
            let one: Vec<u64> = run.iter().flat_map(Head::record).collect();
            [one.clone(), vec![0; 2 * one.len()]].concat()
        })
        .collect();
    let records = Memory::of(&device, &records).unwrap();
    let longest = heads.iter().map(Head::len).max().unwrap();
    let splits = longest.div_ceil(128).min(64) + more;
    let (n, h, d) = (runs.len(), shape.heads(), shape.dim);
    let kept: Vec<Memory<f32>> =
        runs.iter().map(|&(base, count, _)| Memory::new(&device, (base + count) as usize * h).unwrap()).collect();
    let addresses: Vec<u64> = kept.iter().flat_map(|kept| [kept.at(0), 0]).collect();
    let addresses = Memory::of(&device, &addresses).unwrap();
    let [q, stats, partial, out, reductions] =
        [queries.len(), n * h * splits * 6, n * h * splits * d, pass.rows() * h * d, h * pass.rows() * 6]
            .map(|len| Memory::<f32>::new(&device, len).unwrap());
    q.write(0, &queries).unwrap();
    out.clear().unwrap();
    let at = Memory::of(&device, &pass.runs.concat()).unwrap();
    let positions = Memory::of(&device, &pass.positions).unwrap();
    let int = |x: usize| (x as i32).into();
    let slots = [at.arg(), records.arg(), int(3 * shape.kv_heads), positions.arg(), int(shape.group), int(d)];
    let seen = [(shape.window as i32).into(), shape.scale().into(), shape.softcap.into(), (RECENT as i32).into()];
    let first = [&[q.arg(), int(shape.qkv())], &slots[..], &[shape.kv.into()], &seen, &[int(splits)]].concat();
    let first = [first, vec![stats.arg(), partial.arg()]].concat();
    launch(&device, "decode_split", [splits, shape.kv_heads * shape.group.div_ceil(8), n], 256, 0, &first);
    let rest = [seen[0], int(splits), stats.arg(), partial.arg(), int(pass.rows()), out.arg(), reductions.arg()];
    let second = [&slots[..], &rest, &[addresses.arg(), 2.into()]].concat();
    launch(&device, "decode_merge", [1 + more, h, n], 128, 0, &second);
    let read = |memory: &Memory<f32>| memory.read(0, memory.len()).unwrap();
    Done { out: read(&out), reductions: read(&reductions), heads, pass, queries, kept }
}

/// All that was computed, in one row of bits.
fn bits(done: &Done, shape: &Shape) -> Vec<u32> {
    let rows = done
        .heads
        .iter()
        .flat_map(|head| (0..shape.group).flat_map(move |m| [head.row_now(m), head.received_now(m)].concat()));
    done.out.iter().chain(&done.reductions).copied().chain(rows).map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_alone_equal_their_definition(
        kv_heads in 1usize..3, group in 1usize..=8, dim in prop::sample::select(vec![8usize, 64, 80, 128, 256]),
        kv in 0i32..3, window in prop::sample::select(vec![0u32, 0, 5, 130]), capped: bool, offsets: bool,
        bases in prop::collection::vec(prop_oneof![0u32..20, 0u32..700], 1..4), seed: u64
    ) {
        let shape = Shape { kv_heads, group, dim, kv, window, softcap: if capped { 3.0 } else { 0.0 }, offsets };
        // the last run has two rows: none of these kernels' business
        let mut runs: Vec<(u32, u32, bool)> = bases.iter().map(|&base| (base, 1, base % 2 == 0)).collect();
        runs.push((3, 2, true));
        let done = decode(shape, &runs, seed, 0);
        let (rows, h) = (done.pass.rows(), shape.heads());
        for (i, &(position, count, keeps)) in runs.iter().enumerate() {
            for head in 0..h {
                let (cache, m, r) = (&done.heads[i * kv_heads + head / group], head % group, done.pass.runs[i][0] as usize);
                let received: Vec<f64> = cache.received[m * cache.capacity..][..cache.len()].iter().map(|&x| x as f64).collect();
                if count > 1 {
                    prop_assert_eq!(far(&cache.received_now(m), &received), 0.0);
                    continue;
                }
                let query = &done.queries[r * shape.qkv() + head * dim..][..dim];
                let row = cache.attend(query, position, RECENT);
                let out = &done.out[(r * h + head) * dim..][..dim];
                // Dot products of up to 256 terms up to 1 and sums of up to 700 such values: some ten units of 1.2e-7.
                prop_assert!(far(out, &row.out) < 1e-5, "out {}", far(out, &row.out));
                prop_assert!(far(&cache.row_now(m), &row.p) < 1e-5, "row {}", far(&cache.row_now(m), &row.p));
                let sums: Vec<f64> = received.iter().zip(&row.p).map(|(a, b)| a + b).collect();
                prop_assert!(far(&cache.received_now(m), &sums) < 1e-5);
                let found = &done.reductions[(head * rows + r) * 6..][..6];
                prop_assert!(!reductions_far(found, &row.reductions, position), "{:?} {:?}", found, row.reductions);
                let lse = done.kept[i].read(position as usize * h + head, 1).unwrap()[0];
                prop_assert_eq!(lse.to_bits(), if keeps { found[0].to_bits() } else { u32::MAX });
            }
        }
    }
}

#[test]
fn neither_threads_nor_neighbours_show() {
    let shape = Shape { kv_heads: 2, group: 3, dim: 80, kv: 1, window: 0, softcap: 0.0, offsets: true };
    let runs = [(600, 1, true)];
    let alone = decode(shape, &runs, 7, 0);
    assert_eq!(bits(&alone, &shape), bits(&decode(shape, &runs, 7, 0), &shape));
    let among = decode(shape, &runs, 7, 5);
    assert_eq!(bits(&alone, &shape), bits(&among, &shape));
}

#[test]
fn a_long_row_has_longer_splits() {
    // 64 splits of 128 slots hold 8192
    let shape = Shape { kv_heads: 1, group: 2, dim: 8, kv: 2, window: 0, softcap: 0.0, offsets: false };
    let mut seed = 1;
    let done = loop {
        let done = decode(shape, &[(20_000, 1, false)], seed, 0);
        if done.heads[0].len() > 9000 {
            break done;
        }
        seed += 1;
    };
    let cache = &done.heads[0];
    for m in 0..2 {
        let row = cache.attend(&done.queries[m * 8..][..8], 20_000, RECENT);
        assert!(far(&done.out[m * 8..][..8], &row.out) < 1e-5);
        assert!(far(&cache.row_now(m), &row.p) < 1e-6);
        assert!(!reductions_far(&done.reductions[m * 6..][..6], &row.reductions, 20_000));
    }
}
